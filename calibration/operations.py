"""Bare operations of a functional model, `keras.ops.relu(x)` and the like, as the layers that compute the same."""

from __future__ import annotations

from typing import Any

from calibration.graph import Node

Made = tuple[str, dict[str, Any]]
"""A layer's kind, and its configuration but for its name."""


def operation_node(operation: Any, parents: tuple[str, ...], shape: tuple[int, ...]) -> Node:
    """The node of a call of `keras.ops`, or of an operator such as `a + b`; its kind tells where no layer is the same.

    Args:
        shape: of its output without the batch.
    """
    kind, config = _as_layer(operation, len(parents), shape) or (_unknown(type(operation).__name__), {})
    return Node(operation.name, kind, {"name": operation.name, **config}, (), parents, shape)


def _as_layer(operation: Any, inputs: int, shape: tuple[int, ...]) -> Made | None:
    match type(operation).__name__:
        case "Relu" | "Relu6" | "Sigmoid" | "Tanh" | "Silu" as name:
            return "Activation", {"activation": name.lower()}
        case "HardSilu" | "HardSigmoid" as name:
            return "Activation", {"activation": f"hard_{name[4:].lower()}"}
        case "Gelu" if not operation.approximate:
            return "Activation", {"activation": "gelu"}
        case "Clip" if (operation.x_min, operation.x_max) == (0, 6):
            return "Activation", {"activation": "relu6"}
        case "ReLU":  # keras.activations.relu
            return "ReLU", _parameters(operation, "negative_slope", "max_value", "threshold")
        case "LeakyRelu":
            return "LeakyReLU", _parameters(operation, "negative_slope")
        case "Elu":
            return "ELU", _parameters(operation, "alpha")
        case "Softmax" | "Concatenate" as kind:
            return kind, _parameters(operation, "axis")
        case "Reshape":
            return "Reshape", {"target_shape": shape}
        case "Mean" | "Max" as name if _is_over_places(operation, shape):
            pool = {"Mean": "GlobalAveragePooling2D", "Max": "GlobalMaxPooling2D"}[name]
            return pool, _parameters(operation, "keepdims")
        case "Add" | "Multiply" as kind if inputs == 2:
            return kind, {}
    return None


def _parameters(operation: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(operation, name) for name in names}


def _is_over_places(operation: Any, shape: tuple[int, ...]) -> bool:
    """Whether it takes the height and width of a map (batch, height, width, channels) together."""
    of_map = len(shape) == (3 if operation.keepdims else 1)
    bounded = getattr(operation, "initial", None) is not None
    return of_map and not bounded and sorted(operation.axis or ()) in ([1, 2], [-3, -2])


def _unknown(operation: str) -> str:
    layer = _INSTEAD.get(operation)
    return f"operation {operation}{f', of which layers.{layer} may do the same' if layer else ''}"


_INSTEAD = {
    "AveragePool": "AveragePooling2D",
    "Conv": "Conv2D",
    "DepthwiseConv": "DepthwiseConv2D",
    "Gelu": 'Activation("gelu")',
    "GetItem": "Cropping2D",
    "Matmul": "Dense",
    "Max": "GlobalMaxPooling2D",
    "MaxPool": "MaxPooling2D",
    "Mean": "GlobalAveragePooling2D",
    "Pad": "ZeroPadding2D",
    "SeparableConv": "SeparableConv2D",
}
"""Keras's layers that come nearest to operations which have no rule, or not in every form."""
