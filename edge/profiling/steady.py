"""Where a run's warm-up ends: a change-point test on its latencies, not a fixed count of frames.

After Barrett et al., Virtual Machine Warmup Blows Hot and Cold (OOPSLA 2017): segments of equal mean
are found by optimal partitioning (Jackson et al. 2005; it is PELT of Killick et al. 2012 without
the pruning, which 200 blocks do not need), and those at the begin that lie off the level of
the second half are the warm-up. Nothing after it is left out, however slow it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.profiling.stats import Values

LEAST_FRAMES = 50
"""Shorter runs are taken as they are."""

BLOCKS = 200
"""At most so many medians, each of 5 frames or more, so that a single slow frame makes no segment."""

TOLERANCE = 0.05
"""A segment is off the level when its mean differs by more than this part of it."""


@dataclass(frozen=True)
class Steady:
    """Where the steady state begins.

    Attributes:
        begin: frames of warm-up.
        settled: whether the second half keeps one level; None where the run is too short to tell.
    """

    begin: int
    settled: bool | None


def steady_state(ages: Values) -> Steady:
    """Of the latencies of all frames, (n,), in the order of time."""
    if len(ages) < LEAST_FRAMES:
        return Steady(0, None)
    length = max(5, math.ceil(len(ages) / BLOCKS))
    blocks = np.median(ages[: len(ages) // length * length].reshape(-1, length), axis=1)
    half, level = len(blocks) // 2, float(np.median(blocks[len(blocks) // 2 :]))
    segments = _segments(blocks)
    off = [abs(float(np.mean(blocks[a:b])) - level) > TOLERANCE * level for a, b in segments]
    begin = 0
    for (_, end), is_off in zip(segments, off, strict=True):
        if not is_off or end > half:
            break
        begin = end
    late = any(is_off for (_, end), is_off in zip(segments, off, strict=True) if end > half)
    return Steady(max(begin * length, _slow_first_frames(ages)), not late)


def _segments(values: Values) -> list[tuple[int, int]]:
    """Half-open intervals of equal mean, in order."""
    ends = [*change_points(values), len(values)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def change_points(values: Values) -> list[int]:
    """Where the mean changes: indices that begin a new segment, by the least sum of squares.

    The penalty of a segment is 6 s^2 log(n), twice that of Schwarz's criterion for a mean and a
    place, since neighbours are alike; s is the spread of the differences of neighbours.
    """
    n, sums, squares = len(values), _running(values), _running(values * values)
    penalty = 6 * _noise(values) ** 2 * math.log(max(n, 2))
    best, previous = np.zeros(n + 1), np.zeros(n + 1, int)
    best[0] = -penalty
    for end in range(1, n + 1):
        begins = np.arange(end)
        within = squares[end] - squares[:end] - (sums[end] - sums[:end]) ** 2 / (end - begins)
        cost = best[:end] + within + penalty
        previous[end] = int(cost.argmin())
        best[end] = cost[previous[end]]
    return _walk_back(previous)


def _walk_back(previous: NDArray[np.int_]) -> list[int]:
    found, at = [], int(previous[-1])
    while at > 0:
        found.append(at)
        at = int(previous[at])
    return found[::-1]


def _running(values: Values) -> Values:
    return np.concatenate([[0.0], np.cumsum(values)])


def _noise(values: Values) -> float:
    """Standard deviation from the differences of neighbours, robustly; a thousandth of the level at least."""
    spread = 1.4826 * float(np.median(np.abs(np.diff(values)))) / math.sqrt(2)
    return max(spread, 1e-3 * float(np.median(values)), 1e-12)


def _slow_first_frames(ages: Values) -> int:
    """The frames at the very begin beyond Tukey's far fence of the second half: the first inference."""
    low, high = np.percentile(ages[len(ages) // 2 :], [25, 75])
    fence = high + 3 * (high - low)
    within = np.flatnonzero(ages <= max(fence, high * (1 + TOLERANCE)))
    return min(int(within[0]), len(ages) // 2)
