"""Where each target rounds: what simulation and repairs agree on.

Layers that a plan leaves in float have the ReLU behind them in float too, and in TensorRT the addition that
they are fused with. What they read stays as it is: where an int8 layer of TFLite gave it, it was rounded there.
"""

from __future__ import annotations

from collections.abc import Collection

from calibration.fold import fused_relu
from calibration.graph import Graph, Node
from calibration.kinds import WEIGHTED
from calibration.observers import measured


def rounded_nodes(graph: Graph, in_float: Collection[str] = ()) -> tuple[Node, ...]:
    """The nodes whose output TFLite rounds: those with a range, and means of windows, which keep one.

    Args:
        in_float: layers that stay in float. Their output is rounded where it is a head, or where any other
            layer reads it.
    """
    names = {node.name for node in measured(graph)} - _between_floats(graph, in_float)
    return tuple(node for node in graph.nodes if node.name in names or node.kind == "AveragePooling2D")


def rounded_inputs(graph: Graph, node: Node, in_float: Collection[str] = ()) -> tuple[int, ...]:
    """Which inputs TensorRT wants rounded; of an addition all but the convolution it is fused with.

    Args:
        in_float: layers that stay in float. None of their inputs is rounded, nor any of an addition that
            can be fused with no other.
    """
    if node.kind in WEIGHTED or node.kind in _ROUND_INPUT:
        return () if node.name in in_float else (0,)
    if node.kind == "Add":
        return _rounded_shortcuts(graph, node, in_float)
    return ()


def _rounded_shortcuts(graph: Graph, addition: Node, in_float: Collection[str]) -> tuple[int, ...]:
    layers = [i for i, name in enumerate(addition.inputs) if _fusable(graph, name)]
    fused = [i for i in layers if addition.inputs[i] not in in_float][:1]
    if layers and not fused:
        return ()
    return tuple(i for i in range(len(addition.inputs)) if i not in fused)


def _between_floats(graph: Graph, in_float: Collection[str]) -> set[str]:
    """The layers in float, and ReLUs fused into them, that layers in float alone read."""
    relus = {relu.name for name in in_float if (relu := fused_relu(graph, graph[name]))}
    return {
        name
        for name in {*in_float, *relus} - set(graph.outputs.values())
        if all(reader.name in in_float for reader in graph.consumers(name))
    }


_ROUND_INPUT = ("AveragePooling2D", "GlobalAveragePooling2D", "UpSampling2D")
"""Upsampling copies, so that it is rounded before it. Its reader rounds again, with the same scale, which
changes no value: between a DequantizeLinear and a QuantizeLinear the copy can be done in int8."""


def _fusable(graph: Graph, name: str) -> bool:
    return graph[name].kind in WEIGHTED and graph.only_consumer(name) is not None
