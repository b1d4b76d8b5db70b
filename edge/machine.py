"""What this machine is: processor, memory, and on a Jetson its model, L4T and JetPack."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FLOOR_L4T = (36, 4)
"""JetPack 6.1: Python 3.10, TensorRT 10.3, CUDA 12.6. Older ones are not supported."""

JETPACKS = {
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.3": "5.1.5",
    "35.6.4": "5.1.6",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
}
"""L4T -> JetPack, after jetson_stats (jtop/core/jetson_variables.py) and NVIDIA's archive."""

ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd83"): "Neoverse-V3AE",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}
"""(implementer, part) -> name, after Linux's arch/arm64/include/asm/cputype.h."""


@dataclass(frozen=True)
class Jetson:
    """A Jetson's board and its software.

    Attributes:
        model: as the device tree spells it.
        l4t: `36.4.3`; empty where /etc/nv_tegra_release is hidden (in a container).
        jetpack: `6.2`; empty where this L4T is not known.
    """

    model: str
    l4t: str
    jetpack: str

    @property
    def supported(self) -> bool:
        """Whether it is JetPack 6.1 or newer; what cannot be read gets the benefit of the doubt."""
        return not self.l4t or tuple(map(int, self.l4t.split("."))) >= FLOOR_L4T


@dataclass(frozen=True)
class Machine:
    """One computer.

    Attributes:
        os: the distribution; architecture: `x86_64`, `aarch64`; python: `3.10.12`.
        cpu: model of the processor; cores: those that this process may use.
        memory_gib: of RAM, total; 0.0 where the system does not tell.
    """

    os: str
    architecture: str
    python: str
    cpu: str
    cores: int
    memory_gib: float
    jetson: Jetson | None


def this_machine(root: Path = Path("/")) -> Machine:
    """Ask the system; nothing here fails, what cannot be read is empty or zero.

    Args:
        root: where /etc and /proc are; another one in tests.
    """
    return Machine(
        os=parse_os_release(read_text(root / "etc/os-release")) or platform.platform(terse=True),
        architecture=platform.machine(),
        python=platform.python_version(),
        cpu=parse_cpu(read_text(root / "proc/cpuinfo")) or platform.processor() or platform.machine(),
        cores=_cores(),
        memory_gib=parse_memory_gib(read_text(root / "proc/meminfo")),
        jetson=parse_jetson(
            read_text(root / "proc/device-tree/model"), read_text(root / "etc/nv_tegra_release")
        ),
    )


def parse_jetson(model: str, release: str) -> Jetson | None:
    """A Jetson, from the device tree's model and /etc/nv_tegra_release; None on other machines."""
    l4t, model = parse_l4t(release), model.strip("\0\n ")
    if not l4t and not re.search("jetson|tegra|nvidia", model, re.IGNORECASE):
        return None
    return Jetson(model or "NVIDIA Jetson", l4t, JETPACKS.get(l4t, ""))


def parse_l4t(release: str) -> str:
    """`36.4.3`, from the line `# R36 (release), REVISION: 4.3, ...`; empty for any other text."""
    found = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release)
    return f"{found[1]}.{found[2]}" if found else ""


def parse_os_release(content: str) -> str:
    """`Ubuntu 22.04.5 LTS`, from /etc/os-release."""
    return _field(content, r'PRETTY_NAME="?([^"\n]*)')


def parse_cpu(cpuinfo: str) -> str:
    """The processor's name, from /proc/cpuinfo; Arm's kernels give its part numbers alone."""
    if name := _field(cpuinfo, r"model name\s*: (.*)"):
        return name
    part = _field(cpuinfo, r"CPU implementer\s*: (\w+)"), _field(cpuinfo, r"CPU part\s*: (\w+)")
    return ARM_CORES.get(part, "")


def parse_memory_gib(meminfo: str) -> float:
    """Total RAM in GiB, from /proc/meminfo, which counts in kibibytes and calls them kB."""
    return round(int(_field(meminfo, r"MemTotal:\s*(\d+) kB") or 0) / 2**20, 1)


def _field(content: str, pattern: str) -> str:
    found = re.search(f"^{pattern}", content, re.MULTILINE)
    return found[1].strip() if found else ""


def read_text(path: Path) -> str:
    """A file of the kernel's; empty where it is missing, hidden or has no value right now."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """A file of the kernel's that holds one number; None where it holds none."""
    try:
        return float(path.read_bytes())
    except (OSError, ValueError):
        return None


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def package_versions(packages: Iterable[str], absent: str | None = None) -> dict[str, str]:
    """Python's version and those of packages; what is not installed is `absent`, or left out where that is None."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            if absent is not None:
                found[package] = absent
    return found
