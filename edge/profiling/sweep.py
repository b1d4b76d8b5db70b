"""The same run with different values of one option: threads, precision, the rate of the input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.errors import InputError
from edge.profiling.measure import Wanted, stream

if TYPE_CHECKING:
    from rich.table import Table

Value = int | float | str

KINDS: dict[str, Callable[[str], Value]] = {
    "threads": int,
    "decode_threads": int,
    "backend": str,
    "precision": str,
    "rate": float,
}
"""The options that can be swept, with the type of their values."""


@dataclass(frozen=True)
class SweepOption:
    """`threads=1,2`: an option and its values."""

    name: str
    values: tuple[Value, ...]

    @classmethod
    def parse(cls, text: str) -> SweepOption:
        """Raises InputError for an option that cannot be swept, or a value that is none of its type."""
        name, _, values = text.partition("=")
        if name not in KINDS:
            near = get_close_matches(name, KINDS, n=1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise InputError(
                f"--sweep '{text}': expected one of {', '.join(KINDS)}, as in threads=1,2.{meant}"
            )
        try:
            return cls(name, tuple(KINDS[name](value) for value in values.split(",")))
        except ValueError as error:
            raise InputError(f"--sweep '{text}': {error}. Expected values as in threads=1,2.") from error


def run_sweep(settings: StreamSettings, wanted: Wanted, option: SweepOption) -> dict[str, Any]:
    """For `edge.profiling.report.Sweep`: models are loaded anew for each value, in the order given."""
    return {"option": option.name, "points": [_point(settings, wanted, option, v) for v in option.values]}


def _point(settings: StreamSettings, wanted: Wanted, option: SweepOption, value: Value) -> dict[str, Any]:
    if option.name == "rate":
        wanted = replace(wanted, rate=float(value))
    else:
        changed: dict[str, Any] = {option.name: value}
        settings = settings.changed({}, **changed)
    with closing(Cascade.open(settings.chosen(), settings.score_threshold)) as models:
        run = stream(settings, models, wanted)
    spreads = run.timings.spreads(wanted.percents)
    stages = {name: spread.as_json() for name, spread in spreads.items()}
    return {"value": value, "n": run.timings.n, "fps": round(run.fps, 3), "stages_ms": stages}


def sweep_table(sweep: dict[str, Any]) -> Table:
    """A line for each value: frames a second, and the age."""
    from rich.table import Table

    table = Table(title=f"Sweep of {sweep['option']}, age in ms", title_justify="left")
    names = list(sweep["points"][0]["stages_ms"]["age"])
    for name in (sweep["option"], "fps", *names):
        table.add_column(name, justify="right")
    for point in sweep["points"]:
        age = point["stages_ms"]["age"].values()
        cells = ("-" if value is None else f"{value:.2f}" for value in age)
        table.add_row(str(point["value"]), f"{point['fps']:.1f}", *cells)
    return table
