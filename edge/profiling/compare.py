"""`sightline profile compare`: is B faster or slower than A, or can nobody tell?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edge.errors import InputError
from edge.frame import STAGES
from edge.profiling.comparable import comparable
from edge.profiling.report import Report, read_report
from edge.profiling.rows import Timings
from edge.profiling.spread import PERCENTS
from edge.profiling.stats import Values, differences, frames_needed, percent_name, percentiles

if TYPE_CHECKING:
    from rich.table import Table

Verdict = Literal["faster", "slower", "cannot tell"]

FILE = click.Path(path_type=Path, dir_okay=False)

LEAST_FRAMES = 100
"""Of each run: ten blocks of neighbours, see `stats.block_length`; fewer say little about chance."""


@dataclass(frozen=True)
class Cell:
    """One stage at one percentile, in milliseconds.

    Attributes:
        a, b: of each run; the difference b - a lies within `margin` of what was found.
    """

    stage: str
    percent: float
    a: float
    b: float
    margin: float

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.b - self.a

    @property
    def verdict(self) -> Verdict:
        """On B."""
        if abs(self.difference) <= self.margin:
            return "cannot tell"
        return "slower" if self.difference > 0 else "faster"

    def in_words(self) -> str:
        """`age p50 +0.52 ms (+5.1 %), 95 % interval +0.31 to +0.73`."""
        part = f" ({100 * self.difference / self.a:+.1f} %)" if self.a else ""
        low, high = self.difference - self.margin, self.difference + self.margin
        name = f"{self.stage} {percent_name(self.percent)}"
        return f"{name} {self.difference:+.3f} ms{part}, 95 % interval {low:+.3f} to {high:+.3f}"


@dataclass(frozen=True)
class Comparison:
    """Of two runs.

    Attributes:
        cells: by stage, the age last, and percentile. Of equal runs some 5 in 100 have any cell
            that is not "cannot tell"; see bench/profiler_verdicts.py.
        paired: whether the runs took turns, and their rounds were compared one with the other.
    """

    cells: tuple[Cell, ...]
    paired: bool

    @property
    def decisive(self) -> Cell:
        """The age at the lowest percentile that can tell; else at the lowest."""
        ages = [cell for cell in self.cells if cell.stage == "age"]
        return next((cell for cell in ages if cell.verdict != "cannot tell"), ages[0])

    @property
    def verdict(self) -> Verdict:
        """On the age of B's frames."""
        return self.decisive.verdict


def compare_timings(
    a: Timings, b: Timings, percents: Sequence[float] | None = None, seed: int = 0
) -> Comparison:
    """Compare the steady frames of two runs.

    Args:
        percents: None takes those of `PERCENTS` for which both runs have enough frames.

    Raises:
        InputError: too few frames for any of them.
    """
    least = min(a.n, b.n)
    told = [p for p in percents or PERCENTS if frames_needed(p) <= least]
    if least < LEAST_FRAMES or not told:
        raise InputError(
            f"The shorter run has {least} steady frames: expected {LEAST_FRAMES} or more, so that "
            "chance can be told from a difference. Profile with more --frames."
        )
    rounds = a.rounds, b.rounds
    paired = len(set(rounds[0].tolist()) & set(rounds[1].tolist())) > 1
    of_a, of_b = a.stages_ms, b.stages_ms
    found = differences(of_a, of_b, told, rounds if paired else None, seed)
    return Comparison(tuple(_cells(of_a, of_b, found.margin, told)), paired)


def _cells(a: Values, b: Values, margin: Values, percents: Sequence[float]) -> Iterator[Cell]:
    values = percentiles(a, percents), percentiles(b, percents)
    for row, stage in enumerate((*STAGES, "age")):
        for column, percent in enumerate(percents):
            at = row, column
            yield Cell(stage, percent, float(values[0][at]), float(values[1][at]), float(margin[at]))


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--force", is_flag=True, help="Compare runs of different conditions too.")
def compare(a: Path, b: Path, force: bool) -> None:
    """Is B faster or slower than A, by stage and percentile? Both are files of `profile --json`."""
    reports = read_report(a), read_report(b)
    reasons = _not_alike(*reports)
    if reasons and not force:
        raise InputError(
            f"{a} and {b} were not measured alike, so a difference would say nothing:\n  "
            + "\n  ".join(reasons)
            + "\nMeasure both again under the same conditions, best in turn with "
            "`sightline profile A B --interleave 10`, or compare them all the same with --force."
        )
    of_a, of_b = (Timings.of_report(r.rows, str(path)) for r, path in zip(reports, (a, b), strict=True))
    print_comparison(compare_timings(of_a, of_b), reasons)


def _not_alike(a: Report, b: Report) -> list[str]:
    """Why the two must not be compared."""
    return [*_asked_differently(a, b), *comparable(a.conditions or {}, b.conditions or {})]


def _asked_differently(a: Report, b: Report) -> Iterator[str]:
    """What was measured, as far as it must be the same; models, backends and threads may differ."""
    rates = [r.open_loop.offered_fps if r.open_loop else "as fast as it goes" for r in (a, b)]
    for what, of_a, of_b in (
        ("source", a.settings.get("source"), b.settings.get("source")),
        ("capture clock", a.capture_clock, b.capture_clock),
        ("rate", *rates),
    ):
        if of_a != of_b:
            yield f"The {what} is {of_a} in A and {of_b} in B."


def print_comparison(found: Comparison, warnings: Sequence[str] = ()) -> None:
    """The table, then the verdict in one line, and what limits it."""
    from edge.console import open_console

    console = open_console(highlight=False)
    console.print(comparison_table(found))
    for warning in warnings:
        console.print(f"Not measured alike: {warning}")
    words = {"cannot tell": "Cannot tell B from A"}.get(found.verdict, f"B is {found.verdict} than A")
    console.print(f"{words}: {found.decisive.in_words()}.", soft_wrap=True)
    if not found.paired:
        console.print(
            "One run of each: what differs from run to run (memory layout, the machine's mood) is not in "
            "the intervals. `sightline profile A B --interleave 10` has it.",
        )


def comparison_table(found: Comparison) -> Table:
    """A line for each stage and percentile."""
    from rich.table import Table
    from rich.text import Text

    how = "rounds in turn, paired" if found.paired else "one run of each"
    table = Table(title=f"B against A, ms ({how})", title_justify="left")
    for name in ("stage", "", "A", "B", "B - A", "±", "verdict"):
        table.add_column(name, justify="left" if name in ("stage", "verdict") else "right")
    stage = ""
    for cell in found.cells:
        name = cell.stage if cell.stage != stage else ""
        stage = cell.stage
        figures = (f"{cell.a:.3f}", f"{cell.b:.3f}", f"{cell.difference:+.3f}", f"{cell.margin:.3f}")
        style = {"faster": "green", "slower": "red"}.get(cell.verdict, "dim")
        table.add_row(name, percent_name(cell.percent), *figures, Text(cell.verdict, style))
    return table
