"""Whether two runs were made under conditions so alike that their figures may be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

CLOCK_TOLERANCE = 0.05
"""Relative difference of clocks up to which two runs are compared."""

LOAD_TOLERANCE = 0.10
"""Difference in the share of the machine that other processes take, up to which runs are compared."""

Json = Mapping[str, Any]


def comparable(a: Json, b: Json, clock_tolerance: float = CLOCK_TOLERANCE) -> list[str]:
    """Why two runs must not be compared; empty when they may.

    Args:
        a, b: `Conditions.as_json()` of each.
        clock_tolerance: relative difference of clocks that is let pass.
    """
    if not a or not b:
        return ["Conditions are known of only one of the runs." if a or b else "Neither run has conditions."]
    rules: tuple[Callable[[Json, Json], Iterator[str]], ...] = (
        _other_machine,
        _other_settings,
        _throttled,
        lambda a, b: _other_clocks(a, b, clock_tolerance),
        _other_load,
        _other_versions,
    )
    return [reason for rule in rules for reason in rule(a, b)]


def _other_machine(a: Json, b: Json) -> Iterator[str]:
    for what in ("cpu", "architecture", "cores", "os"):
        yield from _differs(what, _at(a, "machine", what), _at(b, "machine", what))
    for what in ("model", "l4t", "jetpack"):
        found = _at(a, "machine", "jetson", what), _at(b, "machine", "jetson", what)
        yield from _differs({"model": "board", "l4t": "L4T", "jetpack": "JetPack"}[what], *found)


def _other_settings(a: Json, b: Json) -> Iterator[str]:
    yield from _differs("power mode", a.get("power_mode"), b.get("power_mode"))
    yield from _each_differs("governor of", _part(a, "governors"), _part(b, "governors"))


def _throttled(a: Json, b: Json) -> Iterator[str]:
    for name, run in (("A", a), ("B", b)):
        if reasons := run.get("throttled"):
            listed = reasons if isinstance(reasons, list) else [reasons]
            yield f"{name} was throttled: {', '.join(map(str, listed))}."


def _other_clocks(a: Json, b: Json, tolerance: float) -> Iterator[str]:
    """The means of the cores, of the GPU and of the memory; a single core's comes and goes with the tasks."""
    for kind, limits in (("cpu", False), ("gpu", False), ("emc", False), ("cpu", True), ("gpu", True)):
        clocks = _mean_mhz(a, kind, limits), _mean_mhz(b, kind, limits)
        if None in clocks:
            continue
        low, high = sorted(mhz for mhz in clocks if mhz is not None)
        if high > low * (1 + tolerance):
            what = f"highest {kind} clock allowed" if limits else f"mean {kind} clock"
            yield f"The {what} is {clocks[0]:.0f} MHz in A and {clocks[1]:.0f} MHz in B."


def _mean_mhz(run: Json, kind: str, limits: bool) -> float | None:
    domains = _part(run, "clock_limits_mhz" if limits else "clocks_mhz")
    values = [
        value[-1] if isinstance(value, Sequence) else _at({"of": value}, "of", "mean")
        for name, value in domains.items()
        if str(name).startswith(kind) and value
    ]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return fmean(numbers) if numbers else None


def _other_load(a: Json, b: Json) -> Iterator[str]:
    for what, words in (("others", "other processes took"), ("stolen", "the host took")):
        shares = _at(a, "load", what), _at(b, "load", what)
        if (
            all(isinstance(share, int | float) for share in shares)
            and abs(shares[0] - shares[1]) > LOAD_TOLERANCE
        ):
            yield f"Load: {words} {shares[0]:.0%} of the machine in A and {shares[1]:.0%} in B."


def _other_versions(a: Json, b: Json) -> Iterator[str]:
    versions = ({k: v for k, v in _part(run, "versions").items() if k != "sightline"} for run in (a, b))
    yield from _each_differs("version of", *versions)


def _each_differs(what: str, a: Json, b: Json) -> Iterator[str]:
    for name in sorted({*a, *b}):
        yield from _differs(f"{what} {name}", a.get(name), b.get(name))


def _differs(what: str, a: object, b: object) -> Iterator[str]:
    """A value known of one run alone is a difference too: nobody can say that it is the same."""
    if (a or None) != (b or None):
        yield f"The {what} is {a or 'not known'} in A and {b or 'not known'} in B."


def _part(run: Json, name: str) -> Json:
    part = run.get(name)
    return part if isinstance(part, Mapping) else {}


def _at(run: Json, *path: str) -> Any:
    value: Any = run
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
