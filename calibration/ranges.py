"""From a tensor's histogram to its range: the four methods.

minmax        every value seen
percentile:P  without the largest and the smallest 100 - P per cent
mse           the least squared error of rounding, of TFLite's and TensorRT's grids together
entropy       the least Kullback-Leibler divergence of the rounded from the real distribution
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import HALF, Histogram
from calibration.quantize import TensorParams, asymmetric, symmetric
from edge.errors import InputError

Range = tuple[float, float]
Method = Callable[[Histogram], Range]

SHARES = np.linspace(1.0, 0.1, 91)
"""Of the extremes, that the search for the least squared error tries."""

LEVELS = 128
"""Magnitudes that a symmetric int8 tells apart."""


def min_max(histogram: Histogram) -> Range:
    """The exact extremes."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, percent: float) -> Range:
    """The range that holds `percent` of the values of each side's tail.

    A value of 99.99 leaves out the largest 0.01 % and the smallest 0.01 % of all activations.
    """
    share = np.cumsum(histogram.counts) / histogram.total
    first = int(np.searchsorted(share, 1 - percent / 100 + 1e-12))
    last = int(np.searchsorted(share, percent / 100 - 1e-12)) + 1
    low, high = histogram.edge(first), histogram.edge(last)
    return max(low, histogram.low), min(high, histogram.high)


def mean_squared_error(histogram: Histogram) -> Range:
    """The range with the least sum of both grids' squared errors, as one pair of limits serves both targets.

    First both limits shrink together, then each by itself.
    """
    values, weights = _occupied(histogram)
    low, high = histogram.low, histogram.high

    def best(candidates: list[Range]) -> Range:
        errors = [_squared_error(values, weights, candidate) for candidate in candidates]
        return candidates[int(np.argmin(errors))]

    low, high = best([(low * share, high * share) for share in SHARES])
    low, high = best([(low, high * share) for share in SHARES])
    return best([(low * share, high) for share in SHARES])


def entropy(histogram: Histogram) -> Range:
    """The magnitude at which cutting off costs the least information, for both limits.

    Source: Migacz 2017, "8-bit Inference with TensorRT", GTC; zeros do not vote there either.
    """
    both_sides = histogram.counts[HALF:] + histogram.counts[:HALF][::-1]
    used = int(np.flatnonzero(both_sides)[-1]) + 1
    magnitudes = both_sides[:used].astype(np.float64)
    magnitudes[0] = magnitudes[1] if used > 1 else magnitudes[0]
    if used <= LEVELS:
        return min_max(histogram)
    sizes = np.unique(np.linspace(LEVELS, used, 256).astype(int))
    divergences = [_divergence(magnitudes, int(size)) for size in sizes]
    largest = float(sizes[int(np.argmin(divergences))]) * histogram.width
    return max(histogram.low, -largest), min(histogram.high, largest)


METHODS: dict[str, Callable[..., Range]] = {
    "minmax": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
    "entropy": entropy,
}
"""By name; `percentile` takes an argument, as in `percentile:99.99`."""

CHOICES = "'minmax', 'percentile:P' (as 99.99), 'mse' and 'entropy'"


def range_method(text: str) -> Method:
    """The method of a name.

    Raises:
        InputError: there is none, or its argument is missing or out of bounds.
    """
    name, colon, argument = text.partition(":")
    if name not in METHODS or bool(colon) != (name == "percentile"):
        raise InputError(f"Unknown range method '{text}'; there are {CHOICES}.")
    return partial(percentile, percent=_percent(argument)) if colon else METHODS[name]


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = 0.0
    if not 50 < percent <= 100:
        raise InputError(f"A percentile lies above 50 and up to 100, as percentile:99.99; got '{text}'.")
    return percent


def _occupied(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    occupied = histogram.counts > 0
    return histogram.centres[occupied], histogram.counts[occupied]


def _squared_error(values: NDArray[np.float64], weights: NDArray[np.int64], limits: Range) -> float:
    return sum(_grid_error(values, weights, grid(*limits)) for grid in (asymmetric, symmetric))


def _grid_error(values: NDArray[np.float64], weights: NDArray[np.int64], grid: TensorParams) -> float:
    low, high = grid.limits
    rounded = np.clip(np.rint(values / grid.scale) * grid.scale, low, high)
    return float(np.dot(weights, (values - rounded) ** 2))


def _divergence(magnitudes: NDArray[np.float64], size: int) -> float:
    """Kullback-Leibler divergence of the distribution cut at `size` bins from the same in 128 levels."""
    kept = magnitudes[:size]
    if not kept.any():
        return math.inf
    reference = kept.copy()
    reference[-1] += magnitudes[size:].sum()
    occupied: NDArray[Any] = kept > 0
    starts = np.linspace(0, size, LEVELS, endpoint=False).astype(int)
    spans = np.diff([*starts, size])
    sums, filled = np.add.reduceat(kept, starts), np.add.reduceat(occupied.astype(np.float64), starts)
    means = np.repeat(sums / np.maximum(filled, 1), spans) * occupied
    p, q = reference / reference.sum(), means / means.sum()
    # A level that is empty in q but not in p, the last one when all its values were cut off, costs dearly.
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))
