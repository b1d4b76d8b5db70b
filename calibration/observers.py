"""What each tensor holds over a sample of real images: one pass, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.fold import fused_relu
from calibration.graph import Graph, Node, build
from calibration.histogram import Histogram
from calibration.kinds import SHAPES, WEIGHTED
from calibration.lower import FIXED_RANGES, activation_of
from calibration.ranges import Range, range_method
from calibration.samples import Pictures
from edge.errors import InputError
from edge.pixels import normalise

Progress = Callable[[int], None]
"""Told how many images went through once more."""

BATCH_PIXELS = 64 * 128 * 128
MOST_IMAGES = 64
"""At once: so many images, or as many as have so many pixels, since every activation is held with them."""

KEEP_RANGE = SHAPES | {"MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D"}
"""Layers whose output has the range, and in int8 the scale, of their input."""

_FUSES = WEIGHTED | {"Add", "Multiply"}
"""Operators that both targets compute together with the ReLU behind them."""


def measured(graph: Graph) -> tuple[Node, ...]:
    """The nodes whose output gets a range of its own.

    Not the input, whose range is fixed by the pixel convention; not what keeps its input's range;
    and not what only feeds a ReLU: both targets fuse the two, nothing is rounded between them.
    """
    return tuple(
        node
        for node in graph.nodes
        if node.kind != "InputLayer" and node.kind not in KEEP_RANGE and not _fused_into_relu(graph, node)
    )


def observe(graph: Graph, images: Pictures, progress: Progress = lambda done: None) -> dict[str, Histogram]:
    """The histogram of each measured node over images, uint8 (N, H, W, 3).

    Raises:
        InputError: a node gives infinities or NaN; the message names it.
    """
    histograms: dict[str, Histogram] = {}
    for name, values in outputs(graph, images, progress):
        try:
            histograms.setdefault(name, Histogram()).add(values)
        except ValueError as error:
            raise InputError(
                f"Layer '{name}' gives values that are {error} on the calibration images: no range can hold "
                "them. Likely a training that diverged, or weights of another scale; evaluate the float model."
            ) from error
    return histograms


def reach(
    graph: Graph, images: Pictures, progress: Progress = lambda done: None
) -> dict[str, NDArray[np.float32]]:
    """By measured node, the largest magnitude of each channel over images, float32 (channels,)."""
    found: dict[str, NDArray[np.float32]] = {}
    for name, values in outputs(graph, images, progress):
        largest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
        found[name] = np.maximum(found.get(name, largest), largest)
    return found


def ranges(
    graph: Graph, images: Pictures, method: str, progress: Progress = lambda done: None
) -> dict[str, Range]:
    """The range of each measured node; of an activation whose scale TFLite prescribes, that one.

    What only sigmoids or only tanh read, no further than they tell values apart.
    """
    chosen = range_method(method)
    found = observe(graph, images, progress)
    nodes = {node.name: node for node in measured(graph)}

    def of(node: Node, low: float, high: float) -> Range:
        least, most = widest(graph, node)
        if activation_of(node) in FIXED_RANGES:
            return least, most
        # All values may lie beyond one end: a gate that is always open.
        return min(max(low, least), most), max(min(high, most), least)

    return {name: of(nodes[name], *chosen(histogram)) for name, histogram in found.items()}


def widest(graph: Graph, node: Node) -> Range:
    """What a node's values are cut to whatever the images are: beyond it they would change no int8 value.

    Infinite for most nodes. An activation with a fixed range has that one; what only sigmoids or only tanh read need
    go no further than they tell values apart.
    """
    if (fixed := FIXED_RANGES.get(activation_of(node))) is not None:
        return fixed
    readers = {activation_of(reader) for reader in graph.consumers(node.name)}
    if node.name in graph.outputs.values() or not readers:
        return -math.inf, math.inf
    limit = max(_FLAT_BEYOND.get(kind, math.inf) for kind in readers)
    return -limit, limit


_FLAT_BEYOND = {"sigmoid": 6.3, "tanh": 3.2}
"""sigmoid(6.3) is half a step of 1/256 from 1, tanh(3.2) less than half a step of 1/128."""


def outputs(
    graph: Graph, images: Pictures, progress: Progress = lambda done: None
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each measured node's name and output, float32 (n, ...), batch by batch."""
    names = [node.name for node in measured(graph)]
    watch = _watching(graph, names)
    for pixels in batches(images):
        yield from zip(names, (np.asarray(values) for values in watch(pixels)), strict=True)
        progress(len(pixels))


def batches(images: Pictures) -> Iterator[NDArray[np.float32]]:
    """Normalised pixels, float32 (n, H, W, 3), as many at a time as memory is meant for."""
    size = min(MOST_IMAGES, max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2])))
    return (normalise(images[start : start + size]) for start in range(0, len(images), size))


def _fused_into_relu(graph: Graph, node: Node) -> bool:
    return node.kind in _FUSES and fused_relu(graph, node) is not None


def _watching(graph: Graph, names: list[str]) -> Callable[[NDArray[np.float32]], list[Any]]:
    import keras

    model = build(graph)
    watched = keras.Model(model.input, [model.get_layer(name).output for name in names])

    def watch(batch: NDArray[np.float32]) -> list[Any]:
        values = watched(batch, training=False)
        return list(values) if len(names) > 1 else [values]

    return watch
