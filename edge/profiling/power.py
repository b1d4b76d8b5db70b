"""Power by rail and energy a frame: a Jetson's INA3221 through hwmon, and RAPL on x86.

The INA3221 gives volts and milliamperes of a moment, so its energy is an integral over samples.
RAPL (Linux, Documentation/power/powercap/powercap.rst) counts microjoules and starts again at zero
past `max_energy_range_uj`; since 2020 most kernels let only root read it (CVE-2020-8694).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.machine import read_number, read_text

CHANNELS = (1, 2, 3)
"""Of an INA3221. `in4` to `in6` are shunt voltages, `in7` is their sum."""

INPUTS = ("VDD_IN", "POM_5V_IN", "5V_IN", "VIN")
"""Rails that carry the whole module (the carrier board excluded): Orin and Xavier NX, Nano, Thor."""

Series = list[tuple[float, float]]
"""Monotonic seconds and a value: watts of a rail, joules of a counter."""


@dataclass(frozen=True)
class Rail:
    """One channel of an INA3221: its label, and the files of its millivolts and milliamperes."""

    name: str
    millivolts: Path
    milliamperes: Path

    def read_w(self) -> float | None:
        """Watts now; None while the chip does not answer."""
        volts, amperes = read_number(self.millivolts), read_number(self.milliamperes)
        return None if volts is None or amperes is None else volts * amperes * 1e-6


@dataclass(frozen=True)
class Counter:
    """One RAPL domain: its energy so far, and where the counter starts again."""

    name: str
    microjoules: Path
    range_j: float

    def read_j(self) -> float | None:
        """Joules on the counter; None where only root may read it."""
        value = read_number(self.microjoules)
        return None if value is None else value * 1e-6


def find_rails(root: Path) -> tuple[Rail, ...]:
    """The channels that are wired; a board may have several chips, AGX Orin has two."""
    chips = {
        folder.resolve(): folder
        for pattern in ("sys/class/hwmon/hwmon*", "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*")
        for folder in sorted(root.glob(pattern))
        if "drivers/ina3221" in str(folder) or read_text(folder / "name").strip() == "ina3221"
    }
    return tuple(rail for folder in chips for channel in CHANNELS if (rail := _rail(folder, channel)))


def _rail(folder: Path, channel: int) -> Rail | None:
    name = read_text(folder / f"in{channel}_label").strip()
    if not name or name == "NC":
        return None
    return Rail(name, folder / f"in{channel}_input", folder / f"curr{channel}_input")


def find_counters(root: Path) -> tuple[Counter, ...]:
    """RAPL's domains, `package-0/core` for one within another; the memory-mapped twins are left out."""
    zones = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
    names = {zone.name: read_text(zone / "name").strip() for zone in zones}
    return tuple(
        Counter(_full_name(zone.name, names), zone / "energy_uj", limit * 1e-6)
        for zone in zones
        if (limit := read_number(zone / "max_energy_range_uj")) is not None
    )


def _full_name(zone: str, names: Mapping[str, str]) -> str:
    parent = zone.rpartition(":")[0]
    return f"{names[parent]}/{names[zone]}" if parent in names else names[zone]


def total_of(names: Sequence[str]) -> tuple[str, ...]:
    """The rails or counters whose sum is the machine's, as far as it is measured.

    The rail that feeds the module, where there is one; of RAPL the whole platform (`psys`), else the
    packages with their memory, which is a domain inside but not part of a package's sum; AGX boards
    measure all rails and no input, so there it is the sum of all.
    """
    if inputs := [name for name in names if name in INPUTS or name == "psys"]:
        return (inputs[0],)
    if any(name.startswith("package-") for name in names):
        return tuple(n for n in names if n.startswith("package-") and ("/" not in n or n.endswith("/dram")))
    return tuple(names)


def unwrapped(series: Series, range_j: float) -> Series:
    """A counter that never falls: each fall was one passage through zero.

    At 200 W a range of 262 kJ lasts 22 minutes, so with samples every few seconds it cannot be two.
    """
    total, rows = 0.0, []
    for (_, before), (t, now) in zip(series[:1] + series[:-1], series, strict=True):
        total += now - before + (range_j if now < before else 0.0)
        rows.append((t, total))
    return rows


def energy_of_power_j(series: Series, start_s: float, end_s: float) -> float | None:
    """The integral of watts over a window by the trapezoid rule, its edges interpolated.

    Returns:
        None where the samples do not reach from one end of the window to the other.
    """
    if not _covers(series, start_s, end_s):
        return None
    times, watts = np.asarray(series, float).T
    inside = (times > start_s) & (times < end_s)
    t = np.concatenate(([start_s], times[inside], [end_s]))
    w = np.interp(t, times, watts)
    return float(np.sum(np.diff(t) * (w[1:] + w[:-1]) / 2))


def energy_of_counter_j(series: Series, start_s: float, end_s: float) -> float | None:
    """What an unwrapped counter grew by in a window; None where the samples do not span it."""
    if not _covers(series, start_s, end_s):
        return None
    times, joules = np.asarray(series, float).T
    before, after = np.interp((start_s, end_s), times, joules)
    return float(after - before)


def _covers(series: Series, start_s: float, end_s: float) -> bool:
    return len(series) > 1 and start_s < end_s and series[0][0] <= start_s and end_s <= series[-1][0]


@dataclass(frozen=True)
class Energy:
    """Energy of a stretch of frames.

    Attributes:
        source: `INA3221`, `tegrastats`, both, or `RAPL`.
        joules: by rail; one that vanished on the way is not there.
        total: the rails whose sum is the total, see `total_of`.
    """

    source: str
    frames: int
    seconds: float
    joules: Mapping[str, float]
    total: tuple[str, ...]

    @property
    def total_j(self) -> float | None:
        """Joules of the total; None where a rail of it vanished."""
        if not self.total or any(name not in self.joules for name in self.total):
            return None
        return sum(self.joules[name] for name in self.total)

    def as_json(self) -> dict[str, object]:
        """Watts and millijoules a frame, by rail and in total."""
        whole = {} if self.total_j is None else {"total": self.total_j}
        joules = {**self.joules, **whole}
        return {
            "source": self.source,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "total_is": list(self.total),
            "mean_w": {name: round(j / self.seconds, 4) for name, j in joules.items()},
            "mj_a_frame": {name: round(1e3 * j / self.frames, 4) for name, j in joules.items()},
        }
