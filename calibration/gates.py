"""Swish and hard-swish in a form that lets a channel's scale through, for `calibration.equalise`.

swish(x) is x * sigmoid(x). If the layer before gives x / s, this is s * (x / s) * sigmoid(s * (x / s)): the first s
goes into the kernels that read the product, the second one into a depthwise 1x1 convolution before the sigmoid, which
has a scale for each channel. That layer is the price; it begins as the identity, and equalisation multiplies it.

Of hard-swish, x * relu6(x + 3) / 6, the layer takes in the 3, and ReLU6 fuses into it; the sixth goes into the layer
that gives x.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from calibration.fold import channelwise
from calibration.graph import Graph, Node
from calibration.kinds import WEIGHTED
from calibration.lower import expanded

_SUFFIX = "_rescale"


def rescales(node: Node) -> bool:
    """Whether the layer was put before a gate here."""
    return node.kind == "DepthwiseConv2D" and bool(re.search(rf"{_SUFFIX}(_\d+)?$", node.name))


def gates_apart(graph: Graph) -> Graph:
    """The same function, folded, with a layer that rescales before each gate; the same graph where there is none."""
    swishes = {node.name for node in graph.nodes if _is_swish_gate(graph, node)}
    hard = {node.name for node in graph.nodes if _is_after_a_layer_alone(graph, node)}
    if not swishes | hard:
        return graph
    sixths = {graph[name].inputs[0] for name in hard}

    def split(node: Node) -> list[Node]:
        if node.name in swishes:
            return _rescaled_gate(graph, node)
        if node.name in hard:
            return _product(graph, node)
        return [_sixth(node) if node.name in sixths else node]

    return expanded(graph, split)


def _is_swish_gate(graph: Graph, node: Node) -> bool:
    """A sigmoid that is read by its product with what it reads itself, and by nothing else."""
    if node.kind != "Activation" or node.config["activation"] != "sigmoid" or len(node.shape) != 3:
        return False
    reader = graph.only_consumer(node.name)
    return (
        reader is not None and reader.kind == "Multiply" and set(reader.inputs) == {node.name, *node.inputs}
    )


def _is_after_a_layer_alone(graph: Graph, node: Node) -> bool:
    """A hard-swish whose input is a convolution's, and read by nothing else."""
    return (
        node.kind == "HardSwish"
        and graph[node.inputs[0]].kind in WEIGHTED
        and graph.only_consumer(node.inputs[0]) is not None
    )


def _rescaled_gate(graph: Graph, gate: Node) -> list[Node]:
    layer = _rescale(graph[gate.inputs[0]], gate.name, 1.0, 0.0)
    return [layer, replace(gate, inputs=(layer.name,))]


def _product(graph: Graph, swish: Node) -> list[Node]:
    """relu6(6 * x' + 3) * x' for x' = x / 6."""
    source = graph[swish.inputs[0]]
    layer = _rescale(source, swish.name, 6.0, 3.0)
    name = f"{swish.name}_gate"
    gate = Node(name, "ReLU", {"name": name, "max_value": 6.0}, (), (layer.name,), swish.shape)
    product = replace(swish, kind="Multiply", config={"name": swish.name}, inputs=(source.name, name))
    return [layer, gate, product]


def _rescale(source: Node, name: str, gain: float, shift: float) -> Node:
    ones, own = np.ones(source.shape[-1:], np.float32), f"{name}{_SUFFIX}"
    place = Node(own, "DepthwiseConv2D", {"name": own}, (), (source.name,), source.shape)
    return channelwise(place, gain * ones, shift * ones)


def _sixth(layer: Node) -> Node:
    return replace(layer, weights=tuple(weight / np.float32(6) for weight in layer.weights))
