"""The network as a device runs it: what training alone needs is folded away, exactly.

Rewrites, each from a graph to a graph that computes the same function: layers without effect at
inference go, layers without an int8 operator become several (`calibration.lower`), batch
normalisation becomes part of the convolution before it, also through a pool between the two, dense
layers become convolutions (per-channel rounding of matrix products does not convert to TFLite), ReLU
moves before a maximum,
reshapes that undo each other go, and nodes that nobody reads are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.graph import FLOAT_ALONE, Graph, Node, Weights
from calibration.lower import FIXED_RANGES, activation_of, expanded, lower
from calibration.reading import CUSTOM, free_name
from edge.errors import InputError

WEIGHTED = frozenset({"Conv2D", "DepthwiseConv2D"})
GLOBAL_POOLS = frozenset({"GlobalAveragePooling2D", "GlobalMaxPooling2D"})
POOLS = frozenset({"MaxPooling2D", "AveragePooling2D"}) | GLOBAL_POOLS
MERGES = frozenset({"Add", "Multiply", "Concatenate"})
SHAPES = frozenset({"Flatten", "Reshape", "ZeroPadding2D", "Cropping2D", "UpSampling2D"})
ONE_OPERATOR = frozenset({"HardSwish", "LeakyReLU", "ELU"})
"""Activations that TFLite rounds once, in an operator of their own."""
ACTIVATIONS = ONE_OPERATOR | {"ReLU", "Activation"}
SUPPORTED = WEIGHTED | POOLS | MERGES | SHAPES | ACTIVATIONS | {"InputLayer"}
WRITTEN_OTHERWISE = (
    "Dense",
    "SeparableConv2D",
    "BatchNormalization",
    "Rescaling",
    "Normalization",
    "Softmax",
)
"""What becomes other layers on the way."""

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
_FOLDED_AWAY = frozenset({"Dense", "BatchNormalization"})
NAMED = 5
"""So many layers a message names; of more it gives the number."""


def fold(graph: Graph) -> Graph:
    """All rewrites in order, and a check that int8 export knows every layer.

    Raises:
        InputError: layers have no int8 form here; the message names them and those that have.
    """
    plain = without_idle_reshapes(without_effectless(graph))
    _check_order(plain)
    plain = lower(plain)
    _check_supported(plain)
    plain = mean_apart(fold_norms(norm_first(plain)))
    return without_unread(relu_first(without_idle_reshapes(dense_as_convolutions(plain))))


def is_relu(node: Node) -> bool:
    """Whether the node is a ReLU or ReLU6, which both targets fuse into what stands before it."""
    if node.kind == "Activation":
        return node.config["activation"] in ("relu", "relu6")
    plain = not node.config.get("negative_slope") and not node.config.get("threshold")
    return node.kind == "ReLU" and plain and node.config.get("max_value") in (None, 6, 6.0)


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
        if source.kind in _FOLDS and source.config["activation"] == "linear" and reader is not None:
            nodes[source.name] = _scaled(source, gain, shift)
            alias[node.name] = source.name
        else:
            nodes[node.name] = channelwise(node, gain, shift)
    return Graph(tuple(nodes.values()), _renamed(graph, alias))


def dense_as_convolutions(graph: Graph) -> Graph:
    """Write dense layers as convolutions: over the whole map after Flatten, 1x1 elsewhere.

    Their outputs are then (1, 1, units) maps; a Reshape brings (units,) back where it is wanted. A map that is
    flattened for other layers becomes one of a single place.
    """
    lifted: dict[str, Node] = {}  # (C,) in the old graph, (1, 1, C) in the new one
    flats: dict[str, Node] = {}  # of those that somebody wants as (C,) again, by the name in the old graph
    nodes: list[Node] = []

    def flat(name: str) -> str:
        if name not in flats:
            flats[name] = _flat(lifted[name], {node.name for node in (*graph.nodes, *flats.values())})
            nodes.append(flats[name])
        return flats[name].name

    for node in graph.nodes:
        maps = bool(node.inputs) and all(name in lifted for name in node.inputs)
        if node.kind == "Dense":
            nodes.append(_dense(node, graph, graph[node.inputs[0]], lifted))
        elif _flattens_for_others(graph, node):
            shape = (1, 1, *node.shape)
            config = {"name": node.name, "target_shape": shape}
            nodes.append(replace(node, kind="Reshape", config=config, shape=shape))
        elif node.kind in GLOBAL_POOLS and not node.config["keepdims"]:
            nodes.append(replace(node, config={**node.config, "keepdims": True}, shape=(1, 1, *node.shape)))
        elif maps and node.kind in _ON_MAPS_TOO:
            nodes.append(_on_map(node))
        elif node.kind in ("Add", "Multiply") and len(node.shape) == 3:
            nodes.append(node)  # of a map and, maybe, a vector that is (1, 1, C) now: it broadcasts
        else:
            nodes.append(replace(node, inputs=tuple(flat(n) if n in lifted else n for n in node.inputs)))
            continue
        if len(node.shape) == 1:
            lifted[node.name] = nodes[-1]
    outputs = {head: flat(name) if name in lifted else name for head, name in graph.outputs.items()}
    return Graph(tuple(nodes), outputs)


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
        foldable = source.kind in _FOLDS and source.config["activation"] == "linear"
        alone = graph.only_consumer(source.name) is not None
        return foldable and alone and ("Max" not in node.kind or bool((_affine(norm)[0] >= 0).all()))

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


def _check_order(graph: Graph) -> None:
    """Raises InputError for a layer that a rewrite would take for one with its channels last."""
    for node in graph.nodes:
        axis, order = node.config.get("axis", -1), node.config.get("data_format") or "channels_last"
        if node.kind == "BatchNormalization" and axis not in (-1, len(node.shape), [-1], [len(node.shape)]):
            what = f"axis={axis}"
        elif node.kind == "Flatten" and order != "channels_last":
            what = f"data_format={order}"
        else:
            continue
        raise InputError(
            f"Layer '{node.name}' ({node.kind} with {what}) has no int8 form here: expected its channels last. "
            f"{FLOAT_ALONE}"
        )


def _check_supported(graph: Graph) -> None:
    """Raises InputError that names the layers of a lowered graph that have no int8 form."""
    unknown = [f"'{node.name}' ({what})" for node in graph.nodes if (what := _unsupported(node))]
    if not unknown:
        return
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    named = f"{', '.join(unknown[:NAMED])}{more}"
    which = f"Layer {named} has" if len(unknown) == 1 else f"Layers {named} have"
    known = sorted(SUPPORTED - {"InputLayer"} | set(WRITTEN_OTHERWISE))
    raise InputError(
        f"{which} no int8 form here. Known: {', '.join(known)}, with ReLU, ReLU6, "
        f"leaky ReLU, ELU, GELU, swish, hard-swish, sigmoid, hard-sigmoid, tanh and softmax. {FLOAT_ALONE}"
    )


def _unsupported(node: Node) -> str:
    """What about a layer has no int8 form, in words; empty where it has one."""
    config = node.config
    if node.kind.startswith(CUSTOM):
        return f"{node.kind}, which int8 export cannot look into"
    if node.kind not in SUPPORTED | _FOLDED_AWAY:
        return node.kind
    if node.kind in ACTIVATIONS and not _has_integers(node):
        return activation_of(node) if node.kind == "Activation" else f"{node.kind} with {_bounds(node)}"
    if node.kind in WEIGHTED | _FOLDED_AWAY and activation_of(node) != "linear":
        return f"{node.kind} with activation {activation_of(node)}"
    if config.get("groups", 1) != 1:
        return f"{node.kind} with groups={config['groups']}"
    if config.get("data_format", "channels_last") not in ("channels_last", None):
        return f"{node.kind} with data_format={config['data_format']}"
    if config.get("interpolation", "nearest") != "nearest":
        return f"{node.kind} with interpolation={config['interpolation']}"
    if node.kind == "Concatenate" and config.get("axis", -1) not in (-1, len(node.shape)):
        return f"Concatenate with axis={config['axis']}"
    return ""


def _has_integers(node: Node) -> bool:
    if node.kind == "ELU":
        return bool(node.config["alpha"] == 1)
    return is_relu(node) or node.kind in ONE_OPERATOR or activation_of(node) in {*FIXED_RANGES, "gelu"}


def _bounds(node: Node) -> str:
    keys = ("alpha",) if node.kind == "ELU" else ("max_value", "negative_slope", "threshold")
    return ", ".join(f"{key}={node.config.get(key)}" for key in keys)


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


_ON_MAPS_TOO = ACTIVATIONS | MERGES | {"DepthwiseConv2D"}
"""Layers that do to a (1, 1, C) map what they do to a vector; a depthwise one is a norm that did not fold."""


def _on_map(node: Node) -> Node:
    config = {**node.config, "axis": -1} if node.kind == "Concatenate" else node.config
    return replace(node, config=config, shape=(1, 1, *node.shape))


def _flattens(node: Node) -> bool:
    return node.kind in ("Flatten", "Reshape") and len(node.shape) == 1


def _flattens_for_others(graph: Graph, node: Node) -> bool:
    """Whether others read its vector than dense layers, which read the map before it as a whole."""
    if not _flattens(node):
        return False
    whole = len(graph[node.inputs[0]].shape) == 3
    kinds = {reader.kind for reader in graph.consumers(node.name)}
    return bool(kinds & _ON_MAPS_TOO) or ("Dense" in kinds and not whole)


def _dense(node: Node, graph: Graph, source: Node, lifted: dict[str, Node]) -> Node:
    kernel, *bias = node.weights
    size: tuple[int, ...] = (1, 1)
    reads = source.name
    if _flattens(source) and len(graph[source.inputs[0]].shape) == 3:
        reads = source.inputs[0]
        size = graph[reads].shape[:2]
    elif len(source.shape) not in (1, 3) or (len(source.shape) == 1 and source.name not in lifted):
        raise InputError(
            f"Dense layer '{node.name}' reads {source.shape} of '{source.name}': int8 knows dense layers on maps "
            f"(height, width, channels) and on vectors. {FLOAT_ALONE}"
        )
    kept = {key: node.config[key] for key in ("name", "use_bias", "activation")}
    weights: Weights = (kernel.reshape(*size, -1, kernel.shape[1]), *bias)
    shape = (1, 1, *node.shape) if len(node.shape) == 1 else node.shape
    config = {**kept, "filters": kernel.shape[1], "kernel_size": size}
    return replace(node, kind="Conv2D", config=config, weights=weights, inputs=(reads,), shape=shape)


def _flat(node: Node, taken: set[str]) -> Node:
    shape, name = node.shape[-1:], free_name(f"{node.name}_flat", taken)
    return Node(name, "Reshape", {"name": name, "target_shape": shape}, (), (node.name,), shape)


def _renamed(graph: Graph, alias: dict[str, str]) -> dict[str, str]:
    """The outputs, where nodes have been replaced by others."""
    return {head: alias.get(name, name) for head, name in graph.outputs.items()}
