"""`sightline doctor`: what this machine can run, what it lacks, and how to mend it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import click

from edge.bundle import Bundle, shipped
from edge.device import look_at_device
from edge.errors import CheckFailed, MissingPackageError, SightlineError
from edge.files import write_text
from edge.finding import Finding, State
from edge.machine import Jetson, Machine, this_machine

COLOUR: dict[State, str] = {"ok": "green", "absent": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Package:
    """Something that is imported to see whether it works here.

    Attributes:
        part: its name for people.
        modules: import names, the best first; the first that imports is taken.
        fix: how to install it.
    """

    part: str
    modules: tuple[str, ...]
    fix: str


_AGAIN = "in Sightline's folder: pip install ."
_WEB = "in Sightline's folder: pip install '.[web]'"
LITERT = Package("LiteRT", ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"), _AGAIN)
ONNX_RUNTIME = Package("ONNX Runtime", ("onnxruntime",), "in Sightline's folder: pip install '.[onnx]'")
OPENCV = Package("OpenCV", ("cv2",), _AGAIN)
PYAV = Package("PyAV", ("av",), _AGAIN)
SERVICES = (
    Package("web page", ("starlette",), _WEB),
    Package("web server", ("uvicorn",), _WEB),
    Package("metrics", ("prometheus_client",), _WEB),
    Package("MQTT", ("paho.mqtt.client",), "in Sightline's folder: pip install '.[mqtt]'"),
)
"""What only the daemon's page and its messages need."""


@dataclass(frozen=True)
class Report:
    """All findings, and the backends that can run here."""

    backends: tuple[str, ...]
    findings: tuple[Finding, ...]

    def as_json(self) -> str:
        """`{"schema_version": 1, "backends": [...], "findings": [{part, state, found, fix}, ...]}`"""
        content = {
            "schema_version": 1,
            "backends": self.backends,
            "findings": [asdict(f) for f in self.findings],
        }
        return json.dumps(content, indent=2) + "\n"


@click.command()
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report to this file too.",
)
def doctor(json_file: Path | None) -> None:
    """Say what this machine can run, what is missing, and how to mend it.

    Ends with 0 when at least one backend can run and the shipped bundles are unchanged.
    """
    report = examine()
    _print(report)
    if json_file:
        write_text(json_file, report.as_json())
    judge(report)


def examine(root: Path = Path("/")) -> Report:
    """Look at the machine. Every package is imported, for an installed one may still be broken.

    Args:
        root: where the system's files are; another one in tests.
    """
    machine = this_machine(root)
    tflite, onnx, opencv, pyav = map(look_at, (LITERT, ONNX_RUNTIME, OPENCV, PYAV))
    tensorrt, gpu = look_at(tensorrt_package(machine)), look_at_gpu()
    works = {
        "tflite": tflite.state == "ok",
        "onnx": onnx.state == "ok",
        "tensorrt": tensorrt.state == gpu.state == "ok",
    }
    backends = tuple(name for name, ready in works.items() if ready)
    parts = (tflite, onnx, tensorrt, gpu, opencv, pyav, *map(look_at, SERVICES))
    device, bundles = look_at_device(machine, root), look_at_bundles(backends)
    return Report(backends, (*look_at_machine(machine), *parts, *device, *bundles))


def judge(report: Report) -> None:
    """Say no, with the fix, where nothing can run or a shipped bundle fails its checks.

    Raises:
        CheckFailed: exit code 1.
    """
    if not report.backends:
        raise CheckFailed(f"No backend can run on this machine. Install one, {ONNX_RUNTIME.fix}")
    for finding in report.findings:
        if finding.part.startswith("bundle ") and finding.state == "problem":
            raise CheckFailed(f"The {finding.part} fails its checks. {finding.fix}")


def look_at_machine(machine: Machine) -> Iterator[Finding]:
    """System, processor, memory, and on a Jetson its board and JetPack."""
    yield Finding("Sightline", "ok", _sightline())
    yield Finding("Python", "ok", f"{machine.python} ({sys.executable})")
    yield Finding(
        "system", "ok", f"{machine.os}, {machine.architecture}, {platform.system()} {platform.release()}"
    )
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
    yield Finding("processor", "ok", f"{machine.cpu}, {cores}, {machine.memory_gib} GiB")
    if machine.jetson:
        yield look_at_jetson(machine.jetson)


def look_at_jetson(jetson: Jetson) -> Finding:
    """The board, and whether its JetPack is one that Sightline supports."""
    jetpack = f"JetPack {jetson.jetpack or '(not in the table)'}"
    found = f"{jetson.model}, L4T {jetson.l4t}, {jetpack}" if jetson.l4t else jetson.model
    if jetson.supported:
        return Finding("Jetson", "ok", found)
    return Finding("Jetson", "problem", f"{found}: not supported", "Install JetPack 6.1 or newer.")


def tensorrt_package(machine: Machine) -> Package:
    """TensorRT as this machine would get it: from JetPack on a Jetson, else NVIDIA's wheel."""
    modules = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
    fix = "in Sightline's folder: pip install '.[tensorrt-rtx]'"
    if machine.jetson:
        fix = "apt install python3-libnvinfer, and make the venv with --system-site-packages"
    elif machine.architecture != "x86_64":
        fix = "only on a Jetson or an x86_64 machine with an NVIDIA GPU"
    return Package("TensorRT", modules, fix)


def look_at(package: Package) -> Finding:
    """Import it: absent, broken (what the import said), or its name and version."""
    for name in package.modules:
        top = name.partition(".")[0]
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and error.name.partition(".")[0] == top:
                continue
            return Finding(package.part, "problem", f"{name}: {error}", package.fix)
        # A wheel made for another NumPy or C library fails in many ways, not with ImportError alone.
        except Exception as error:
            return Finding(package.part, "problem", f"{name}: {error}", package.fix)
        return Finding(package.part, "ok", f"{top} {_version(top, module)}")
    return Finding(package.part, "absent", "not installed", package.fix)


def look_at_gpu() -> Finding:
    """The NVIDIA GPU as cuda-python sees it, or why it sees none."""
    from edge.runners import cuda

    try:
        return Finding("GPU", "ok", str(cuda.probe()))
    except MissingPackageError as error:
        return Finding("GPU", "problem", "a GPU is there, cuda-python is not", str(error))
    except SightlineError as error:
        return Finding("GPU", "absent", str(error))


def look_at_bundles(backends: tuple[str, ...]) -> Iterator[Finding]:
    """Each shipped bundle: do its hashes hold, and do its golden vectors come out right here?"""
    for name in shipped():
        try:
            yield Finding(f"bundle {name}", "ok", look_at_bundle(name, backends))
        except SightlineError as error:
            yield Finding(f"bundle {name}", "problem", str(error), "Install Sightline anew.")


def look_at_bundle(name: str, backends: tuple[str, ...]) -> str:
    """What holds of a shipped bundle.

    Raises:
        SightlineError: a changed file, or an output that is not the golden one.
    """
    from edge.golden import check

    bundle = Bundle.open(name)
    bundle.verify()
    artefacts = bundle.manifest.artefacts
    steps = {
        f"{a.format} {a.precision}": check(bundle, a.format, a.precision)
        for a in artefacts
        if a.format in backends
    }
    golden = ", ".join(f"{artefact} within {worst:.2f} steps" for artefact, worst in steps.items())
    return f"{len(artefacts)} artefacts unchanged; golden vectors: {golden or 'no backend to run them'}"


def _version(top: str, module: object) -> str:
    distributions = _distributions().get(top)
    if distributions:
        return importlib.metadata.version(distributions[0])
    return str(getattr(module, "__version__", "of unknown version"))


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Import name -> distributions; it reads the file list of everything installed, so once."""
    return importlib.metadata.packages_distributions()


def _sightline() -> str:
    try:
        return importlib.metadata.version("sightline")
    except importlib.metadata.PackageNotFoundError:
        return "a checkout that is not installed"


def _print(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    from edge.console import open_console

    table = Table("part", "state", "found", box=None, pad_edge=False)
    for finding in report.findings:
        # Text, not markup: rich would take the extra of '.[onnx]' for a style and swallow it.
        found = Text("\n".join(filter(None, (finding.found, finding.fix and f"-> {finding.fix}"))))
        table.add_row(finding.part, Text(finding.state, COLOUR[finding.state]), found)
    console = open_console(highlight=False)
    console.print(table)
    console.print(f"\nbackends that run here: {', '.join(report.backends) or 'none'}")
