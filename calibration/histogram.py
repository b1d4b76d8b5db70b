"""How a tensor's values are spread, in memory that does not grow with the number of images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 8192
HALF = BINS // 2


class Histogram:
    """Counts in 8,192 bins of one width around zero, beside the exact smallest and largest value.

    The width is a power of two. Where a value lies outside, it doubles as often as needed and neighbouring bins
    are added up: no count is ever moved to a bin that it does not belong to, so the order of images does not
    matter. From zero to the largest magnitude there are at least 2,048 bins.

    Attributes:
        counts: int64 (8192,); bin i holds the values in [(i - 4096) * width, (i - 4095) * width).
        width: of a bin, in real units; 0 before the first value that is not zero.
        low, high: the exact extremes.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.width = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape.

        Raises:
            ValueError: one of them is infinite or not a number.
        """
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("infinite, or not a number")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        self.counts += self._counted(values)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin, float64 (8192,), in real units."""
        middle: NDArray[np.float64] = np.asarray(np.arange(BINS) - HALF + 0.5, np.float64) * self.width
        return middle

    def edge(self, index: int) -> float:
        """The lower edge of a bin, in real units."""
        return (index - HALF) * self.width

    def _reach(self, largest: float) -> None:
        wanted = _width(largest)
        if self.width == 0.0:
            # What was counted so far was zero, and lies in the bin that begins there whatever the width.
            self.width = wanted
        while self.width < wanted:
            self.counts = _paired(self.counts)
            self.width *= 2

    def _counted(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        if self.width == 0.0:
            return np.bincount([HALF], [values.size], BINS).astype(np.int64)
        # A division by a power of two is exact.
        places = np.floor(values.ravel() * np.float32(1 / self.width)).astype(np.int32)
        return np.bincount(places + HALF, minlength=BINS).astype(np.int64)


def _width(largest: float) -> float:
    """The smallest power of two so that 4,096 bins reach beyond the value; 0 for 0.

    Not below 2**-120, whose reciprocal float32 can still hold.
    """
    return max(math.ldexp(1.0, math.frexp(largest / HALF)[1]), 2.0**-120) if largest else 0.0


def _paired(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts at twice the width: bin k of the new ones is 2k and 2k + 1 of the old, counted from zero."""
    merged: NDArray[Any] = np.zeros(BINS, np.int64)
    merged[HALF // 2 : HALF + HALF // 2] = counts.reshape(-1, 2).sum(axis=1)
    return merged
