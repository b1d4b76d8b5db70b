"""The network as a device runs it: what training alone needs is folded away, exactly.

Four rewrites, each from a graph to a graph that computes the same function:
layers without effect at inference go, batch normalisation becomes part of the convolution before
it, dense layers become convolutions (per-channel rounding of matrix products does not convert to
TFLite), and nodes that nobody reads are dropped.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.graph import Graph, Node, Weights
from edge.errors import InputError

WEIGHTED = frozenset({"Conv2D", "DepthwiseConv2D"})
POOLS = frozenset({"MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"})
MERGES = frozenset({"Add", "Concatenate"})
SHAPES = frozenset({"Flatten", "Reshape", "ZeroPadding2D", "UpSampling2D"})
ACTIVATIONS = frozenset({"ReLU", "Activation"})
SUPPORTED = WEIGHTED | POOLS | MERGES | SHAPES | ACTIVATIONS | {"InputLayer"}
FUSED_ACTIVATIONS = frozenset({"linear", "relu", "relu6"})

_NO_EFFECT = frozenset(
    {"Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianNoise", "GaussianDropout", "Identity"}
)
_FOLDS = WEIGHTED | {"Dense"}


def fold(graph: Graph) -> Graph:
    """All rewrites in order, then a check that int8 export knows every layer that is left.

    Raises:
        InputError: a layer has no int8 form here; the message names it and those that have.
    """
    folded = without_unread(dense_as_convolutions(fold_norms(without_effectless(graph))))
    for node in folded.nodes:
        _check_supported(node)
    return folded


def is_relu(node: Node) -> bool:
    """Whether the node is a ReLU or ReLU6, which both targets fuse into what stands before it."""
    if node.kind == "Activation":
        return node.config["activation"] in ("relu", "relu6")
    plain = not node.config.get("negative_slope") and not node.config.get("threshold")
    return node.kind == "ReLU" and plain and node.config.get("max_value") in (None, 6, 6.0)


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
        if source.kind in _FOLDS and source.config["activation"] == "linear" and reader is not None:
            nodes[source.name] = _scaled(source, gain, shift)
            alias[node.name] = source.name
        else:
            nodes[node.name] = _depthwise(node, gain, shift)
    return Graph(tuple(nodes.values()), _renamed(graph, alias))


def dense_as_convolutions(graph: Graph) -> Graph:
    """Write dense layers as convolutions: over the whole map after Flatten, 1x1 elsewhere.

    Their outputs are then (1, 1, units) maps; a Reshape brings (units,) back where it is wanted.
    """
    lifted: dict[str, Node] = {}  # (C,) in the old graph, (1, 1, C) in the new one
    nodes: list[Node] = []
    for node in graph.nodes:
        source = graph[node.inputs[0]] if node.inputs else None
        if node.kind == "Dense" and source is not None:
            nodes.append(_dense(node, graph, source, lifted))
        elif node.kind == "GlobalAveragePooling2D" and not node.config["keepdims"]:
            nodes.append(replace(node, config={**node.config, "keepdims": True}, shape=(1, 1, *node.shape)))
        elif node.kind in ACTIVATIONS and source is not None and source.name in lifted:
            nodes.append(replace(node, shape=lifted[source.name].shape))
        else:
            present = {known.name for known in nodes}
            nodes.extend(new for new in _lowered(node, lifted) if new.name not in present)
            continue
        if len(node.shape) == 1:
            lifted[node.name] = nodes[-1]
    flat = {name: _flat(lifted[name]) for name in graph.outputs.values() if name in lifted}
    present = {node.name for node in nodes}
    nodes.extend(node for node in flat.values() if node.name not in present)
    return Graph(tuple(nodes), _renamed(graph, {name: node.name for name, node in flat.items()}))


def without_unread(graph: Graph) -> Graph:
    """Drop nodes whose output nobody reads."""
    needed = {*graph.outputs.values(), graph.nodes[0].name}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return replace(graph, nodes=tuple(node for node in graph.nodes if node.name in needed))


def _check_supported(node: Node) -> None:
    if node.kind not in SUPPORTED or (node.kind in ACTIVATIONS and not is_relu(node)):
        what = node.config["activation"] if node.kind == "Activation" else node.kind
    elif node.kind in WEIGHTED and _named_activation(node) not in FUSED_ACTIVATIONS:
        what = f"{node.kind} with activation {_named_activation(node)}"
    elif node.config.get("groups", 1) != 1:
        what = f"{node.kind} with groups={node.config['groups']}"
    elif node.config.get("data_format", "channels_last") != "channels_last":
        what = f"{node.kind} with data_format={node.config['data_format']}"
    elif node.config.get("interpolation", "nearest") != "nearest":
        what = f"{node.kind} with interpolation={node.config['interpolation']}"
    else:
        return
    raise InputError(
        f"Layer '{node.name}' ({what}) has no int8 form here. Known: {', '.join(sorted(SUPPORTED))}, "
        "Dense and BatchNormalization, with ReLU or ReLU6. Export fp32 and fp16 only (--precisions fp32,fp16)."
    )


def _named_activation(node: Node) -> str:
    activation = node.config["activation"]
    return activation if isinstance(activation, str) else str(activation.get("class_name", activation))


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
    factor = gain.reshape(kernel.shape[2:]) if layer.kind == "DepthwiseConv2D" else gain
    bias = layer.weights[1] if layer.config["use_bias"] else np.zeros_like(gain)
    weights = (kernel * factor, bias * gain + shift)
    return replace(layer, weights=weights, config={**layer.config, "use_bias": True})


def _depthwise(norm: Node, gain: NDArray[np.float32], shift: NDArray[np.float32]) -> Node:
    if len(norm.shape) != 3:
        raise InputError(
            f"Batch normalisation '{norm.name}' works on a vector and has no dense layer before it to fold into."
        )
    config = {"name": norm.name, "kernel_size": (1, 1), "use_bias": True, "activation": "linear"}
    return replace(norm, kind="DepthwiseConv2D", config=config, weights=(gain.reshape(1, 1, -1, 1), shift))


def _dense(node: Node, graph: Graph, source: Node, lifted: dict[str, Node]) -> Node:
    kernel, *bias = node.weights
    size: tuple[int, ...] = (1, 1)
    reads = source.name
    if source.kind == "Flatten" and len(graph[source.inputs[0]].shape) == 3:
        reads = source.inputs[0]
        size = graph[reads].shape[:2]
    elif len(source.shape) == 1 and source.name not in lifted:
        raise InputError(
            f"Dense layer '{node.name}' reads a vector that is not made from a map; no int8 form."
        )
    kept = {key: node.config[key] for key in ("name", "use_bias", "activation")}
    weights: Weights = (kernel.reshape(*size, -1, kernel.shape[1]), *bias)
    shape = (1, 1, *node.shape) if len(node.shape) == 1 else node.shape
    config = {**kept, "filters": kernel.shape[1], "kernel_size": size}
    return replace(node, kind="Conv2D", config=config, weights=weights, inputs=(reads,), shape=shape)


def _lowered(node: Node, lifted: dict[str, Node]) -> list[Node]:
    """The node itself, after a Reshape for each input of it that has become a map."""
    flat = [_flat(lifted[name]) for name in node.inputs if name in lifted]
    inputs = tuple(_flat(lifted[name]).name if name in lifted else name for name in node.inputs)
    return [*flat, replace(node, inputs=inputs)]


def _flat(node: Node) -> Node:
    shape = node.shape[-1:]
    name = f"{node.name}_flat"
    return Node(name, "Reshape", {"name": name, "target_shape": shape}, (), (node.name,), shape)


def _renamed(graph: Graph, alias: dict[str, str]) -> dict[str, str]:
    """The outputs, where nodes have been replaced by others."""
    return {head: alias.get(name, name) for head, name in graph.outputs.items()}
