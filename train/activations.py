"""What a network's layers give at the start, by layer: dead units, exploding and vanishing values.

The lecture's picture: with good initial weights all layers' outputs spread alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from train.choices.structure import Maxout, heads, hidden_activation

VANISHED, EXPLODED = 1e-3, 1e3
"""Times the spread of the pixels: below the first or above the second no gradient survives."""

TOO_MANY = 0.5
"""More dead or saturated units in a layer than this share are an error."""

SATURATED = 0.01
"""How near a sigmoid or tanh is to its limits where it counts as saturated."""

PICTURES, VALUES = 64, 2**26
"""At most so many pictures are shown, and so many numbers kept: 256 MB."""


@dataclass(frozen=True)
class Activation:
    """The outputs of one layer on a few pictures.

    Attributes:
        layer, kind: its name and class.
        mean, spread: of all values; `spread` is the standard deviation.
        dead: share of the channels that are zero for every picture and place; None without a ReLU.
        saturated: share of the values at a limit; None without a sigmoid or tanh.
        wrong: what is wrong, with the likely cause; empty where nothing is.
    """

    layer: str
    kind: str
    mean: float
    spread: float
    dead: float | None
    saturated: float | None
    wrong: str


def activations(model: keras.Model, pixels: NDArray[np.float32]) -> list[Activation]:
    """By layer that computes or activates, in the model's order, on normalised pixels (N, H, W, 3).

    The pass is one of training: batch normalisation uses the pictures' own statistics. It changes the
    moving ones, so the model must not be trained afterwards.
    """
    watched = list(_watched(model))
    if not watched:
        return []
    outputs = [layer.output for layer in watched]
    size = sum(math.prod(side or 1 for side in tensor.shape[1:]) for tensor in outputs)
    few = pixels[: max(2, min(PICTURES, VALUES // max(1, size)))]
    values = keras.Model(model.input, outputs)(few, training=True)
    spread = float(few.std())
    found = (np.asarray(keras.ops.convert_to_numpy(value)) for value in keras.tree.flatten(values))
    return [_activation(layer, value, spread) for layer, value in zip(watched, found, strict=True)]


def _watched(model: keras.Model) -> Iterator[Any]:
    """Not the heads: they may begin near zero. Nor what is used twice."""
    ends = heads(model)
    for layer in model.layers:
        computes = getattr(layer, "kernel", None) is not None
        activates = isinstance(layer, Maxout) or hidden_activation(layer) or _limits(layer)
        once = len(layer._inbound_nodes) == 1
        if (computes or activates) and once and layer.name not in ends:
            yield layer


def _activation(layer: Any, values: NDArray[np.float32], pixel_spread: float) -> Activation:
    dead = saturated = None
    if hidden_activation(layer) in ("relu", "relu6"):
        dead = float((values == 0).all(axis=tuple(range(values.ndim - 1))).mean())
    limits = _limits(layer)
    if limits is not None:
        saturated = float(np.mean((values < limits[0] + SATURATED) | (values > limits[1] - SATURATED)))
    mean, spread = float(values.mean()), float(values.std())
    wrong = _wrong(layer, spread, spread / (pixel_spread or 1.0), dead or 0.0, saturated or 0.0)
    return Activation(layer.name, type(layer).__name__, mean, spread, dead, saturated, wrong)


def _limits(layer: Any) -> tuple[float, float] | None:
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}.get(name)


def _wrong(layer: Any, spread: float, ratio: float, dead: float, saturated: float) -> str:
    if not math.isfinite(spread):
        return "not a number: look at the pixels and at the layers before"
    if ratio > EXPLODED:
        return "exploding: the initial weights are too large, initialiser=he or lsuv, or norm=batch"
    if dead > TOO_MANY:
        return f"{100 * dead:.0f} % dead units: the biases or initial weights are off, initialiser=he or lsuv"
    if saturated > TOO_MANY:
        return f"{100 * saturated:.0f} % saturated: the initial weights are too large, initialiser=glorot or lsuv"
    if ratio < VANISHED:
        return "vanishing: the initial weights are too small, initialiser=he or lsuv, or norm=batch"
    return ""
