"""What a network looks for and what it sees: first-layer filters, and every layer's answer to one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.pixels import Image, normalise
from train.describe import graph_of, nodes

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float32]

GOES_ON = frozenset(
    {"BatchNormalization", "LayerNormalization", "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Maxout"}
    | {"Dropout", "SpatialDropout2D", "Add"}
)
"""Kinds that only change the values of the maps before them: of such a chain the last is shown."""

HIDDEN = frozenset({"InputLayer", "Rescaling", "Normalization", "ZeroPadding2D", "Cropping2D"})
"""Kinds that show the picture as it was, or the maps before them with another border."""

FLATTENING = frozenset({"InputLayer", "Rescaling", "Normalization", "Dropout", "Flatten"})
"""What may stand before a dense layer whose weights are still one for each value of each pixel."""


@dataclass(frozen=True)
class Filters:
    """The kernels of the first layer, float32 (H, W, 3, filters), in the order of red, green and blue."""

    layer: str
    kernels: Floats


@dataclass(frozen=True)
class Maps:
    """The answer of one layer to one picture, float32 (H, W, channels)."""

    layer: str
    kind: str
    values: Floats

    @property
    def silent(self) -> int:
        """How many channels are zero everywhere."""
        return int((self.values == 0).all(axis=(0, 1)).sum())


def filters(model: keras.Model) -> Filters | None:
    """Of the first convolution, or the templates of a dense layer on the pixels themselves.

    None where the first layer with a kernel is neither, or does not read three colours. That which a recipe's
    `preprocess` put before the network is passed over.
    """
    from train.choices.inputs import NAME

    before: list[str] = []
    for layer in _layers(model):
        kernel = getattr(layer, "kernel", None)
        if kernel is None or layer.name == NAME:
            before.append(type(layer).__name__)
            continue
        values = np.asarray(_numpy(kernel), np.float32)
        if type(layer).__name__ == "Dense" and FLATTENING.issuperset(before):
            values = values.reshape(*model.input_shape[1:], -1)
        fits = values.ndim == 4 and values.shape[2] == 3 and type(layer).__name__ in ("Conv2D", "Dense")
        return Filters(layer.name, values) if fits else None
    return None


def maps(model: keras.Model, picture: Image) -> list[Maps]:
    """What the layers make of a picture, in the model's order; those inside a nested model too.

    Args:
        model: functional or sequential, float32 (1, H, W, 3) in [-1, 127/128]; of another kind nothing is known.
        picture: uint8 (H, W, 3) RGB of the model's input size.

    Returns:
        One for each chain of convolution, normalisation and activation, and each pool, that keeps rows and columns.
        A layer that is used twice is shown twice.
    """
    return list(_maps(model, normalise(picture[None])))


def _maps(model: Any, values: Any) -> Iterator[Maps]:
    import keras

    calls = list(nodes(model))
    watched = [call for call in calls if _nested(call.operation) or _shown(call, calls)]
    if not watched:
        return
    # A nested model is opened: what goes into it is computed here, its layers by themselves.
    tensors = [call.input_tensors[0] if _nested(call.operation) else call.outputs[0] for call in watched]
    found = keras.tree.flatten(keras.Model(model.inputs[0], tensors)(values, training=False))
    for call, value in zip(watched, found, strict=True):
        layer = call.operation
        if _nested(layer):
            yield from _maps(layer, value)
        else:
            yield Maps(layer.name, type(layer).__name__, np.asarray(_numpy(value)[0], np.float32))


def _shown(call: Any, calls: list[Any]) -> bool:
    """Whether it is the last of a chain, and gives maps of more than one place."""
    output = call.outputs[0]
    shape = tuple(getattr(output, "shape", ()))
    if type(call.operation).__name__ in HIDDEN or len(shape) != 4 or None in shape[1:]:
        return False
    readers = [
        type(other.operation).__name__ for other in calls if any(t is output for t in other.input_tensors)
    ]
    return shape[1] * shape[2] > 1 and (len(readers) != 1 or readers[0] not in GOES_ON)


def _layers(model: Any) -> Iterator[Any]:
    """All layers, those of nested models in the place of these."""
    for layer in model.layers:
        yield from _layers(layer) if _nested(layer) else (layer,)


def _nested(layer: Any) -> bool:
    """Whether it is a model with one input inside another."""
    return graph_of(layer) is not None and len(layer.inputs) == 1


def _numpy(value: Any) -> NDArray[Any]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value))
