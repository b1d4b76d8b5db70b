"""How often `profile compare` is right: equal runs and a real slowdown, 100 times each.

    python bench/profiler_verdicts.py [--repetitions 100] [--frames 2000] [--slowdown 0.05] [--recorded RUN.json]

Series are synthetic (fixed seeds): each stage an AR(1) process of its logarithm, correlated with its
neighbours in time, plus bursts of slow frames, and for runs in turn a mood of the machine that both
meet in a round. With --recorded they are resampled, in blocks of 100 frames, from the rows of a real
profile. Goals: the verdict on equal runs is "cannot tell" 95 times in 100 or more; the slowdown is found 90
times in 100 or more. How often any cell of the table told equal runs apart is printed as well.
Ends with 1 when a goal is missed; on a recorded run that depends on how even it is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from edge.frame import STAGES
from edge.profiling.compare import Comparison, compare_timings
from edge.profiling.report import read_report
from edge.profiling.rows import Timings

MEAN_MS = {"decode": 3.0, "wait": 0.2, "preprocess": 1.0, "infer": 6.0, "postprocess": 0.1, "publish": 0.02}
SPREAD, ALIKE = 0.08, 0.6
"""Of each stage: the standard deviation of its logarithm, and the correlation of neighbours."""

SPIKES, BURST, SPIKE_MS = 0.01, 3, 20.0
"""Slow frames: their share, how many in a row on average, and what they take more on average."""

MOOD, ROUNDS, BLOCK = 0.05, 10, 100

Pair = Callable[[np.random.Generator, float], tuple[Timings, Timings]]


def timings_of(stages_ms: np.ndarray, rounds: np.ndarray | None = None) -> Timings:
    """(stages, n) milliseconds as the rows of a run, all of them steady."""
    n = stages_ms.shape[1]
    columns = dict(zip(STAGES, (stages_ms * 1e6).astype(np.int64), strict=True))
    rounds = np.zeros(n, np.int64) if rounds is None else rounds
    return Timings(
        {"index": np.arange(n), "round": rounds, "steady": np.ones(n, np.int64), "at": np.arange(n)} | columns
    )


def series(random: np.random.Generator, n: int, factor: float = 1.0, alike: float = ALIKE) -> np.ndarray:
    """(stages, n) milliseconds of one synthetic run; `infer` takes what makes the mean age `factor` as long."""
    noise = random.normal(0, SPREAD * np.sqrt(1 - alike**2), (len(STAGES), n))
    noise[:, 0] = random.normal(0, SPREAD, len(STAGES))
    for at in range(1, n):
        noise[:, at] += alike * noise[:, at - 1]
    means = np.array([MEAN_MS[stage] for stage in STAGES])
    means[STAGES.index("infer")] += (factor - 1) * means.sum()
    found = means[:, None] * np.exp(noise)
    for at in np.flatnonzero(random.random(n) < SPIKES / BURST):
        end = at + random.geometric(1 / BURST)
        found[random.integers(len(STAGES)), at:end] += random.exponential(SPIKE_MS)
    return found


def alone(frames: int) -> Pair:
    """One run of each, one after the other."""
    return lambda random, factor: (
        timings_of(series(random, frames)),
        timings_of(series(random, frames, factor)),
    )


def in_turn(frames: int) -> Pair:
    """Runs in turn: a mood for each round, the same for both."""

    def pair(random: np.random.Generator, factor: float) -> tuple[Timings, Timings]:
        rounds = np.arange(frames) * ROUNDS // frames
        mood = np.exp(random.normal(0, MOOD, ROUNDS))[rounds]
        a, b = (series(random, frames, f) * mood for f in (1.0, factor))
        return timings_of(a, rounds), timings_of(b, rounds)

    return pair


def recorded(path: Path, frames: int) -> Pair:
    """Blocks of a real run's frames, drawn anew for each."""
    real = Timings.of_report(read_report(path).rows, str(path)).stages_ms[:-1]
    if real.shape[1] < 2 * BLOCK:
        raise click.BadParameter(f"{path} has {real.shape[1]} steady frames; expected {2 * BLOCK} or more")

    def draw(random: np.random.Generator, factor: float) -> Timings:
        starts = random.integers(0, real.shape[1] - BLOCK, -(-frames // BLOCK))
        return timings_of(factor * real[:, (starts[:, None] + np.arange(BLOCK)).ravel()[:frames]])

    return lambda random, factor: (draw(random, 1.0), draw(random, factor))


def verdicts(pair: Pair, factor: float, repetitions: int, seed: int = 0) -> tuple[Counter[str], int]:
    """How often each verdict came, and how often any cell of the table told the two apart."""
    found = [compare_timings(*pair(np.random.default_rng((seed, i)), factor)) for i in range(repetitions)]
    return Counter(one.verdict for one in found), sum(map(_any_cell, found))


def _any_cell(found: Comparison) -> bool:
    return any(cell.verdict != "cannot tell" for cell in found.cells)


@click.command()
@click.option("--repetitions", default=100, show_default=True)
@click.option("--frames", default=2000, show_default=True)
@click.option("--slowdown", default=0.05, show_default=True)
@click.option(
    "--recorded", "path", type=click.Path(path_type=Path, exists=True), help="A file of profile --json."
)
def main(repetitions: int, frames: int, slowdown: float, path: Path | None) -> None:
    """Count the verdicts, and hold them against the goals."""
    pairs = {"one run of each": alone(frames), f"{ROUNDS} rounds in turn": in_turn(frames)}
    if path:
        pairs["recorded, one run of each"] = recorded(path, frames)
    missed = False
    for name, pair in pairs.items():
        equal, cells = verdicts(pair, 1.0, repetitions)
        slower, _ = verdicts(pair, 1 + slowdown, repetitions, seed=1)
        missed |= equal["cannot tell"] < 0.95 * repetitions or slower["slower"] < 0.9 * repetitions
        click.echo(
            f"{name}: equal runs 'cannot tell' {equal['cannot tell']} of {repetitions} (any cell told them "
            f"apart {cells} times); {slowdown:.0%} slower found {slower['slower']} of {repetitions}"
        )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
