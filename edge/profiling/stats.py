"""What a sample of latencies can tell: percentiles, their intervals, and differences of two runs.

Frames are neighbours in time, not independent draws: a busy moment slows several. Everything here
resamples blocks of neighbours (the moving-block bootstrap: Kunsch, Annals of Statistics 17, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95

Values = NDArray[np.float64]
Indices = NDArray[np.intp]
Draw = Callable[[np.random.Generator], Indices]
PairDraw = Callable[[np.random.Generator], tuple[Indices, Indices]]


def percent_name(percent: float) -> str:
    """`p50`, `p99.9`."""
    return f"p{percent:g}"


def rank(percent: float, n: int) -> int:
    """The nearest rank, from 1: the smallest value that at least `percent` % of n are not above."""
    # Rounded, since 99.9 / 100 * 1000 is a little more than 999 in binary.
    return max(1, math.ceil(round(percent * n / 100, 9)))


def frames_needed(percent: float, confidence: float = CONFIDENCE) -> int:
    """How many values a percentile needs: 5 for p50, 29 for p90, 299 for p99, 2995 for p99.9.

    With fewer, not even the largest value is an upper bound of it at this confidence: it is one with
    probability 1 - p^n (Wilks, Annals of Mathematical Statistics 12, 1941).
    """
    return math.ceil(math.log(1 - confidence) / math.log(percent / 100))


def percentiles(values: Values, percents: Sequence[float]) -> Values:
    """By nearest rank, so each is a value that occurred, along the last axis: (..., len(percents))."""
    ranks = [rank(percent, values.shape[-1]) - 1 for percent in percents]
    return np.partition(values, ranks, axis=-1)[..., ranks]


def block_length(values: Values) -> int:
    """How many neighbours are drawn together: the larger of sqrt(n) and Carlstein's rule, at most n/10.

    Carlstein (Annals of Statistics 14, 1986) has (sqrt(6) r / (1 - r^2))^(2/3) n^(1/3) for an AR(1)
    series of autocorrelation r, here that of the ranks, which a few spikes do not hide. The root
    is there for what one coefficient does not describe: slow drifts of the machine.
    """
    n = len(values)
    r = min(max(_rank_autocorrelation(values), 0.0), 0.99)
    rule = (math.sqrt(6) * r / (1 - r * r)) ** (2 / 3) * n ** (1 / 3)
    wanted: int = math.ceil(max(rule, math.sqrt(n)))
    return max(1, min(wanted, n // 10))


def _rank_autocorrelation(values: Values) -> float:
    """Of neighbours, -1 to 1; 0.0 where nothing varies. Equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(values) < 3 or len(counts) == 1:
        return 0.0
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ranks -= ranks.mean()
    return float((ranks[1:] * ranks[:-1]).sum() / (ranks * ranks).sum())


def block_draw(n: int, length: int) -> Draw:
    """Draws (n,) indices: whole blocks of neighbours, from anywhere, the last one cut."""
    offsets = np.arange(length)
    blocks = -(-n // length)

    def draw(random: np.random.Generator) -> Indices:
        starts = random.integers(0, n - length + 1, blocks)
        return (starts[:, None] + offsets).ravel()[:n]

    return draw


def resamples(n: int) -> int:
    """How often to resample: 1,000 times, less for long runs, whose estimates vary less anyway."""
    return int(min(1000, max(200, 4_000_000 // n)))


def intervals(columns: Values, percents: Sequence[float], seed: int = 0) -> Values:
    """95 % intervals of percentiles: (columns, n) values to (columns, len(percents), 2) low and high.

    All columns are drawn together, in blocks of a length that the last one, the age, decides. Of k
    blocks the bootstrap finds (k - 1) / k of the variance, itself with k - 1 degrees of freedom: the
    bounds are moved apart by both (measured on AR(1) series of 2,000 with r = 0.8: 94 % instead of 91).
    """
    random = np.random.default_rng(seed)
    n, length = columns.shape[1], block_length(columns[-1])
    draw = block_draw(n, length)
    drawn = (columns[:, draw(random)] for _ in range(resamples(n)))
    found = np.stack([percentiles(values, percents) for values in drawn])
    tail = (1 - CONFIDENCE) / 2
    bounds = np.percentile(found, [100 * tail, 100 * (1 - tail)], axis=0)
    value = percentiles(columns, percents)
    freedom = max(n // length - 1, 1)
    wider = _wider(freedom) * student(1 - tail, freedom) / student(1 - tail)
    return np.moveaxis(np.maximum(value + (bounds - value) * wider, 0.0), 0, -1)


def _wider(freedom: int) -> float:
    """For the variance that a bootstrap of freedom + 1 clusters or blocks does not find."""
    return math.sqrt((freedom + 1) / freedom)


@dataclass(frozen=True)
class Differences:
    """B minus A, by column and percentile.

    Attributes:
        value: (columns, percentiles); margin: the interval is value +- margin, wide enough that all
            of them together hold the truth in 95 of 100 comparisons (Bonferroni).
    """

    value: Values
    margin: Values


def differences(
    a: Values,
    b: Values,
    percents: Sequence[float],
    rounds: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    seed: int = 0,
) -> Differences:
    """How far B's percentiles are from A's.

    Args:
        a, b: (columns, n) and (columns, m) values, the age last.
        rounds: of interleaved runs, the number of each value's round, (n,) and (m,). Rounds are then
            drawn as pairs, so that what slowed both does not count.
    """
    value = percentiles(b, percents) - percentiles(a, percents)
    paired = rounds is not None and len(np.unique(rounds[0])) > 1
    draws, freedom = _paired_draws(*rounds) if rounds is not None and paired else _separate_draws(a, b)
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples(a.shape[1] + b.shape[1])):
        in_a, in_b = draws(random)
        found.append(percentiles(b[:, in_b], percents) - percentiles(a[:, in_a], percents))
    error = np.std(found, axis=0, ddof=1) * _wider(freedom)
    tail = (1 - CONFIDENCE) / 2 / value.size
    return Differences(value, student(1 - tail, freedom) * error)


def _separate_draws(a: Values, b: Values) -> tuple[PairDraw, int]:
    """Blocks of each run by itself; the degrees of freedom are those of the blocks of the shorter."""
    lengths = block_length(a[-1]), block_length(b[-1])
    draw_a, draw_b = block_draw(a.shape[1], lengths[0]), block_draw(b.shape[1], lengths[1])
    freedom = min(a.shape[1] // lengths[0], b.shape[1] // lengths[1]) - 1
    return lambda random: (draw_a(random), draw_b(random)), max(freedom, 1)


def _paired_draws(rounds_a: NDArray[np.int64], rounds_b: NDArray[np.int64]) -> tuple[PairDraw, int]:
    """Whole rounds, the same of both (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8)."""
    names = np.intersect1d(rounds_a, rounds_b)
    of_a = [np.flatnonzero(rounds_a == name) for name in names]
    of_b = [np.flatnonzero(rounds_b == name) for name in names]

    def draw(random: np.random.Generator) -> tuple[Indices, Indices]:
        chosen = random.integers(0, len(names), len(names)).tolist()
        return np.concatenate([of_a[i] for i in chosen]), np.concatenate([of_b[i] for i in chosen])

    return draw, len(names) - 1


def student(probability: float, freedom: int = 10**9) -> float:
    """A quantile of Student's t, by default that of the normal distribution.

    By Abramowitz and Stegun's 26.7.5; within 1 % from 8 degrees of freedom on.
    """
    z, v = NormalDist().inv_cdf(probability), freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / v**power for power, term in enumerate(terms, 1))
