"""Under which conditions a figure was measured, and whether two figures may be compared.

Before, during and after a run the sensors are read; the result says what held, what changed, and
which sensors vanished. `comparable` says why the figures of two runs must not be held together.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from edge.machine import Machine, package_versions, read_text, this_machine
from edge.profiling import power, thermal
from edge.profiling.comparable import comparable
from edge.profiling.snapshot import Family, Sensors, Snapshot, parse_nvpmodel_query, read_power_mode
from edge.profiling.tegrastats import Tegrastats

__all__ = ["Conditions", "Sampler", "comparable", "power_mode", "versions"]

SNAPSHOTS = 2048
"""Kept at most; past it every other one goes, and the interval doubles: a week fits like a minute."""

STEP_S = 1.0
"""A jump of the wall clock against the monotonic one that is worth a note."""

RUNTIMES = (
    "sightline",
    "numpy",
    "opencv-python-headless",
    "av",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-python",
)
"""Packages whose version is a condition; Sightline's own is what one wants to compare."""


@dataclass(frozen=True)
class Conditions:
    """What held during a run.

    Attributes:
        power_mode: of nvpmodel, `MAXN (0)`; empty on other machines.
        domains: what runs on one clock, with its governor and limits, as found at the start.
        snapshots: in time, one before the run, one after, the others during it.
        power_source: `INA3221`, `tegrastats`, both, `RAPL`, or empty where nothing can be read.
        energy: of the steady part, where it was asked for and could be measured.
        notes: for people, what was missing or happened on the way.
    """

    machine: Machine
    versions: Mapping[str, str]
    power_mode: str
    domains: tuple[thermal.Domain, ...]
    snapshots: tuple[Snapshot, ...]
    power_source: str
    counter_ranges_j: Mapping[str, float]
    energy: power.Energy | None = None
    notes: tuple[str, ...] = ()

    @property
    def throttled(self) -> tuple[str, ...]:
        """What slowed the machine down at any time of the run; empty where nothing did."""
        first = self.snapshots[0].throttling
        reasons = (reason for shot in self.snapshots for reason in thermal.throttled(first, shot.throttling))
        # Of a counter, its last word: `3 events` follows `1 events`.
        return tuple({reason.partition(":")[0]: reason for reason in reasons}.values())

    def energy_of(self, frames: int, start_s: float, end_s: float) -> power.Energy | None:
        """Energy of the frames between two monotonic times; None where no rail was read throughout."""
        joules = {name: j for name, j in self._joules(start_s, end_s) if j is not None}
        if not joules or frames < 1:
            return None
        total = power.total_of(tuple(self._rails))
        return power.Energy(self.power_source, frames, end_s - start_s, joules, total)

    def _joules(self, start_s: float, end_s: float) -> Iterator[tuple[str, float | None]]:
        for name, series in self._rails.items():
            if self.power_source == "RAPL":
                counted = power.unwrapped(series, self.counter_ranges_j[name])
                yield name, power.energy_of_counter_j(counted, start_s, end_s)
            else:
                yield name, power.energy_of_power_j(series, start_s, end_s)

    @cached_property
    def _rails(self) -> dict[str, power.Series]:
        kind = "counters_j" if self.power_source == "RAPL" else "power_w"
        return _series(self.snapshots, kind)

    def as_json(self) -> dict[str, Any]:
        """Everything in plain types; times in seconds from the start of the run."""
        first, last = self.snapshots[0], self.snapshots[-1]
        ours, others, stolen = last.jiffies.shares_since(first.jiffies)
        return {
            "machine": asdict(self.machine),
            "versions": dict(self.versions),
            "power_mode": self.power_mode,
            "governors": {d.now.name: d.governor for d in self.domains if d.governor},
            "clock_limits_mhz": {d.now.name: [d.min_mhz, d.max_mhz] for d in self.domains if d.max_mhz},
            "clocks_mhz": _by_sensor(self.snapshots, "clocks_mhz"),
            "temperatures_c": _by_sensor(self.snapshots, "temperatures_c"),
            "throttled": list(self.throttled),
            "power_source": self.power_source,
            "energy": self.energy.as_json() if self.energy else None,
            "load": {
                "average_before": list(first.loadavg),
                "average_after": list(last.loadavg),
                "ours": round(ours, 4),
                "others": round(others, 4),
                "stolen": round(stolen, 4),
            },
            "memory_mib": {
                "available_before": first.available_mib,
                "available_least": min(shot.available_mib for shot in self.snapshots),
                "swapped_before": first.swap_mib,
                "swapped_most": max(shot.swap_mib for shot in self.snapshots),
            },
            "seconds": round(last.t_s - first.t_s, 3),
            "timeline": list(_timeline(self.snapshots, self._rails)),
            "notes": list(self.notes),
        }


def _series(snapshots: Iterable[Snapshot], kind: str) -> dict[str, power.Series]:
    """By sensor, its values over time; gaps where it did not answer."""
    series: dict[str, list[tuple[float, float]]] = {}
    for shot in snapshots:
        for name, value in getattr(shot, kind).items():
            series.setdefault(name, []).append((shot.t_s, value))
    return dict(series)


def _by_sensor(snapshots: Sequence[Snapshot], kind: str) -> dict[str, dict[str, float | None]]:
    first, last = getattr(snapshots[0], kind), getattr(snapshots[-1], kind)
    return {
        name: {
            "before": first.get(name),
            "least": min(values := [value for _, value in series]),
            "mean": round(fmean(values), 2),
            "most": max(values),
            "after": last.get(name),
        }
        for name, series in _series(snapshots, kind).items()
    }


def _timeline(snapshots: Sequence[Snapshot], rails: Mapping[str, power.Series]) -> Iterator[dict[str, Any]]:
    total = power.total_of(tuple(rails))
    for before, shot in zip((snapshots[0], *snapshots), snapshots, strict=False):
        ours, others, stolen = shot.jiffies.shares_since(before.jiffies)
        watts = [shot.power_w[name] for name in total if name in shot.power_w]
        yield {
            "t_s": round(shot.t_s - snapshots[0].t_s, 3),
            "hottest_c": max(shot.temperatures_c.values(), default=None),
            "clocks_mhz": shot.clocks_mhz,
            "power_w": round(sum(watts), 4) if watts and len(watts) == len(total) else None,
            "ours": round(ours, 4),
            "others": round(others, 4),
            "stolen": round(stolen, 4),
        }


class Sampler:
    """Reads the sensors before, during and after what stands in `with`, in a thread of its own.

        with Sampler() as sampler:
            run()
        conditions = sampler.result()

    Args:
        interval_s: between readings; for energy 0.1 s or less is better, a rail's value is of a moment.
        root: where /sys and /proc are; another one in tests.
        tegrastats: the command that shows what sysfs hides; None to do without.
    """

    def __init__(
        self,
        interval_s: float = 1.0,
        root: Path = Path("/"),
        tegrastats: Sequence[str] | None = ("tegrastats",),
    ) -> None:
        self._interval_s, self._root = interval_s, root
        self._tegra = Tegrastats(tegrastats, round(interval_s * 1e3)) if tegrastats else None
        self._snapshots: list[Snapshot] = []
        self._stop = threading.Event()
        self._failures: list[str] = []

    def __enter__(self) -> Sampler:
        self._machine = this_machine(self._root)
        self._sensors, self._family = Sensors.find(self._root), Family(self._root)
        if self._tegra and self._machine.jetson:
            self._tegra.start()
        self._take()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._take()
        if self._tegra:
            self._tegra.stop()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._take()
            if len(self._snapshots) > SNAPSHOTS:
                del self._snapshots[1::2]
                self._interval_s *= 2

    def _take(self) -> None:
        stats = self._tegra.latest if self._tegra else None
        try:
            self._snapshots.append(self._sensors.read(self._family, stats))
        # The measurement of a run must not end with a sensor, whatever its driver thinks of.
        except Exception as error:
            self._failures.append(f"a reading failed: {error}")

    def result(self, frames: int = 0, steady_s: tuple[float, float] | None = None) -> Conditions:
        """What held so far.

        Args:
            frames: how many frames fell into the steady part; 0 for no energy.
            steady_s: its first and last moment, monotonic seconds.
        """
        shots = tuple(self._snapshots) or (Snapshot(0.0, 0.0),)
        source = self._power_source(shots)
        conditions = Conditions(
            machine=self._machine,
            versions=versions(self._root),
            power_mode=power_mode(self._root, self._machine),
            domains=self._sensors.domains,
            snapshots=shots,
            power_source=source,
            counter_ranges_j={counter.name: counter.range_j for counter in self._sensors.counters},
            notes=(*_notes(shots, self._sensors, source), *dict.fromkeys(self._failures)),
        )
        energy = conditions.energy_of(frames, *steady_s) if steady_s else None
        return replace(conditions, energy=energy)

    def _power_source(self, shots: Sequence[Snapshot]) -> str:
        names = {name for shot in shots for name in shot.power_w}
        if not names:
            return "RAPL" if any(shot.counters_j for shot in shots) else ""
        chips = {rail.name for rail in self._sensors.rails}
        return " and ".join(["INA3221"] * bool(names & chips) + ["tegrastats"] * bool(names - chips))


def power_mode(root: Path, machine: Machine) -> str:
    """From nvpmodel's files, or on a Jetson that hides them from nvpmodel itself."""
    if mode := read_power_mode(root):
        return mode
    if machine.jetson and root == Path("/"):
        with suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(
                ["nvpmodel", "-q"], capture_output=True, text=True, timeout=2, check=False
            )
            return parse_nvpmodel_query(answer.stdout)
    return ""


def versions(root: Path = Path("/")) -> dict[str, str]:
    """Of the kernel, of Python and of what does the work, as far as it is installed."""
    return {"kernel": read_text(root / "proc/sys/kernel/osrelease").strip(), **package_versions(RUNTIMES)}


def _notes(shots: Sequence[Snapshot], sensors: Sensors, power_source: str) -> Iterator[str]:
    if not power_source:
        locked = "RAPL is there, but only root may read it" if sensors.counters else "no INA3221 and no RAPL"
        yield f"power cannot be read on this machine: {locked}"
    for kind in ("temperatures_c", "clocks_mhz", "power_w", "counters_j"):
        yield from _vanished(shots, kind)
    stepped_s = (shots[-1].wall_s - shots[0].wall_s) - (shots[-1].t_s - shots[0].t_s)
    if abs(stepped_s) > STEP_S:
        yield f"the clock on the wall was stepped by {stepped_s:+.1f} s; all durations are monotonic"


def _vanished(shots: Sequence[Snapshot], kind: str) -> Iterator[str]:
    for name, series in _series(shots, kind).items():
        missed = len(shots) - len(series)
        if missed:
            since_s = series[-1][0] - shots[0].t_s
            yield f"{name} did not answer {missed} of {len(shots)} times; its last value is of {since_s:.1f} s"
