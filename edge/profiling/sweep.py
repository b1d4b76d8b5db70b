"""The same run with different values of one option: threads, the rate of the input, cameras, a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.errors import InputError
from edge.profiling.measure import Wanted, stream
from edge.tables import resolve

if TYPE_CHECKING:
    from rich.table import Table

Value = int | float | str


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(f"{count} is less than 1")
    return count


KINDS: dict[str, Callable[[str], Value]] = {
    "threads": _count,
    "decode_threads": _count,
    "backend": str,
    "precision": str,
    "rate": float,
    "cameras": _count,
    "batch": _count,
}
"""The options that can be swept, with the type of their values."""

POINTS = {
    "cameras": "edge.profiling.cameras:cameras_point",
    "batch": "edge.profiling.batches:batch_point",
}
"""What is measured otherwise than by one stream of one source."""


@dataclass(frozen=True)
class SweepOption:
    """`threads=1,2`: an option and its values."""

    name: str
    values: tuple[Value, ...]

    @classmethod
    def parse(cls, text: str, rate: float | None = None) -> SweepOption:
        """Raises InputError for an option that cannot be swept, or not at a `rate`, or a value of another type."""
        name, _, values = text.partition("=")
        if name == "cameras" and rate is not None:
            raise InputError(
                f"--sweep '{text}': each camera plays at its source's own speed. Leave --rate out."
            )
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
    if option.name in POINTS:
        return {"value": value, **resolve(POINTS[option.name])(settings, value, wanted)}
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
    """A line for each value: frames a second, and the age; of a batch, what its inference took."""
    from rich.table import Table

    first = sweep["points"][0]
    stage, drops = swept_stage(first), "dropped" in first
    table = Table(title=f"Sweep of {sweep['option']}, {stage} in ms", title_justify="left")
    for name in (sweep["option"], "fps", *(["dropped"] if drops else []), *first["stages_ms"][stage]):
        table.add_column(name, justify="right")
    for point in sweep["points"]:
        dropped = [f"{point['dropped']:.0%}"] if drops else []
        cells = ("-" if value is None else f"{value:.2f}" for value in point["stages_ms"][stage].values())
        table.add_row(str(point["value"]), f"{point['fps']:.1f}", *dropped, *cells)
    return table


def swept_stage(point: Mapping[str, Any]) -> str:
    """What a sweep shows of its points."""
    return "age" if "age" in point["stages_ms"] else "infer"
