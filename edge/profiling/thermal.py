"""Temperatures, clocks and throttling, from Linux's sysfs: what makes a figure irreproducible.

Each reader looks for its files once and reads them many times. A sensor that does not answer (a
Jetson's zone of an engine that is off says EAGAIN) is missing from that reading alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.machine import read_number, read_text

COLDEST_C = -100.0
"""Below it is no temperature: an engine of a Jetson that is off reads -256."""

CONSTANT_ZONES = ("PMIC-Die", "PMIC", "pmic")
"""Zones of a Jetson that always read 50 or 100: no sensor stands behind them."""

GPU_NAMES = re.compile("gpu|gv11b|ga10b|gp10b|gm20b|v3d|gb10b", re.IGNORECASE)
"""In a devfreq device's name, or in that of its node in the device tree."""

HOT_HWMON = ("k10temp", "coretemp", "zenpower")
"""Chips of x86 processors; AMD's makes no thermal zone."""

SLOWING = re.compile("cpu|gpu|processor|throttl|clamp|freq", re.IGNORECASE)
"""Cooling devices that slow something down; fans, displays and radios cool without that."""

PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of now; sixteen higher the same since boot. Raspberry Pi documentation, `vcgencmd get_throttled`."""


@dataclass(frozen=True)
class Gauge:
    """A file with one number, and what one of its unit is in ours."""

    name: str
    path: Path
    unit: float

    def read(self) -> float | None:
        """The value in our unit; None while the file has none."""
        value = read_number(self.path)
        return None if value is None else value * self.unit


def read_all(gauges: tuple[Gauge, ...]) -> dict[str, float]:
    """The gauges that answer."""
    values = ((gauge.name, gauge.read()) for gauge in gauges)
    return {name: value for name, value in values if value is not None}


def _numbered(gauges: Iterator[Gauge]) -> tuple[Gauge, ...]:
    """Names made different: the second `acpitz` becomes `acpitz#2`."""
    seen: Counter[str] = Counter()
    named = []
    for gauge in gauges:
        seen[gauge.name] += 1
        suffix = f"#{seen[gauge.name]}" if seen[gauge.name] > 1 else ""
        named.append(Gauge(gauge.name + suffix, gauge.path, gauge.unit))
    return tuple(named)


# -- temperatures ---------------------------------------------------------------------------------


def find_zones(root: Path) -> tuple[Gauge, ...]:
    """Thermal zones by type, and the chips of x86 processors; degrees Celsius."""
    return _numbered(_zones(root))


def _zones(root: Path) -> Iterator[Gauge]:
    for zone in _in_order(root, "sys/class/thermal/thermal_zone*"):
        kind = read_text(zone / "type").strip().removesuffix("-thermal").removesuffix("-therm")
        if kind not in CONSTANT_ZONES:
            yield Gauge(kind or zone.name, zone / "temp", 1e-3)
    for chip in _in_order(root, "sys/class/hwmon/hwmon*"):
        kind = read_text(chip / "name").strip()
        if kind in HOT_HWMON:
            yield Gauge(kind, chip / "temp1_input", 1e-3)


def read_temperatures_c(zones: tuple[Gauge, ...]) -> dict[str, float]:
    """By zone; those of engines that are off are left out."""
    return {name: round(value, 3) for name, value in read_all(zones).items() if value > COLDEST_C}


# -- clocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """Things on one clock: a cluster of cores, the GPU, the memory.

    Attributes:
        now: its clock, in MHz.
        governor: who sets it; empty where the kernel does not say.
        min_mhz, max_mhz: what the governor may choose from now; None where the kernel does not say.
    """

    now: Gauge
    governor: str
    min_mhz: float | None
    max_mhz: float | None


def find_domains(root: Path) -> tuple[Domain, ...]:
    """Clusters of cores (cpufreq), GPU and other devices (devfreq), memory where root reads debugfs."""
    return (*_cpu_domains(root), *_device_domains(root), *_memory_domain(root))


def read_clocks_mhz(root: Path, domains: tuple[Domain, ...]) -> dict[str, float]:
    """By domain. Without cpufreq (a virtual machine) the cores' clocks are those of /proc/cpuinfo."""
    clocks = read_all(tuple(domain.now for domain in domains))
    if not any(domain.now.name.startswith("cpu") for domain in domains):
        clocks |= parse_cpu_mhz(read_text(root / "proc/cpuinfo"))
    return {name: round(mhz, 1) for name, mhz in clocks.items()}


def parse_cpu_mhz(cpuinfo: str) -> dict[str, float]:
    """x86's `cpu MHz`, core by core; Arm's kernels do not write it."""
    clocks = re.findall(r"^cpu MHz\s*: (\d+(?:\.\d+)?)", cpuinfo, re.MULTILINE)
    return {f"cpu{core}": float(mhz) for core, mhz in enumerate(clocks)}


def _cpu_domains(root: Path) -> Iterator[Domain]:
    """One by policy: the cores of a cluster share their clock, and the files are the same ones."""
    seen: set[Path] = set()
    for folder in _in_order(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        cores = read_text(folder / "related_cpus").split() or [folder.parent.name.removeprefix("cpu")]
        name = f"cpu{cores[0]}-{cores[-1]}" if len(cores) > 1 else f"cpu{cores[0]}"
        yield _domain(name, folder, "scaling_{}_freq", "scaling_governor", 1e-3)


def _device_domains(root: Path) -> Iterator[Domain]:
    folders = _in_order(root, "sys/class/devfreq/*")
    kinds = {folder: _device_kind(folder) for folder in folders}
    for folder, kind in kinds.items():
        alone = sum(other == kind for other in kinds.values()) == 1
        yield _domain(kind if alone else f"{kind}:{folder.name}", folder, "{}_freq", "governor", 1e-6)


def _device_kind(folder: Path) -> str:
    """`gpu`, `emc` (the memory), or the device's own name."""
    names = f"{folder.name} {read_text(folder / 'device/of_node/name')}"
    if GPU_NAMES.search(names):
        return "gpu"
    return "emc" if re.search("emc|dmc", names) else folder.name


def _domain(name: str, folder: Path, files: str, governor: str, unit: float) -> Domain:
    low, high = (Gauge(name, folder / files.format(end), unit).read() for end in ("min", "max"))
    now = Gauge(name, folder / files.format("cur"), unit)
    return Domain(now, read_text(folder / governor).strip(), low, high)


def _memory_domain(root: Path) -> Iterator[Domain]:
    path = root / "sys/kernel/debug/bpmp/debug/clk/emc/rate"
    if read_number(path) is not None:
        yield Domain(Gauge("emc", path, 1e-6), "", None, None)


# -- throttling -----------------------------------------------------------------------------------


def find_throttling(root: Path) -> tuple[Gauge, ...]:
    """Counters of events (x86, Jetson) and states of now (cooling devices that slow something down)."""
    return _numbered(_throttling(root))


def _throttling(root: Path) -> Iterator[Gauge]:
    for kind in ("core", "package"):
        pattern = f"sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/{kind}_throttle_count"
        for path in _in_order(root, pattern):
            yield Gauge(f"count {path.parent.parent.name} {kind}", path, 1)
    for path in _in_order(root, "sys/class/hwmon/hwmon*/oc*_event_cnt"):
        yield Gauge(f"count over-current {path.name.removesuffix('_event_cnt')}", path, 1)
    for device in _in_order(root, "sys/class/thermal/cooling_device*"):
        kind = read_text(device / "type").strip()
        if SLOWING.search(kind):
            yield Gauge(f"state {kind}", device / "cur_state", 1)


def read_throttling(root: Path, gauges: tuple[Gauge, ...]) -> dict[str, int]:
    """By gauge; on a Raspberry Pi also what its firmware says, as a state by bit."""
    values = {name: int(value) for name, value in read_all(gauges).items()}
    bits = parse_pi_throttled(read_text(root / PI_THROTTLED))
    return values | {f"state {name}": 1 for name in bits}


def parse_pi_throttled(text: str) -> tuple[str, ...]:
    """What holds now, from the hexadecimal word of a Raspberry Pi's firmware."""
    try:
        word = int(text.strip() or "0", 16)
    except ValueError:
        return ()
    return tuple(name for bit, name in PI_BITS.items() if word >> bit & 1)


def throttled(before: Mapping[str, int], later: Mapping[str, int]) -> tuple[str, ...]:
    """What slowed the machine down: counters that grew since `before`, and states that hold in `later`."""
    grown = (
        f"{name.removeprefix('count ')}: {now - before[name]} events"
        for name, now in later.items()
        if name.startswith("count ") and now > before.get(name, now)
    )
    held = (
        name.removeprefix("state ") for name, now in later.items() if name.startswith("state ") and now > 0
    )
    return (*grown, *held)


def _in_order(root: Path, pattern: str) -> list[Path]:
    """Paths that match, `cpu10` after `cpu9`."""
    return sorted(root.glob(pattern), key=lambda path: [_digits(part) for part in path.parts])


def _digits(part: str) -> list[tuple[int, str]]:
    return [(int(run) if run.isdigit() else 0, run) for run in re.split(r"(\d+)", part)]
