"""What a device's own files tell: JetPack's packages, cameras, power mode, disk, clock, GStreamer.

Every check reads below a `root`, so that it can be tested on the files of machines that are not here.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edge.finding import Finding, guarded
from edge.machine import Jetson, Machine, read_text

CUDA_MAJORS = {36: "12", 38: "13", 39: "13"}
"""L4T -> CUDA's major version in its JetPack."""

LIBRARIES = ("usr/lib/aarch64-linux-gnu/nvidia", "usr/lib/aarch64-linux-gnu/tegra")
NVDLA = "libnvdla_compiler.so"

LEAST_FREE_GIB = 1.0
"""A plan, its timing cache and an outbox of some days fit into this."""

EPOCH_YEAR = 2025
"""An earlier year is a clock that was never set: the battery is flat and no network told the time."""

TIME_ERROR = 5
"""What adjtimex(2) returns while the kernel's clock is not synchronised."""

ARGUS_SOCKET = "tmp/argus_socket"

BASE, GOOD = "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good"
PLUGINS = {
    "appsink": ("libgstapp.so", BASE),
    "videoconvert": ("libgstvideoconvert*.so", BASE),
    "v4l2src": ("libgstvideo4linux2.so", GOOD),
    "rtspsrc": ("libgstrtsp.so", GOOD),
    "jpegdec": ("libgstjpeg.so", GOOD),
    "h264parse": ("libgstvideoparsersbad.so", "gstreamer1.0-plugins-bad"),
}
"""Element -> (plugin's file, Debian's package)."""

JETSON_PLUGINS = {
    "nvarguscamerasrc": ("libgstnvarguscamerasrc.so", "nvidia-l4t-gstreamer"),
    "nvv4l2decoder": ("libgstnvvideo4linux2.so", "nvidia-l4t-gstreamer"),
    "nvvidconv": ("libgstnvvidconv.so", "nvidia-l4t-gstreamer"),
}


@dataclass(frozen=True)
class Account:
    """Who asks: the user's and the groups' numbers."""

    uid: int
    gids: frozenset[int]

    @classmethod
    def this(cls) -> Account:
        """The one that this process runs under."""
        return cls(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))

    def may_use(self, node: os.stat_result) -> bool:
        """Whether it may read and write a file of this owner, group and mode."""
        wanted = stat.S_IROTH | stat.S_IWOTH
        if self.uid == 0:
            return True
        shift = 6 if node.st_uid == self.uid else 3 if node.st_gid in self.gids else 0
        return (node.st_mode >> shift) & wanted == wanted


def look_at_device(
    machine: Machine, root: Path = Path("/"), account: Account | None = None
) -> Iterator[Finding]:
    """All checks of this module; none of them raises."""
    who = account or Account.this()
    if jetson := machine.jetson:
        yield from guarded("JetPack", lambda: look_at_packages(jetson, root))
        yield from guarded("libnvdla", lambda: [look_at_nvdla(jetson, root)])
        yield from guarded("CSI cameras", lambda: [look_at_argus(root)])
        yield from guarded("power mode", lambda: [look_at_power_mode(root)])
    yield from guarded("cameras", lambda: look_at_cameras(root, who))
    yield from guarded("GStreamer", lambda: [look_at_gstreamer(machine, root)])
    yield from guarded("disk", lambda: [look_at_disk(root)])
    yield from guarded("clock", lambda: [look_at_clock(time.time(), kernel_clock_is_synchronised())])


def look_at_packages(jetson: Jetson, root: Path) -> Iterator[Finding]:
    """CUDA and TensorRT as JetPack's packages have them, and whether they fit each other."""
    packages = installed(read_text(root / "var/lib/dpkg/status"))
    yield _cuda(jetson, root)
    engines = {name: v for name, v in packages.items() if re.fullmatch(r"libnvinfer\d+", name)}
    bindings = packages.get("python3-libnvinfer", "")
    if not engines:
        fix = "sudo apt install nvidia-jetpack (in a container: take one of deploy/*.Dockerfile)"
        yield Finding("TensorRT packages", "absent", "libnvinfer is not installed by apt", fix)
    elif bindings not in engines.values():
        found = f"{_listed(engines)}, python3-libnvinfer {bindings or 'is missing'}"
        fix = "The bindings are of the library's version: sudo apt install python3-libnvinfer"
        yield Finding("TensorRT packages", "problem", found, fix)
    else:
        yield Finding("TensorRT packages", "ok", f"{_listed(engines)}, with its Python bindings")


def installed(status: str) -> dict[str, str]:
    """Package -> version, of those that are installed, from /var/lib/dpkg/status."""
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            found[fields["Package"]] = fields.get("Version", "")
    return found


def look_at_nvdla(jetson: Jetson, root: Path) -> Finding:
    """The DLA's compiler, without which the TensorRT of JetPack 6 cannot even be imported."""
    files = [root / folder / NVDLA for folder in LIBRARIES if (root / folder / NVDLA).exists()]
    if any(file.stat().st_size for file in files):
        return Finding("libnvdla", "ok", f"{NVDLA} is there")
    if files:
        fix = "On the host: sudo apt install nvidia-l4t-dla-compiler; then start the container anew."
        return Finding("libnvdla", "problem", f"{NVDLA} is empty: the host had none to mount", fix)
    if _major(jetson) >= 39:
        fix = "In a container, TensorRT must be one for JetPack 7 as well: deploy/jetpack7.Dockerfile."
        return Finding("libnvdla", "absent", f"JetPack {jetson.jetpack or 7} ships no {NVDLA}", fix)
    fix = "sudo apt install nvidia-l4t-dla-compiler (in a container: on the host, with --runtime nvidia)"
    return Finding("libnvdla", "problem", f"{NVDLA} is missing: `import tensorrt` fails", fix)


def look_at_argus(root: Path) -> Finding:
    """CSI sensors that the kernel found, and the socket of the daemon that alone may use them."""
    sensors = [name for _, name in video_nodes(root) if name.startswith("vi-output")]
    names = ", ".join(name.removeprefix("vi-output, ") for name in sensors)
    if (root / ARGUS_SOCKET).exists():
        return Finding("CSI cameras", "ok" if sensors else "absent", names or "no sensor was found")
    if not sensors:
        fix = "Choose the camera's overlay: sudo /opt/nvidia/jetson-io/jetson-io.py; then start anew."
        return Finding("CSI cameras", "absent", "no sensor, and no Argus", fix)
    found = f"{names}, but /{ARGUS_SOCKET} is missing: nvargus-daemon does not run, or this is a container"
    fix = "sudo systemctl restart nvargus-daemon; in a container: -v /tmp/argus_socket:/tmp/argus_socket"
    return Finding("CSI cameras", "problem", found, fix)


def look_at_cameras(root: Path, account: Account) -> Iterator[Finding]:
    """Each V4L2 camera, and whether this user may open it."""
    cameras = [(node, name) for node, name in video_nodes(root) if not name.startswith("vi-output")]
    if not cameras:
        yield Finding(
            "cameras", "absent", "no V4L2 camera", "Plug one in; in a container: --device /dev/video0"
        )
    for node, name in cameras:
        yield _camera(root, node, name, account)


def video_nodes(root: Path) -> list[tuple[str, str]]:
    """(`video0`, its card's name) of each node that gives pictures: the first of each device."""
    folders = sorted((root / "sys/class/video4linux").glob("video*"), key=lambda f: (len(f.name), f.name))
    pictures = [f for f in folders if (read_text(f / "index").strip() or "0") == "0"]
    return [(folder.name, read_text(folder / "name").strip()) for folder in pictures]


def look_at_power_mode(root: Path) -> Finding:
    """The mode that nvpmodel wrote down, and how to get the fastest."""
    from edge.profiling.snapshot import NVPMODEL_CONF, read_power_mode

    mode = read_power_mode(root)
    fastest = re.search(
        r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=MAXN", read_text(root / NVPMODEL_CONF), re.MULTILINE
    )
    if not mode:
        fix = "In a container: -v /etc/nvpmodel.conf:/etc/nvpmodel.conf:ro -v /var/lib/nvpmodel:/var/lib/nvpmodel:ro"
        return Finding("power mode", "absent", "nvpmodel's files are hidden or missing", fix)
    slower = fastest is not None and not mode.startswith("MAXN")
    fix = (
        f"For full speed, where supply and cooling allow it: sudo nvpmodel -m {fastest[1]}" if fastest else ""
    )
    return Finding("power mode", "ok", mode, fix if slower else "")


def look_at_disk(root: Path, least_gib: float = LEAST_FREE_GIB) -> Finding:
    """Free space where plans, events and logs go."""
    usage = shutil.disk_usage(root)
    free_gib, whole_gib = usage.free / 2**30, usage.total / 2**30
    found = f"{free_gib:.1f} of {whole_gib:.1f} GiB free"
    if free_gib >= least_gib:
        return Finding("disk", "ok", found)
    fix = "Free some: sudo apt clean; sudo journalctl --vacuum-size=100M; and bound the sinks' rotation."
    return Finding("disk", "problem", f"{found}, {least_gib:.1f} are needed", fix)


def look_at_clock(now_s: float, synchronised: bool | None) -> Finding:
    """Whether the clock on the wall was set; latencies do not depend on it, times of events do.

    Args:
        now_s: seconds since 1970.
        synchronised: what the kernel says; None where it does not answer.
    """
    now = datetime.fromtimestamp(now_s, timezone.utc)
    said = f"{now:%Y-%m-%d %H:%M} UTC"
    fix = "sudo timedatectl set-ntp true, with a time server that can be reached"
    if now.year < EPOCH_YEAR:
        return Finding("clock", "problem", f"{said}: never set", f"{fix}; and look at the clock's battery")
    if synchronised is None:
        return Finding("clock", "absent", f"{said}; whether it is synchronised is hidden here", "timedatectl")
    if not synchronised:
        return Finding("clock", "problem", f"{said}, not synchronised: events get wrong times", fix)
    return Finding("clock", "ok", f"{said}, synchronised")


def kernel_clock_is_synchronised() -> bool | None:
    """What the kernel says, whoever synchronises it; None where it may not be asked (seccomp)."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    # struct timex has 208 bytes; all zeros is modes = 0, which only reads.
    answer = -1 if adjtimex is None else int(adjtimex(ctypes.create_string_buffer(512)))
    return None if answer < 0 else answer != TIME_ERROR


def look_at_gstreamer(machine: Machine, root: Path) -> Finding:
    """PyGObject of the system's Python and the elements that cameras need."""
    elements = PLUGINS | (JETSON_PLUGINS if machine.jetson else {})
    missing = {element: package for element, (file, package) in elements.items() if not _plugin(root, file)}
    if not (root / "usr/lib/python3/dist-packages/gi/__init__.py").exists():
        missing["PyGObject"] = "python3-gi"
    if not list(root.glob("usr/lib/*/girepository-1.0/Gst-1.0.typelib")):
        missing["its GStreamer bindings"] = "gir1.2-gstreamer-1.0"
    if not missing:
        return Finding("GStreamer", "ok", f"PyGObject, {', '.join(elements)}")
    fix = f"sudo apt install {' '.join(sorted(set(missing.values())))}"
    return Finding("GStreamer", "absent", f"without {', '.join(missing)}", fix)


def _cuda(jetson: Jetson, root: Path) -> Finding:
    """/usr/local/cuda/version.json beside the CUDA that this L4T's driver is made for."""
    version = _cuda_version(read_text(root / "usr/local/cuda/version.json"))
    wanted = CUDA_MAJORS.get(_major(jetson), "")
    if not version:
        return Finding("CUDA", "absent", "no /usr/local/cuda", "sudo apt install nvidia-jetpack")
    if wanted and version.partition(".")[0] != wanted:
        found = f"CUDA {version}, but the driver of L4T {jetson.l4t} is made for CUDA {wanted}"
        fix = f"sudo apt install cuda-toolkit of version {wanted}, and pip install '.[jetpack{int(wanted) - 6}]'"
        return Finding("CUDA", "problem", found, fix)
    return Finding("CUDA", "ok", version)


def _cuda_version(content: str) -> str:
    """`12.6.68`, from version.json; empty for anything else."""
    try:
        return str(json.loads(content)["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return ""


def _major(jetson: Jetson) -> int:
    return int(jetson.l4t.partition(".")[0] or 0)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _camera(root: Path, node: str, name: str, account: Account) -> Finding:
    part, path = f"camera /dev/{node}", root / "dev" / node
    if not path.exists():
        fix = f"In a container: --device /dev/{node}; else: sudo udevadm trigger"
        return Finding(part, "problem", f"{name}: the kernel has it, /dev/{node} is missing", fix)
    status = path.stat()
    if account.may_use(status):
        return Finding(part, "ok", name)
    group = group_name(read_text(root / "etc/group"), status.st_gid)
    if account.gids and status.st_mode & stat.S_IRGRP:
        fix = f"sudo usermod -aG {group} $USER, and log in again (a service: SupplementaryGroups={group})"
    else:
        fix = f"Give the node back its mode: sudo chmod 660 /dev/{node}; sudo chgrp video /dev/{node}"
    return Finding(part, "problem", f"{name}: no permission; it belongs to the group '{group}'", fix)


def group_name(content: str, gid: int) -> str:
    """The name of a group, from /etc/group; its number where it has none (a container)."""
    found = re.search(rf"^([^:\n]+):[^:\n]*:{gid}:", content, re.MULTILINE)
    return found[1] if found else str(gid)


def _plugin(root: Path, file: str) -> bool:
    """Whether a GStreamer plugin is there; an empty file is a mount that found nothing on the host."""
    return any(path.stat().st_size for path in root.glob(f"usr/lib/*/gstreamer-1.0/{file}"))
