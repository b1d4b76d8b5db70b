"""The range of each tensor over a sample of real images.

Two passes in bounded memory: the first finds minima and maxima, the second, where percentiles are
asked for, fills a histogram of fixed size between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.fold import SHAPES, is_relu
from calibration.graph import Graph, Node, build
from edge.errors import InputError
from edge.pixels import Image, normalise

Range = tuple[float, float]
Progress = Callable[[int], None]

BINS = 2048
BATCH_PIXELS = 64 * 128 * 128
MOST_IMAGES = 64
"""At once: so many images, or as many as have so many pixels, since every activation is held with them."""

KEEP_RANGE = SHAPES | {"MaxPooling2D", "AveragePooling2D"}
"""Layers whose output has the range, and in int8 the scale, of their input."""


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


def min_max(graph: Graph, images: Image, progress: Progress = lambda done: None) -> dict[str, Range]:
    """Smallest and largest value of each measured node: uint8 (N, H, W, 3) images in."""
    ranges: dict[str, Range] = {}
    for name, values in _outputs(graph, images, progress):
        low, high = ranges.get(name, (np.inf, -np.inf))
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    return ranges


def percentile(
    graph: Graph, images: Image, percent: float, progress: Progress = lambda done: None
) -> dict[str, Range]:
    """The range that holds `percent` of the values of each side's tail, from a 2,048-bin histogram.

    A value of 99.99 leaves out the largest 0.01 % and the smallest 0.01 % of all activations.
    """
    if not 50 < percent <= 100:
        raise InputError(f"A percentile lies above 50 and up to 100, got {percent}.")
    outer = min_max(graph, images, progress)
    counts: dict[str, NDArray[np.int64]] = {name: np.zeros(BINS, np.int64) for name in outer}
    for name, values in _outputs(graph, images, progress):
        counts[name] += np.histogram(values, BINS, _not_empty(outer[name]))[0]
    return {name: _tails(counts[name], _not_empty(outer[name]), percent) for name in outer}


def _tails(counts: NDArray[np.int64], outer: Range, percent: float) -> Range:
    edges = np.linspace(*outer, BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    low = edges[int(np.searchsorted(share, 1 - percent / 100, side="right"))]
    high = edges[min(BINS, int(np.searchsorted(share, percent / 100 - 1e-12)) + 1)]
    return float(low), float(high)


def _not_empty(outer: Range) -> Range:
    low, high = outer
    return (low, high) if high > low else (low, low + 1e-6)


def _fused_into_relu(graph: Graph, node: Node) -> bool:
    reader = graph.only_consumer(node.name)
    return reader is not None and is_relu(reader)


def _outputs(graph: Graph, images: Image, progress: Progress) -> Iterator[tuple[str, NDArray[np.float32]]]:
    names = [node.name for node in measured(graph)]
    watch = _watching(graph, names)
    size = min(MOST_IMAGES, max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2])))
    for start in range(0, len(images), size):
        batch = normalise(images[start : start + size])
        yield from zip(names, (np.asarray(values) for values in watch(batch)), strict=True)
        progress(len(batch))


def _watching(graph: Graph, names: list[str]) -> Callable[[NDArray[np.float32]], list[Any]]:
    import keras

    model = build(graph)
    watched = keras.Model(model.input, [model.get_layer(name).output for name in names])

    def watch(batch: NDArray[np.float32]) -> list[Any]:
        values = watched(batch, training=False)
        return list(values) if len(names) > 1 else [values]

    return watch
