"""`sightline profile gate`: does a run keep its budget, and if not, which stage is to blame?

The budget is a TOML file: a table for each stage that has one, milliseconds at most.

    [age]
    p50 = 12.0
    p99 = 30.0

    [infer]
    "p99.9" = 9.0
    max = 40.0
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge.config import read_toml
from edge.errors import CheckFailed, InputError
from edge.frame import STAGES
from edge.profiling.report import Report, read_report
from edge.profiling.rows import Timings
from edge.profiling.stats import frames_needed, percentiles

FILE = click.Path(path_type=Path, dir_okay=False)

NAMED_FROM = 0.1
"""A stage is named from this share of the excess on; from 90 % on, `all in` it."""


@dataclass(frozen=True)
class Line:
    """One line of a budget, with what was measured.

    Attributes:
        figure: `p99`, `mean`, `max` or `jitter`; most_ms: the budget.
    """

    stage: str
    figure: str
    most_ms: float
    found_ms: float

    @property
    def over_ms(self) -> float:
        """Above 0: the budget is broken."""
        return self.found_ms - self.most_ms


def check(report: Report, budget: Mapping[str, Any], name: str = "the budget") -> list[Line]:
    """Every line of the budget.

    Raises:
        InputError: a stage or a figure that there is not, a value that is no number above 0, or a run
            too short for the percentile.
    """
    stages = (*STAGES, "age")
    lines = []
    for stage, figures in budget.items():
        if stage not in report.stages_ms:
            raise InputError(f"{name} has a budget for '{stage}', which is no stage. {_near(stage, stages)}")
        if not isinstance(figures, Mapping):
            raise InputError(
                f"{name}: '{stage}' is no table. Expected [{stage}] with lines such as p99 = 30.0."
            )
        for figure, most_ms in figures.items():
            if isinstance(most_ms, Mapping):  # TOML takes the point of a bare p99.9 for that of a table
                raise InputError(
                    f'{name}: {stage} {figure} is a table. Write quotes where a point is: "p99.9".'
                )
            number = isinstance(most_ms, int | float) and not isinstance(most_ms, bool)
            if not number or not 0 < most_ms < math.inf:
                raise InputError(f"{name}: {stage} {figure} is {most_ms!r}. Expected milliseconds, above 0.")
            lines.append(Line(stage, figure, float(most_ms), _figure(report, stage, figure, name)))
    if not lines:
        raise InputError(
            f"{name} has no line. Expected a table for each stage, such as [age] with p99 = 30.0."
        )
    return lines


def _figure(report: Report, stage: str, figure: str, name: str) -> float:
    """Of the report, or of its rows for a percentile that was not asked for then."""
    figures = report.stages_ms[stage]
    percent = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", figure)
    known = figures.get(figure)
    if known is not None:
        return known
    if percent is None or not 0 < float(percent[1]) < 100:
        hint = _near(figure, tuple(figures))
        raise InputError(f"{name} has '{figure}' for {stage}, which is no figure of the run. {hint}")
    needed = frames_needed(float(percent[1]))
    if report.n < needed:
        raise InputError(
            f"{stage} {figure} needs {needed} frames, and the run has {report.n}: not even the largest value "
            f"is surely above it. Profile with --percentiles {percent[1]}, which takes as many as needed."
        )
    values = Timings.of_report(report.rows, "The run").stages_ms
    row = [*STAGES, "age"].index(stage)
    return float(percentiles(values[row], [float(percent[1])])[0])


def _near(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name, known, n=2, cutoff=0.4)
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}There are {', '.join(known)}."


def blame(report: Report, line: Line, lines: list[Line]) -> str:
    """`all in preprocess`, or `71 % in infer, 24 % in wait`; empty for a line that names its stage.

    Where stages have budgets of their own for the figure, by what they are over. Else by the frames:
    what those over the budget took more, on average, than those within it.
    """
    if line.stage != "age":
        return ""
    over = {
        other.stage: other.over_ms
        for other in lines
        if other.figure == line.figure and other.stage != "age" and other.over_ms > 0
    }
    excess = over or _excess_ms(report, line.most_ms)
    total = sum(excess.values())
    shares = sorted(((value / total, stage) for stage, value in excess.items()), reverse=True)
    if shares and shares[0][0] >= 1 - NAMED_FROM:
        return f"all in {shares[0][1]}"
    return ", ".join(
        f"{share:.0%} in {stage}".replace("%", " %") for share, stage in shares if share >= NAMED_FROM
    )


def _excess_ms(report: Report, most_ms: float) -> dict[str, float]:
    """By stage, what frames over the budget took more than the others; of no other, what they took."""
    if not report.rows:
        return {}
    values = Timings.of_report(report.rows, "The run").stages_ms
    over = values[-1] > most_ms
    if not over.any():
        return {}
    within = values[:-1, ~over].mean(axis=1) if not over.all() else np.zeros(len(STAGES))
    excess = values[:-1, over].mean(axis=1) - within
    return {stage: float(value) for stage, value in zip(STAGES, excess, strict=True) if value > 0}


@click.command()
@click.argument("run", type=FILE)
@click.option(
    "--budget", type=FILE, required=True, help="TOML: a table for each stage, such as [age] p99 = 30.0."
)
def gate(run: Path, budget: Path) -> None:
    """Hold RUN, a file of `profile --json`, against a budget; ends with 1 when it is broken."""
    report = read_report(run)
    lines = check(report, read_toml(budget)[0], str(budget))
    broken = [line for line in lines if line.over_ms > 0]
    if broken:
        raise CheckFailed("The budget is broken.\n  " + "\n  ".join(_in_words(report, broken, lines)))
    click.echo(f"Within the budget: {', '.join(_kept(line) for line in lines)}.")


def _in_words(report: Report, broken: list[Line], lines: list[Line]) -> Iterator[str]:
    for line in broken:
        guilty = blame(report, line, lines)
        what = f"{line.stage} {line.figure} {line.over_ms:+.3g} ms" + (f", {guilty}" if guilty else "")
        yield f"{what} ({line.found_ms:.3f}, budget {line.most_ms:g}{_interval(report, line)})"


def _interval(report: Report, line: Line) -> str:
    found = report.ci95_ms.get(line.stage, {}).get(line.figure)
    return f", 95 % interval {found[0]:.3f} to {found[1]:.3f}" if found else ""


def _kept(line: Line) -> str:
    return f"{line.stage} {line.figure} {line.found_ms:.3f} of {line.most_ms:g} ms"
