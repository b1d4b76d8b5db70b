"""The network as a device runs it: what training alone needs is folded away, exactly.

Rewrites, each from a graph to a graph that computes the same function: layers without effect at
inference go, layers without an int8 operator become several (`calibration.lower`), batch
normalisation becomes part of the convolution before it, also through a pool between the two, dense
layers become convolutions (`calibration.dense`), ReLU moves before a maximum, reshapes that undo each
other go, and nodes that nobody reads are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.dense import dense_as_convolutions
from calibration.graph import FLOAT_ALONE, Graph, Node
from calibration.kinds import WEIGHTED, check_order, check_supported, is_relu
from calibration.lower import expanded, lower
from edge.errors import InputError

_NO_EFFECT = frozenset(
    {
        "Dropout",
        "SpatialDropout2D",
        "AlphaDropout",
        "GaussianNoise",
        "GaussianDropout",
        "Identity",
        "ActivityRegularization",
        "RandomFlip",
        "RandomRotation",
        "RandomZoom",
        "RandomTranslation",
        "RandomContrast",
        "RandomBrightness",
    }
)
_RELU_GOES_THROUGH = ("MaxPooling2D", "GlobalMaxPooling2D", "UpSampling2D", "ZeroPadding2D", "Cropping2D")
_NORM_GOES_THROUGH = ("MaxPooling2D", "GlobalMaxPooling2D", "UpSampling2D", "Cropping2D")
_FOLDS = WEIGHTED | {"Dense"}
"""Takes a batch normalisation in; `calibration.lower` has made its activation a node of its own."""


def fold(graph: Graph) -> Graph:
    """All rewrites in order, and a check that int8 export knows every layer.

    Raises:
        InputError: layers have no int8 form here; the message names them and those that have.
    """
    plain = without_idle_reshapes(without_effectless(graph))
    check_order(plain)
    plain = lower(plain)
    check_supported(plain)
    plain = mean_apart(fold_norms(norm_first(plain)))
    return without_unread(relu_first(without_idle_reshapes(dense_as_convolutions(plain))))


def fused_relu(graph: Graph, node: Node) -> Node | None:
    """The ReLU or ReLU6 that alone reads the node, if there is one."""
    reader = graph.only_consumer(node.name)
    return reader if reader is not None and is_relu(reader) else None


def without_effectless(graph: Graph) -> Graph:
    """Drop dropout, noise and linear activations: at inference they hand their input on."""
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        linear = node.kind == "Activation" and node.config["activation"] == "linear"
        if node.kind in _NO_EFFECT or linear:
            alias[node.name] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    return Graph(tuple(nodes), _renamed(graph, alias))


def fold_norms(graph: Graph) -> Graph:
    """Fold each batch normalisation into the convolution or dense layer that alone feeds it.

    One that cannot be folded (after a pool, say) becomes a depthwise 1x1 convolution.
    With g = gamma / sqrt(variance + epsilon): kernel' = g * kernel and
    bias' = g * (bias - mean) + beta (Jacob et al. 2018, arXiv 1712.05877, section 3.2).
    """
    alias: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        if node.kind != "BatchNormalization":
            nodes[node.name] = node
            continue
        source = nodes[node.inputs[0]]
        reader = graph.only_consumer(graph[node.name].inputs[0])
        gain, shift = _affine(node)
        if source.kind in _FOLDS and reader is not None:
            nodes[source.name] = _scaled(source, gain, shift)
            alias[node.name] = source.name
        else:
            nodes[node.name] = channelwise(node, gain, shift)
    return Graph(tuple(nodes.values()), _renamed(graph, alias))


def without_idle_reshapes(graph: Graph) -> Graph:
    """Drop a Reshape or Flatten whose output is what went into it, or into another one somewhere before it."""

    def origin(node: Node) -> str | None:
        name, found = node.name, None
        while graph[name].kind in ("Reshape", "Flatten"):
            name = graph[name].inputs[0]
            found = name if graph[name].shape == node.shape else found
        return found

    alias = {node.name: found for node in graph.nodes if (found := origin(node)) is not None}
    kept = (node for node in graph.nodes if node.name not in alias)
    nodes = tuple(replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs)) for node in kept)
    return Graph(nodes, _renamed(graph, alias))


def norm_first(graph: Graph) -> Graph:
    """Batch normalisation of a convolution's maxima is the maxima of its normalisation, which then folds into it.

    So where no gain is negative. A copy or a part lets any gain through.
    """

    def moves(node: Node, norm: Node) -> bool:
        if node.kind not in _NORM_GOES_THROUGH or norm.kind != "BatchNormalization":
            return False
        source = graph[node.inputs[0]]
        alone = graph.only_consumer(source.name) is not None
        return (
            source.kind in _FOLDS
            and alone
            and ("Max" not in node.kind or bool((_affine(norm)[0] >= 0).all()))
        )

    return _reader_first(graph, moves)


def relu_first(graph: Graph) -> Graph:
    """ReLU of a maximum, copy, part or padding is the same of the ReLU, which then fuses into what stands before it."""
    return _reader_first(graph, lambda node, reader: node.kind in _RELU_GOES_THROUGH and is_relu(reader))


def _reader_first(graph: Graph, moves: Callable[[Node, Node], bool]) -> Graph:
    """Each node for which it `moves` changes places with the one that alone reads it."""
    readers = {
        node.name: reader
        for node in graph.nodes
        if (reader := graph.only_consumer(node.name)) is not None and moves(node, reader)
    }
    alias = {reader.name: name for name, reader in readers.items()}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        if node.name in readers:
            reader = replace(readers[node.name], inputs=inputs, shape=graph[node.inputs[0]].shape)
            nodes += [reader, replace(node, inputs=(reader.name,))]
        elif node.name not in alias:
            nodes.append(replace(node, inputs=inputs))
    return Graph(tuple(nodes), _renamed(graph, alias))


def mean_apart(graph: Graph) -> Graph:
    """Put an identity between a pool of means and its ReLU.

    TFLite's converter fuses the two, and then refuses the pool: its output must have the scale of its input.
    """

    def split(node: Node) -> list[Node]:
        source = graph[node.inputs[0]] if node.inputs else node
        if source.kind != "AveragePooling2D" or not is_relu(node):
            return [node]
        ones, name = np.ones(node.shape[-1:], np.float32), f"{node.name}_identity"
        identity = replace(node, name=name, config={"name": name})
        return [channelwise(identity, ones, 0 * ones), replace(node, inputs=(name,))]

    return expanded(graph, split)


def without_unread(graph: Graph) -> Graph:
    """Drop nodes whose output nobody reads."""
    needed = {*graph.outputs.values(), graph.nodes[0].name}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return replace(graph, nodes=tuple(node for node in graph.nodes if node.name in needed))


def _affine(norm: Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Batch normalisation as y = gain * x + shift, computed in float64."""
    values = [w.astype(np.float64) for w in norm.weights]
    gamma = values.pop(0) if norm.config["scale"] else 1.0
    beta = values.pop(0) if norm.config["center"] else 0.0
    mean, variance = values
    gain = gamma / np.sqrt(variance + norm.config["epsilon"])
    return gain.astype(np.float32), (beta - gain * mean).astype(np.float32)


def _scaled(layer: Node, gain: NDArray[np.float32], shift: NDArray[np.float32]) -> Node:
    kernel = layer.weights[0]
    # A depthwise kernel is (h, w, in, multiplier) and its output channels are in * multiplier.
    factor = gain.reshape(kernel.shape[2:] if layer.kind == "DepthwiseConv2D" else -1)
    bias = layer.weights[1] if layer.config["use_bias"] else np.zeros_like(gain)
    weights = (kernel * factor, bias * gain + shift)
    return replace(layer, weights=weights, config={**layer.config, "use_bias": True})


def channelwise(node: Node, gain: NDArray[np.float32], shift: NDArray[np.float32]) -> Node:
    """In the node's place gain * x + shift by channel, as a depthwise 1x1 convolution."""
    if len(node.shape) not in (1, 3):
        raise InputError(
            f"Layer '{node.name}' works on {node.shape}; int8 knows maps (height, width, channels) and vectors. "
            f"{FLOAT_ALONE}"
        )
    config = {"name": node.name, "kernel_size": (1, 1), "use_bias": True, "activation": "linear"}
    return replace(node, kind="DepthwiseConv2D", config=config, weights=(gain.reshape(1, 1, -1, 1), shift))


def _renamed(graph: Graph, alias: dict[str, str]) -> dict[str, str]:
    """The outputs, where nodes have been replaced by others."""
    return {head: alias.get(name, name) for head, name in graph.outputs.items()}
