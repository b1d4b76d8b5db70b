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
    head = order[order.index(before_last) + 1 :]
    body = order[: len(order) - len(head)]
    if not any(_learns(layer) for layer in body):
        raise InputError(
            f"Model '{model.name}' has nothing to start from: no layer with weights before the last one."
        )
    return Cuts(str(before_last.name), _earlier(body))


def _earlier(body: list[Any]) -> str | None:
    """The last place of a larger map that all passes, with weights before and behind it."""
    sizes = {layer.name: size for layer in body if (size := _map_size(layer))}
    if not sizes:
        return None
    last = list(sizes.values())[-1]
    learns = [_learns(layer) for layer in body]
    for index in reversed(list(_bottlenecks(body))):
        layer = body[index]
        larger = sizes.get(layer.name, 0) >= SMALLER * last
        if larger and any(learns[: index + 1]) and any(learns[index + 1 :]) and not _pads(layer):
            return str(layer.name)
    return None


def _bottlenecks(order: list[Any]) -> Iterator[int]:
    """Positions in topological order whose output alone is read by what comes after."""
    position = {layer.name: index for index, layer in enumerate(order)}
    read_until = list(range(len(order)))
    for index, layer in enumerate(order):
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                source = position[tensor._keras_history.operation.name]
                read_until[source] = max(read_until[source], index)
    latest = -1
    for index, layer in enumerate(order):
        if latest <= index and len(layer._inbound_nodes) == 1:
            yield index
        latest = max(latest, read_until[index])


def _map_size(layer: Any) -> int:
    """The height of the map that a layer gives; 0 where it gives none, or a single place."""
    shape = layer.output.shape if len(layer._inbound_nodes) == 1 and _single(layer.output) else ()
    return int(shape[1]) if len(shape) == 4 and shape[1] and shape[1] > 1 else 0


def _single(output: Any) -> bool:
    return not isinstance(output, (list, tuple, dict))


def _learns(layer: Any) -> bool:
    return bool(layer.weights) and not isinstance(layer, (layers.BatchNormalization, layers.Normalization))


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
