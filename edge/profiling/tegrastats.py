"""Lines of NVIDIA's `tegrastats`, as every JetPack from 4.2 to 7.2 writes them.

The fields differ by board and version, so nothing is at a fixed place: each is looked for by its
own pattern, and what a line does not hold, or holds damaged, is absent. No line raises.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from edge.children import end


@dataclass(frozen=True)
class Core:
    """One processor core: load in per cent and clock; an `off` one has neither."""

    load_percent: float | None
    mhz: float | None


@dataclass(frozen=True)
class Stats:
    """What one line says; what it does not say is None or empty.

    Attributes:
        time: the board's wall clock, as it stands there (JetPack 5 and newer).
        ram_mb, swap_mb: used and total, in mebibytes.
        emc_percent, emc_mhz: share of the memory bandwidth in use, and the memory's clock.
        gpu_percent, gpu_mhz: load of the GPU, and the clock of each of its clusters.
        engines: other clocks in MHz (VIC, APE, NVDEC ...); 0 for an engine that is off.
        temperatures_c: by sensor, now.
        rails_mw: by power rail, now; `rails_mean_mw`: since tegrastats was started.
    """

    time: str = ""
    ram_mb: tuple[float, float] | None = None
    swap_mb: tuple[float, float] | None = None
    cores: tuple[Core, ...] = ()
    emc_percent: float | None = None
    emc_mhz: float | None = None
    gpu_percent: float | None = None
    gpu_mhz: tuple[float, ...] = ()
    engines: dict[str, float] = field(default_factory=dict)
    temperatures_c: dict[str, float] = field(default_factory=dict)
    rails_mw: dict[str, float] = field(default_factory=dict)
    rails_mean_mw: dict[str, float] = field(default_factory=dict)


def parse(line: str) -> Stats:
    """Read one line; of garbage, what could be read, which may be nothing."""
    emc, gpu = _load_and_clock("EMC_FREQ", line), _load_and_clock("GR3D_FREQ", line)
    rails = {name: (float(now), float(mean)) for name, now, mean in _RAIL.findall(line)}
    return Stats(
        time=found[1] if (found := _TIME.match(line)) else "",
        ram_mb=_used_of("RAM", line),
        swap_mb=_used_of("SWAP", line),
        cores=_cores(line),
        emc_percent=emc[0],
        emc_mhz=emc[1][0] if emc[1] else None,
        gpu_percent=gpu[0],
        gpu_mhz=gpu[1],
        engines=_engines(line),
        temperatures_c={name: float(degrees) for name, degrees in _TEMPERATURE.findall(line)},
        rails_mw={name: now for name, (now, _) in rails.items()},
        rails_mean_mw={name: mean for name, (_, mean) in rails.items()},
    )


_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_TIME = re.compile(r"\s*([0-9]{2}-[0-9]{2}-[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2})", re.ASCII)

_TEMPERATURE = re.compile(rf"(?<!\S)([A-Za-z]\w*)@(-?{_NUMBER})C(?:/-?{_NUMBER}C)?(?!\S)", re.ASCII)
"""`CPU@46.5C`; JetPack 7 adds the highest so far, `cpu@52.968C/52.968C`."""

_RAIL = re.compile(
    rf"(?<!\S)([A-Z]\w*) ({_NUMBER})(?:mW)?/({_NUMBER})(?:mW)?(?:/{_NUMBER}(?:mW)?)?(?!\S)", re.ASCII
)
"""`VDD_IN 6140/5510`: now and mean in mW; JetPack 5 adds the unit, JetPack 7 the highest so far."""

_CPU = re.compile(r"(?<!\S)CPU \[([^\]]*)\](?:@(\d{1,9}))?", re.ASCII)
_CORE = re.compile(rf"({_NUMBER})%(?:@(\d{{1,9}}))?", re.ASCII)
_ENGINE = re.compile(
    rf"(?<!\S)(?!EMC_|GR3D_)([A-Z][A-Z0-9]*?)(?:_FREQ)? (?:{_NUMBER}%@)?(off|{_NUMBER})(?!\S)", re.ASCII
)


def _used_of(name: str, line: str) -> tuple[float, float] | None:
    """Mebibytes, which tegrastats calls MB."""
    found = re.search(rf"(?<!\S){name} (\d{{1,9}})/(\d{{1,9}})MB", line, re.ASCII)
    return (float(found[1]), float(found[2])) if found else None


def _load_and_clock(name: str, line: str) -> tuple[float | None, tuple[float, ...]]:
    """Of `NAME 2%@204`, `0%`, `0%@[114]`, `12%@[1300,1300]`, and Thor's `@4266` without a load."""
    found = re.search(rf"(?<!\S){name} (?:({_NUMBER})%)?(?:@\[?([\d,]{{1,99}}))?", line, re.ASCII)
    if not found:
        return None, ()
    clocks = tuple(float(mhz) for mhz in (found[2] or "").split(",") if mhz)
    return float(found[1]) if found[1] else None, clocks


def _cores(line: str) -> tuple[Core, ...]:
    """`[5%@1224,off]`; on Thor one clock for all, `[0%,5%,off]@2601`."""
    found = _CPU.search(line)
    if not found:
        return ()
    shared = float(found[2]) if found[2] else None
    return tuple(_core(text.strip(), shared) for text in found[1].split(","))


def _core(text: str, shared_mhz: float | None) -> Core:
    found = _CORE.fullmatch(text)
    if not found:
        return Core(None, None)
    return Core(float(found[1]), float(found[2]) if found[2] else shared_mhz)


def _engines(line: str) -> dict[str, float]:
    pairs = dict(_ENGINE.findall(line))
    return {name: 0.0 if mhz == "off" else float(mhz) for name, mhz in pairs.items()}


class Tegrastats:
    """`tegrastats` as a child process, for what sysfs does not show (the memory's clock).

    Args:
        command: found on the PATH; a fake one in tests.
        interval_ms: between lines.
    """

    def __init__(self, command: Sequence[str] = ("tegrastats",), interval_ms: int = 1000) -> None:
        self._command = (*command, "--interval", str(interval_ms))
        self._latest: Stats | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def latest(self) -> Stats | None:
        """The last line so far; None before the first, and where there is no tegrastats."""
        return self._latest

    def start(self) -> None:
        """Start the child, if there is such a program."""
        with suppress(OSError):
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
            )
            self._thread = threading.Thread(target=self._read, name="tegrastats", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the child."""
        if self._process is None:
            return
        end(self._process, 2)
        self._thread.join(2)
        self._process = None

    def _read(self) -> None:
        stdout = self._process.stdout if self._process else None
        assert stdout is not None
        with stdout:
            for line in stdout:
                self._latest = parse(line)
