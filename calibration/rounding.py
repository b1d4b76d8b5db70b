"""Where each target rounds: what simulation and repairs agree on."""

from __future__ import annotations

from calibration.fold import WEIGHTED
from calibration.graph import Graph, Node
from calibration.observers import measured


def rounded_nodes(graph: Graph) -> tuple[Node, ...]:
    """The nodes whose output TFLite rounds: those with a range, and means of windows, which keep one."""
    names = {node.name for node in measured(graph)}
    return tuple(node for node in graph.nodes if node.name in names or node.kind == "AveragePooling2D")


def rounded_inputs(graph: Graph, node: Node) -> tuple[int, ...]:
    """Which inputs TensorRT wants rounded; of an addition all but the convolution it is fused with."""
    if node.kind in WEIGHTED or node.kind in _ROUND_INPUT:
        return (0,)
    if node.kind == "Add":
        fused = [i for i, name in enumerate(node.inputs) if _fusable(graph, name)][:1]
        return tuple(i for i in range(len(node.inputs)) if i not in fused)
    return ()


_ROUND_INPUT = ("AveragePooling2D", "GlobalAveragePooling2D", "UpSampling2D")
"""Upsampling copies, so that it is rounded before it. Its reader rounds again, with the same scale, which
changes no value: between a DequantizeLinear and a QuantizeLinear the copy can be done in int8."""


def _fusable(graph: Graph, name: str) -> bool:
    return graph[name].kind in WEIGHTED and graph.only_consumer(name) is not None
