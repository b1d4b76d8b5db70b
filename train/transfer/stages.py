"""Where a trained network can be cut: before its last layer, and at the end of an earlier stage.

A stage is a run of layers whose maps have one size. Cuts are made only where everything passes through one
tensor, so that what lies before can be frozen and computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from edge.errors import InputError
from train.baselines import without_last_layer
from train.describe import nodes

SMALLER = 1.5
"""A map that is so many times as high as the network's last one belongs to an earlier stage."""

GRID = 4
"""An earlier stage's map is averaged to about so many places each way: a linear layer on the whole of it would
have a hundred times the weights, one on its mean would not know where anything is."""


@dataclass(frozen=True)
class Cuts:
    """The layers after which a network can be cut, by name.

    Attributes:
        last: gives what the last layer with weights reads.
        earlier: ends the last stage but one; None where no map was larger, with weights behind it.
    """

    last: str
    earlier: str | None


def cuts(model: keras.Model) -> Cuts:
    """The two cuts of a classifier.

    Raises:
        InputError: it has no last layer with weights that reads one tensor, or nothing lies before that.
    """
    before_last = without_last_layer(model).outputs[0]._keras_history.operation
    order = list(model.operations)
    body = order[: order.index(before_last) + 1]
    if not any(map(_learns, body)):
        raise InputError(
            f"Model '{model.name}' has nothing to start from: no layer with weights before the last one."
        )
    return Cuts(str(before_last.name), _earlier(body, calls_of(model)))


Calls = dict[str, list[Any]]


def calls_of(model: keras.Model) -> Calls:
    """By the name of a layer or bare operation, its calls in this very model: another one may share it."""
    found: Calls = {}
    for call in nodes(model):
        found.setdefault(call.operation.name, []).append(call)
    return found


def _earlier(body: list[Any], calls: Calls) -> str | None:
    """The last place of a larger map that all passes, with weights before and behind it."""
    sizes = {layer.name: size for layer in body if (size := _map_size(calls.get(layer.name, [])))}
    if not sizes:
        return None
    last = list(sizes.values())[-1]
    learns = [_learns(layer) for layer in body]
    for index in reversed(list(_bottlenecks(body, calls))):
        layer = body[index]
        larger = sizes.get(layer.name, 0) >= SMALLER * last
        if larger and any(learns[: index + 1]) and any(learns[index + 1 :]) and not _pads(layer):
            return str(layer.name)
    return None


def _bottlenecks(order: list[Any], calls: Calls) -> Iterator[int]:
    """Positions in topological order whose output alone is read by what comes after."""
    position = {layer.name: index for index, layer in enumerate(order)}
    read_until = list(range(len(order)))
    for index, layer in enumerate(order):
        for call in calls.get(layer.name, []):
            for tensor in call.input_tensors:
                source = position[tensor._keras_history.operation.name]
                read_until[source] = max(read_until[source], index)
    latest = -1
    for index, layer in enumerate(order):
        if latest <= index and len(calls.get(layer.name, [])) <= 1:
            yield index
        latest = max(latest, read_until[index])


def _map_size(calls: list[Any]) -> int:
    """The height of the map that a layer called once gives; 0 where it gives none, or a single place."""
    outputs = [tensor for call in calls for tensor in call.outputs]
    shape = outputs[0].shape if len(outputs) == 1 else ()
    return int(shape[1]) if len(shape) == 4 and shape[1] and shape[1] > 1 else 0


def _learns(layer: Any) -> bool:
    """Whether training changes it; a bare operation has no weights."""
    return bool(getattr(layer, "weights", ())) and not isinstance(
        layer, (layers.BatchNormalization, layers.Normalization)
    )


def _pads(layer: Any) -> bool:
    return isinstance(layer, (layers.ZeroPadding2D, layers.InputLayer))


def features(tensor: Any, grid: int) -> Any:
    """A tensor as one row a picture: a map (N, H, W, C) averaged to about `grid` places each way, (N, D)."""
    shape = tensor.shape
    if len(shape) == 4:
        if grid == 1:
            return layers.GlobalAveragePooling2D(name="transfer_mean")(tensor)
        pool = tuple(max(1, side // grid) for side in shape[1:3])
        if pool != (1, 1):
            tensor = layers.AveragePooling2D(pool, name="transfer_pool")(tensor)
    return tensor if len(tensor.shape) == 2 else layers.Flatten(name="transfer_flatten")(tensor)
