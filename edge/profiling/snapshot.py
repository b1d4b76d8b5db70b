"""What all sensors of a machine say at one moment."""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge.machine import read_text
from edge.profiling import power, thermal
from edge.profiling.tegrastats import Stats

NVPMODEL_STATUS = "var/lib/nvpmodel/status"
NVPMODEL_CONF = "etc/nvpmodel.conf"

SEARCH_S = 5.0
"""Between two searches for new children."""


@dataclass(frozen=True)
class Jiffies:
    """Processor time since boot, over all cores, in the kernel's ticks.

    Attributes:
        whole: idle time included; busy: without it; stolen: taken by the host of a virtual machine.
        ours: of this process and its children.
    """

    whole: int = 0
    busy: int = 0
    stolen: int = 0
    ours: int = 0

    def shares_since(self, before: Jiffies) -> tuple[float, float, float]:
        """Shares of the whole machine, 0 to 1: ours, other processes', stolen."""
        whole = max(self.whole - before.whole, 1)
        ours = self.ours - before.ours
        # A tick counts as a whole one for whoever it meets, so the difference can fall below zero.
        others = max(self.busy - before.busy - ours, 0)
        return ours / whole, others / whole, (self.stolen - before.stolen) / whole


@dataclass(frozen=True)
class Snapshot:
    """One reading; a sensor that did not answer is not in its dictionary.

    Attributes:
        t_s: monotonic; wall_s: of the clock on the wall, to notice when it is stepped.
        throttling: see `thermal.read_throttling`.
        power_w: by rail; counters_j: energy so far by RAPL domain, not unwrapped.
        available_mib: memory that programs could still have; swap_mib: swapped out.
        loadavg: runnable processes over 1, 5 and 15 minutes.
    """

    t_s: float
    wall_s: float
    temperatures_c: dict[str, float] = field(default_factory=dict)
    clocks_mhz: dict[str, float] = field(default_factory=dict)
    throttling: dict[str, int] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)
    counters_j: dict[str, float] = field(default_factory=dict)
    jiffies: Jiffies = Jiffies()
    available_mib: float = 0.0
    swap_mib: float = 0.0
    loadavg: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sensors:
    """The files to read, looked up once: a search costs milliseconds, a reading microseconds."""

    root: Path
    zones: tuple[thermal.Gauge, ...]
    domains: tuple[thermal.Domain, ...]
    throttling: tuple[thermal.Gauge, ...]
    rails: tuple[power.Rail, ...]
    counters: tuple[power.Counter, ...]

    @classmethod
    def find(cls, root: Path = Path("/")) -> Sensors:
        """Look for everything that this machine has and this process may read."""
        return cls(
            root,
            thermal.find_zones(root),
            thermal.find_domains(root),
            thermal.find_throttling(root),
            power.find_rails(root),
            power.find_counters(root),
        )

    def read(self, family: Family, stats: Stats | None = None) -> Snapshot:
        """Read all.

        Args:
            family: whose processor time is ours.
            stats: the last line of tegrastats; it fills in what sysfs does not show.
        """
        meminfo, stats = read_text(self.root / "proc/meminfo"), stats or Stats()
        temperatures = thermal.read_temperatures_c(self.zones)
        watts = {rail.name: watt for rail in self.rails if (watt := rail.read_w()) is not None}
        return Snapshot(
            t_s=time.monotonic(),
            wall_s=time.time(),
            temperatures_c=temperatures or stats.temperatures_c,
            clocks_mhz=_clocks_of(stats) | thermal.read_clocks_mhz(self.root, self.domains),
            throttling=thermal.read_throttling(self.root, self.throttling),
            # Both: Thor's total is measured by another chip, which tegrastats alone shows.
            power_w={name: milliwatt / 1e3 for name, milliwatt in stats.rails_mw.items()} | watts,
            counters_j={c.name: joules for c in self.counters if (joules := c.read_j()) is not None},
            jiffies=Jiffies(*parse_stat(read_text(self.root / "proc/stat")), family.ticks()),
            available_mib=_mib(meminfo, "MemAvailable"),
            swap_mib=_mib(meminfo, "SwapTotal") - _mib(meminfo, "SwapFree"),
            loadavg=parse_loadavg(read_text(self.root / "proc/loadavg")),
        )


def _clocks_of(stats: Stats) -> dict[str, float]:
    """Memory and GPU. The cores' clocks are always in sysfs, where they also have their clusters."""
    clocks = {} if stats.emc_mhz is None else {"emc": stats.emc_mhz}
    return clocks | ({"gpu": max(stats.gpu_mhz)} if stats.gpu_mhz else {})


# -- load -----------------------------------------------------------------------------------------


def parse_stat(stat: str) -> tuple[int, int, int]:
    """Ticks in all, busy and stolen, from the first line of /proc/stat.

    Its columns are user, nice, system, idle, iowait, irq, softirq, steal; guests count in user too.
    """
    found = re.match(r"cpu +((?:\d+ ?){8})", stat)
    if not found:
        return 0, 0, 0
    ticks = [int(tick) for tick in found[1].split()]
    stolen, idle = ticks[7], ticks[3] + ticks[4]
    return sum(ticks), sum(ticks) - idle - stolen, stolen


@dataclass(frozen=True)
class Process:
    """A process's parent, and its ticks with those of its children that have ended."""

    parent: int
    ticks: int


def parse_process(stat: str) -> Process | None:
    """From /proc/PID/stat; its name may hold spaces and brackets, so fields count from the last one."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 15 or not all(field.lstrip("-").isdigit() for field in fields[1:15]):
        return None
    return Process(int(fields[1]), sum(map(int, fields[11:15])))


class Family:
    """This process and all below it: decoders of cameras are children of ours.

    Who belongs to it is looked up every few seconds, for that means a look at every process; a child
    that ends in between is in its parent's ticks.
    """

    def __init__(self, root: Path, pid: int | None = None) -> None:
        self._root, self._pid = root, pid or os.getpid()
        self._members: set[int] = set()
        self._searched_s = -math.inf

    def ticks(self) -> int:
        """Of all members."""
        now_s = time.monotonic()
        if now_s - self._searched_s >= SEARCH_S:
            self._searched_s, self._members = now_s, self._search()
        return sum(process.ticks for pid in self._members if (process := self._process(pid)))

    def _search(self) -> set[int]:
        children: dict[int, list[int]] = {}
        for pid in self._pids():
            if process := self._process(pid):
                children.setdefault(process.parent, []).append(pid)
        members, waiting = set(), [self._pid]
        while waiting:
            members.add(pid := waiting.pop())
            waiting += [child for child in children.get(pid, ()) if child not in members]
        return members

    def _pids(self) -> list[int]:
        with suppress(OSError):
            return [int(name) for name in os.listdir(self._root / "proc") if name.isdecimal()]
        return []

    def _process(self, pid: int) -> Process | None:
        return parse_process(read_text(self._root / f"proc/{pid}/stat"))


def parse_loadavg(text: str) -> tuple[float, ...]:
    """`4.49 4.16 4.37 8/113 23457` -> three averages; empty for anything else."""
    found = re.match(r"(\d+\.\d+) (\d+\.\d+) (\d+\.\d+) ", text)
    return tuple(map(float, found.groups())) if found else ()


def _mib(meminfo: str, name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB", meminfo, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else 0.0


# -- power mode -----------------------------------------------------------------------------------


def read_power_mode(root: Path) -> str:
    """`MAXN_SUPER (2)`, the mode that nvpmodel wrote down; empty where there is no nvpmodel."""
    return parse_power_mode(read_text(root / NVPMODEL_STATUS), read_text(root / NVPMODEL_CONF))


def parse_power_mode(status: str, conf: str) -> str:
    """From the status file (`pmode:0002`) and the names in nvpmodel.conf.

    Without a status the board is in the configuration's default, as nvpmodel itself assumes.
    """
    modes = dict(re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", conf, re.MULTILINE))
    default = re.search(r"^<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", conf, re.MULTILINE)
    chosen = re.search(r"pmode:(\d+)", status) or default
    if not chosen:
        return ""
    number = str(int(chosen[1]))
    return f"{modes[number]} ({number})" if number in modes else f"mode {number}"


def parse_nvpmodel_query(output: str) -> str:
    """The same form, from what `nvpmodel -q` prints: `NV Power Mode: MODE_15W`, then its number."""
    found = re.search(r"NV Power Mode:\s*(\S+)\s+(\d+)", output)
    return f"{found[1]} ({int(found[2])})" if found else ""
