"""A profile on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edge.profiler import stage_table, streaming_table
from edge.profiling.measure import Profiled, Wanted

if TYPE_CHECKING:
    from rich.table import Table

BEHIND = 0.98
"""An open loop that reaches less than this part of its rate cannot keep up."""


def print_table(table: Table) -> None:
    """One table."""
    from edge.console import open_console

    open_console(140).print(table)


def print_profile(found: Profiled, wanted: Wanted) -> None:
    """The stages, what streaming costs, and what one must know to believe it."""
    from edge.console import open_console

    console, timings = open_console(), found.run.timings
    models = timings.model_spreads(wanted.percents)
    console.print(stage_table(timings.spreads(wanted.percents), timings.n, models))
    if found.cost:
        console.print(streaming_table(found.cost))
    for line in _remarks(found, wanted):
        console.print(line, highlight=False, soft_wrap=True)


def _remarks(found: Profiled, wanted: Wanted) -> Iterator[str]:
    report = found.report
    ages = [(name, bounds) for name, bounds in report["ci95_ms"]["age"].items() if bounds]
    if ages:
        yield "Age, 95 % intervals: " + ", ".join(
            f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in ages
        )
    yield from _on_warm_up(report["warm_up"])
    if "open_loop" in report:
        yield _on_rate(**report["open_loop"])
    if "memory_mb" in report:
        yield "Resident memory: {peak:.0f} MB at most, {steady:.0f} MB at the end.".format(
            **report["memory_mb"]
        )
    conditions = report.get("conditions") or {}
    yield from (f"Throttled: {reason}." for reason in conditions.get("throttled", ()))


def _on_warm_up(warm_up: Mapping[str, int | bool | None]) -> Iterator[str]:
    if warm_up["frames"]:
        yield f"Warm-up: {warm_up['frames']} frames, which are in the JSON and not in the figures."
    if warm_up["settled"] is None:
        yield "Too few frames to tell a warm-up from the steady state."
    elif not warm_up["settled"]:
        yield "No steady state: the level changed in the second half of the run too. Look at the load and the heat."


def _on_rate(offered_fps: float, achieved_fps: float) -> str:
    behind = achieved_fps < BEHIND * offered_fps
    words = "it cannot keep up, so the age grows with the length of the run" if behind else "it keeps up"
    return f"Due {offered_fps:g} frames a second, done {achieved_fps:.1f}: {words}."


def print_cold_start(steps: Mapping[str, float]) -> None:
    """A line for each step."""
    from rich.table import Table

    table = Table(title="Cold start, ms (median of fresh processes)", title_justify="left")
    table.add_column("step")
    table.add_column("ms", justify="right")
    for step, value in steps.items():
        table.add_row(step.replace("_", " "), f"{value:.1f}")
    print_table(table)
