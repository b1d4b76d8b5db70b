"""From Keras's own record of a model's calls to plain nodes: nested models, repeated layers, bare operations.

Keras 3 has no public way to walk a graph by call; `_nodes_by_depth` and `_keras_history` are its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.graph import FLOAT_ALONE, Node
from calibration.operations import operation_node
from edge.errors import InputError

CUSTOM = "custom layer "
"""Before the class name, in the kind of a layer that is not Keras's own: no rule here holds for it."""

Names = dict[int, str]
"""By the identity of a Keras tensor, the node that gives it."""


def nodes_of(model: Any) -> tuple[tuple[Node, ...], Names]:
    """All nodes of a model in the order of computation, and which of them gives which tensor.

    Raises:
        InputError: the input's size is not fixed, or a model without a recorded graph.
    """
    nodes: list[Node] = []
    names: Names = {}
    _read_into(nodes, names, model)
    _check_sizes(nodes[0])
    return tuple(nodes), names


def _read_into(nodes: list[Node], names: Names, model: Any) -> None:
    """Append the nodes of a model; the tensors of its inputs are in `names` already where it is nested."""
    for call in _calls(model):
        output = call.output_tensors[0]
        if id(output) in names:
            continue  # a nested model's input: it is what the outer model puts there
        if _is_model(call.operation):
            _read_nested(nodes, names, call)
            continue
        if len(call.output_tensors) > 1:
            raise InputError(
                f"'{call.operation.name}' ({type(call.operation).__name__}) has {len(call.output_tensors)} outputs; "
                f"int8 knows layers with one. {FLOAT_ALONE}"
            )
        node = _node(call, tuple(names[id(tensor)] for tensor in call.arguments.keras_tensors))
        node = with_name(node, free_name(_plain(node.name), {known.name for known in nodes}))
        nodes.append(node)
        names[id(output)] = node.name


def _plain(name: str) -> str:
    """A name that TensorFlow takes for a scope, and that no layer has which `calibration.simulate` adds."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    plain = plain if plain[0].isalnum() else f"layer{plain}"
    return f"{plain}_layer" if plain == "input" or plain.endswith(_ADDED) else plain


_ADDED = ("_round", "_fence", "_switch")


def _read_nested(nodes: list[Node], names: Names, call: Any) -> None:
    inner = call.operation
    inside = {
        id(tensor): names[id(outer)]
        for tensor, outer in zip(inner.inputs, call.arguments.keras_tensors, strict=True)
    }
    _read_into(nodes, inside, inner)
    for tensor, output in zip(inner.outputs, call.output_tensors, strict=True):
        names[id(output)] = inside[id(tensor)]


def _is_model(layer: Any) -> bool:
    if not hasattr(layer, "layers"):
        return False
    if getattr(layer, "_functional", None) is None and not hasattr(layer, "_nodes_by_depth"):
        raise InputError(
            f"Layer '{layer.name}' is a {type(layer).__name__} without a recorded graph. Build it with "
            f"keras.Model(inputs, outputs) or keras.Sequential. {FLOAT_ALONE}"
        )
    return True


def _calls(model: Any) -> Iterator[Any]:
    """The model's calls in topological order; Keras keeps them by depth, deepest first."""
    by_depth = getattr(getattr(model, "_functional", None) or model, "_nodes_by_depth", None)
    if by_depth is None:
        raise InputError(
            f"Model '{model.name}' is a {type(model).__name__} without a recorded graph. "
            "Build it with keras.Model(inputs, outputs) or keras.Sequential."
        )
    return (call for depth in sorted(by_depth, reverse=True) for call in by_depth[depth])


def _node(call: Any, parents: tuple[str, ...]) -> Node:
    layer = call.operation
    shape = tuple(call.output_tensors[0].shape[1:])
    if affine := _affine(layer, call):
        return affine_node(layer.name, parents, shape, *affine)
    if not hasattr(layer, "get_weights"):
        return operation_node(layer, parents, shape)
    own = type(layer).__module__.startswith("keras.")
    kind = type(layer).__name__ if own else f"{CUSTOM}{type(layer).__name__}"
    # Whatever precision it was trained in, its weights are float32 and so is what is made of it.
    config = {key: value for key, value in layer.get_config().items() if not key.startswith("lora_")}
    return Node(layer.name, kind, config | {"dtype": "float32"}, _weights(layer), parents, shape)


def _weights(layer: Any) -> tuple[NDArray[np.float32], ...]:
    """A layer's weights; a low-rank adaptation (LoRA) is part of the kernel then."""
    if mode := getattr(layer, "quantization_mode", None):
        raise InputError(
            f"Layer '{layer.name}' was quantized by Keras already ({mode}). Export the float model that it was made of."
        )
    weights = layer.get_weights()
    if getattr(layer, "lora_enabled", False):
        bias = getattr(layer, "bias", None)
        weights = [layer.kernel] if bias is None else [layer.kernel, bias]
    return tuple(np.asarray(values, np.float32) for values in weights)


def affine_node(name: str, inputs: tuple[str, ...], shape: tuple[int, ...], gain: Any, shift: Any) -> Node:
    """gain * x + shift by channel, as a batch normalisation that has nothing to normalise: it folds as one."""
    channels = shape[-1:]
    weights = (
        np.broadcast_to(np.asarray(gain, np.float32).reshape(-1), channels).copy(),
        np.broadcast_to(np.asarray(shift, np.float32).reshape(-1), channels).copy(),
        np.zeros(channels, np.float32),
        np.ones(channels, np.float32),
    )
    config = {"name": name, "scale": True, "center": True, "epsilon": 0.0}
    return Node(name, "BatchNormalization", config, weights, inputs, shape)


Affine = tuple[Any, Any]


def _affine(layer: Any, call: Any) -> Affine | None:
    """Gain and shift of what only scales and shifts: preprocessing layers, and arithmetic with a constant."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        return layer.scale, layer.offset
    if kind == "Normalization" and not layer.invert:
        if np.size(layer.mean) > 1 and np.shape(layer.mean)[-1] != np.size(layer.mean):
            raise InputError(
                f"Layer '{layer.name}' (Normalization with axis={layer.axis}) has a mean for each place; int8 "
                f"knows one for each channel (axis=-1), or for all. {FLOAT_ALONE}"
            )
        gain = 1 / np.maximum(np.sqrt(np.asarray(layer.variance)), 1e-7)
        return gain, -np.asarray(layer.mean) * gain
    if hasattr(layer, "get_weights") or len(call.arguments.keras_tensors) != 1:
        return None
    constants = [value for value in call.arguments.args if isinstance(value, int | float)]
    return _ARITHMETIC[kind](constants[0]) if kind in _ARITHMETIC and _tensor_first(call, constants) else None


def _tensor_first(call: Any, constants: list[float]) -> bool:
    """Whether it is `tensor op constant`; the order matters to subtraction and division alone."""
    commutes = type(call.operation).__name__ in ("Add", "Multiply")
    return len(constants) == 1 and (commutes or not isinstance(call.arguments.args[0], int | float))


_ARITHMETIC: dict[str, Callable[[float], Affine]] = {
    "Add": lambda value: (1.0, value),
    "Subtract": lambda value: (1.0, -value),
    "Multiply": lambda value: (value, 0.0),
    "Divide": lambda value: (1 / value, 0.0),
    "TrueDivide": lambda value: (1 / value, 0.0),
}


def free_name(name: str, taken: set[str]) -> str:
    """The name, or where it is taken the first of `name_2`, `name_3`, ... that is not."""
    if name not in taken:
        return name
    return next(f"{name}_{n}" for n in range(2, len(taken) + 3) if f"{name}_{n}" not in taken)


def with_name(node: Node, name: str) -> Node:
    """The same node under that name."""
    return node if name == node.name else replace(node, name=name, config={**node.config, "name": name})


def _check_sizes(pixels: Node) -> None:
    if None in pixels.shape:
        raise InputError(
            f"Input layer '{pixels.name}' takes {pixels.shape}: a size that is not fixed. Every range belongs "
            "to one size: pass --size, or build the model with keras.Input((height, width, 3))."
        )
