"""The layers that have an int8 form, and what is told of those that have none."""

from __future__ import annotations

from calibration.graph import FLOAT_ALONE, Graph, Node
from calibration.lower import FIXED_RANGES, activation_of
from calibration.reading import CUSTOM
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

_FOLDED_AWAY = frozenset({"Dense", "BatchNormalization"})
NAMED = 5
"""So many layers a message names; of more it gives the number."""


def check_order(graph: Graph) -> None:
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


def check_supported(graph: Graph) -> None:
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


def is_relu(node: Node) -> bool:
    """Whether the node is a ReLU or ReLU6, which both targets fuse into what stands before it."""
    if node.kind == "Activation":
        return node.config["activation"] in ("relu", "relu6")
    plain = not node.config.get("negative_slope") and not node.config.get("threshold")
    return node.kind == "ReLU" and plain and node.config.get("max_value") in (None, 6, 6.0)


def _has_integers(node: Node) -> bool:
    if node.kind == "ELU":
        return bool(node.config["alpha"] == 1)
    return is_relu(node) or node.kind in ONE_OPERATOR or activation_of(node) in {*FIXED_RANGES, "gelu"}


def _bounds(node: Node) -> str:
    keys = ("alpha",) if node.kind == "ELU" else ("max_value", "negative_slope", "threshold")
    return ", ".join(f"{key}={node.config.get(key)}" for key in keys)
