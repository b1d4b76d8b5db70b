"""Layers that int8 has no operator for, written as several that it has. Each rewrite is exact.

What remains of activations: ReLU and ReLU6, which fuse into what stands before them, the three with a fixed
range (sigmoid, tanh, softmax), and those that are one operator of TFLite's: hard-swish, leaky ReLU, ELU, GELU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from calibration.graph import Graph, Node
from calibration.reading import affine_node, free_name, with_name

FIXED_RANGES: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 255 / 256),
    "softmax": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}
"""TFLite's 8-bit specification prescribes the scale and zero point of their outputs: 1/256 and -128, 1/128 and 0."""

KNOWN = frozenset(
    {"relu", "relu6", "leaky_relu", "elu", "gelu", "swish", "hard_swish", "hard_sigmoid", *FIXED_RANGES}
)
"""Activations that have an int8 form here."""

_WITH_ACTIVATION = frozenset({"Conv2D", "DepthwiseConv2D", "Dense"})
_LAYERS_AS_ACTIVATION = frozenset({"ReLU", "LeakyReLU", "ELU", "Softmax"})
"""Layers of Keras that may stand as another one's activation."""

_LIKE_ACTIVATION = {"ReLU6": "relu6", "Softmax": "softmax"}
LEAKY_SLOPE = 0.2
"""Of Keras's activation function; its layers say theirs."""

_NAMES = {"silu": "swish", "hard_silu": "hard_swish"}
"""Keras's second names."""

_SPATIAL = ("kernel_size", "strides", "padding", "dilation_rate", "data_format")

Split = Callable[[Node], list[Node]]


def lower(graph: Graph) -> Graph:
    """All rewrites in order."""
    for split in (_in_pairs, _separated, _each_channel_alone, _activation_apart, _known_activation):
        graph = expanded(graph, split)
    return graph


def expanded(graph: Graph, split: Split) -> Graph:
    """Each node replaced by those that `split` makes of it; who read it reads the last of them."""
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    taken = {node.name for node in graph.nodes}
    for node in graph.nodes:
        parts = split(replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs)))
        parts = _named_apart(parts, taken - {node.name})
        taken.update(part.name for part in parts)
        nodes.extend(parts)
        alias[node.name] = parts[-1].name
    return Graph(tuple(nodes), {head: alias[name] for head, name in graph.outputs.items()})


def _named_apart(parts: list[Node], taken: set[str]) -> list[Node]:
    """The parts, those renamed that bear the name of another layer: a user's own `conv_relu` beside our own."""
    named: list[Node] = []
    new: dict[str, str] = {}  # of the parts so far: an input of that name may be the other layer
    for part in parts:
        read = tuple(new.get(name, name) for name in part.inputs)
        new[part.name] = free_name(part.name, taken)
        named.append(with_name(replace(part, inputs=read), new[part.name]))
    return named


def activation_of(node: Node) -> str:
    """The name of a node's activation; 'linear' where it has none."""
    activation = node.config.get("activation", "linear")
    if not isinstance(activation, str):
        activation = str(activation.get("class_name", activation))
    return _NAMES.get(activation, activation)


def _in_pairs(node: Node) -> list[Node]:
    """A sum or product of several as one of two after another: neither target has an operator for more."""
    if node.kind not in ("Add", "Multiply") or len(node.inputs) < 3:
        return [node]
    first, *others = node.inputs
    parts: list[Node] = []
    for number, other in enumerate(others, start=1):
        name = node.name if number == len(others) else f"{node.name}_part{number}"
        parts.append(replace(node, name=name, config={"name": name}, inputs=(first, other)))
        first = name
    return parts


def _separated(node: Node) -> list[Node]:
    """A separable convolution as a depthwise and a 1x1 convolution (Chollet 2016, arXiv 1610.02357)."""
    if node.kind != "SeparableConv2D":
        return [node]
    depthwise, pointwise, *bias = node.weights
    spatial = {key: node.config[key] for key in _SPATIAL}
    name = f"{node.name}_depthwise"
    first = {
        **spatial,
        "name": name,
        "depth_multiplier": node.config["depth_multiplier"],
        "use_bias": False,
        "activation": "linear",
    }
    shape = (*node.shape[:-1], pointwise.shape[2])
    second = {key: node.config[key] for key in ("name", "filters", "use_bias", "activation", "data_format")}
    return [
        Node(name, "DepthwiseConv2D", first, (depthwise,), node.inputs, shape),
        replace(
            node,
            kind="Conv2D",
            config={**second, "kernel_size": (1, 1)},
            weights=(pointwise, *bias),
            inputs=(name,),
        ),
    ]


def _each_channel_alone(node: Node) -> list[Node]:
    """A convolution with as many groups as channels as the depthwise convolution that it is."""
    groups = node.config.get("groups", 1)
    if node.kind != "Conv2D" or groups == 1 or node.weights[0].shape[2] > 1:
        return [node]
    kernel, *bias = node.weights
    kept = {key: node.config[key] for key in ("name", *_SPATIAL, "use_bias", "activation")}
    config = {**kept, "depth_multiplier": kernel.shape[3] // groups}
    weights = (kernel.reshape(*kernel.shape[:2], groups, -1), *bias)
    return [replace(node, kind="DepthwiseConv2D", config=config, weights=weights)]


def _activation_apart(node: Node) -> list[Node]:
    """A layer's own activation becomes a node: repairs work on what the layer gives before it."""
    activation = activation_of(node)
    if node.kind not in _WITH_ACTIVATION or activation not in KNOWN | _LAYERS_AS_ACTIVATION:
        return [node]
    name, given = f"{node.name}_{activation}", node.config["activation"]
    kind, config = "Activation", {"name": name, "activation": given}
    if activation in _LAYERS_AS_ACTIVATION:
        kind, config = activation, {**given["config"], "name": name}
    plain = replace(node, config={**node.config, "activation": "linear"})
    return [plain, Node(name, kind, config, (), (node.name,), node.shape)]


def _known_activation(node: Node) -> list[Node]:
    if node.kind in _LIKE_ACTIVATION and node.config.get("axis", -1) in (-1, len(node.shape)):
        config = {"name": node.name, "activation": _LIKE_ACTIVATION[node.kind]}
        node = replace(node, kind="Activation", config=config)
    if node.kind == "ReLU" and node.config.get("max_value") is None and not node.config.get("threshold"):
        return [_leaky(node, node.config["negative_slope"])] if node.config.get("negative_slope") else [node]
    if node.kind != "Activation" or activation_of(node) not in _MADE_OF:
        return [node]
    return _MADE_OF[activation_of(node)](node)


def _swish(node: Node) -> list[Node]:
    """x * sigmoid(x)."""
    gate = _made(node, "sigmoid", "Activation", node.inputs, activation="sigmoid")
    return [
        gate,
        replace(node, kind="Multiply", config={"name": node.name}, inputs=(*node.inputs, gate.name)),
    ]


def _hard_sigmoid(node: Node) -> list[Node]:
    """relu6(x + 3) / 6."""
    shifted = affine_node(f"{node.name}_shift", node.inputs, node.shape, 1.0, 3.0)
    clipped = _made(node, "relu6", "ReLU", (shifted.name,), max_value=6.0)
    return [shifted, clipped, affine_node(node.name, (clipped.name,), node.shape, 1 / 6, 0.0)]


def _hard_swish(node: Node) -> list[Node]:
    return [replace(node, kind="HardSwish", config={"name": node.name})]


def _leaky(node: Node, slope: float) -> Node:
    return replace(node, kind="LeakyReLU", config={"name": node.name, "negative_slope": float(slope)})


_MADE_OF: dict[str, Split] = {
    "swish": _swish,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "leaky_relu": lambda node: [_leaky(node, LEAKY_SLOPE)],
    "elu": lambda node: [replace(node, kind="ELU", config={"name": node.name, "alpha": 1.0})],
}


def _made(node: Node, suffix: str, kind: str, inputs: tuple[str, ...], **config: Any) -> Node:
    name = f"{node.name}_{suffix}"
    return Node(name, kind, {"name": name, **config}, (), inputs, node.shape)
