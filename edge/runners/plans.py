"""TensorRT plans beside a bundle: which file is whose, and when one may be loaded.

A plan runs only with the very TensorRT that built it, on the same kind of GPU, and TensorRT says little
when it does not. So a file of ours begins with a header that states all it depends on; it is compared
with this machine before TensorRT sees a byte. The name holds a key of the same facts.

    sightline plan 1
    {"onnx_sha256": ..., "version": "10.3.0", "gpu": "Orin", ..., "plan_sha256": ...}
    the plan's bytes
"""

from __future__ import annotations

import hashlib
import importlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edge.bundle import Artefact, Bundle, Precision, Sha256
from edge.errors import BundleChanged, InputError, MissingPackageError, SightlineError
from edge.machine import this_machine
from edge.runners.cuda import Device, probe

Flavour = Literal["tensorrt", "tensorrt_rtx"]

MODULES: tuple[tuple[str, Flavour], ...] = (
    ("tensorrt", "tensorrt"),
    ("tensorrt_rtx", "tensorrt_rtx"),
    ("tensorrt_rtx_bindings", "tensorrt_rtx"),
)
"""Where TensorRT may be found, best first. The RTX edition's bindings also come without frontend."""

NO_DEVICE = "no GPU"
"""In a plan's header: it was built ahead of time, on a machine without a GPU."""

MAGIC = b"sightline plan 1\n"
HEADER_BYTES = 1 << 16
"""No header is longer."""


@dataclass(frozen=True)
class Toolkit:
    """The TensorRT of this machine: its Python module, edition and version."""

    module: Any
    flavour: Flavour
    version: str

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.flavour == 'tensorrt_rtx' else 'TensorRT'} {self.version}"


class Identity(BaseModel):
    """All that a plan depends on.

    Attributes:
        onnx_sha256: of the ONNX file it is built from.
        gpu, compute_capability: as CUDA tells them; `no GPU` and empty where it is built ahead of time.
        dla: the deep learning accelerator that runs a part of it; ours run on the GPU alone.
        jetpack: with its L4T, `6.2 (L4T 36.4.3)`; empty on other machines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    onnx_sha256: Sha256
    precision: Precision
    flavour: Flavour
    version: str
    gpu: str
    compute_capability: str
    dla: Literal["none"] = "none"
    jetpack: str

    @classmethod
    def here(cls, artefact: Artefact, toolkit: Toolkit, device: Device | None) -> Identity:
        """That of an ONNX artefact's plan on this machine."""
        return cls(
            onnx_sha256=artefact.sha256,
            precision=artefact.precision,
            flavour=toolkit.flavour,
            version=toolkit.version,
            gpu=device.name if device else NO_DEVICE,
            compute_capability=device.compute_capability if device else "",
            jetpack=_jetpack(),
        )

    def differences(self, here: Identity) -> str:
        """What another identity has otherwise, in words; empty where they are the same."""
        return "; ".join(
            f"{name} {_short(field, getattr(self, field))}, not {_short(field, getattr(here, field))}"
            for field, name in FACTS.items()
            if getattr(self, field) != getattr(here, field)
        )


FACTS = {
    "onnx_sha256": "the ONNX file",
    "precision": "precision",
    "flavour": "the edition",
    "version": "TensorRT",
    "gpu": "the GPU",
    "compute_capability": "compute capability",
    "dla": "the DLA",
    "jetpack": "JetPack",
}
"""What the fields of an identity are called in messages."""


class PlanHeader(Identity):
    """What stands before a plan's bytes.

    Attributes:
        plan_sha256: of the plan's own bytes.
        build_seconds: of NVIDIA's builder alone.
        built: date and time, UTC, ISO 8601; for display.
    """

    plan_sha256: Sha256
    build_seconds: float
    built: str

    @property
    def identity(self) -> Identity:
        """What it was built for."""
        return Identity.model_validate(self.model_dump(include=set(Identity.model_fields)))


class NoPlan(InputError):
    """There is no plan for this machine; `reason` says so without the way to build one."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} {fix}")
        self.reason = reason


class PlanUnusable(BundleChanged):
    """The plan's file is damaged or another machine's; `reason` says so without the way to build one."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} Nothing was loaded. {fix}")
        self.reason = reason


def find_toolkit() -> Toolkit:
    """The TensorRT to use: NVIDIA's full one where there is one, else the RTX edition.

    Raises:
        MissingPackageError: neither is installed.
    """
    for name, flavour in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return Toolkit(module, flavour, str(module.__version__))
    raise _no_toolkit()


def plan_path(bundle: Bundle, artefact: Artefact, toolkit: Toolkit, device: Device | None) -> Path:
    """Where the plan of an ONNX artefact lies, for this TensorRT on this device (None: no GPU)."""
    identity = Identity.here(artefact, toolkit, device)
    key = hashlib.sha256(identity.model_dump_json().encode()).hexdigest()[:16]
    return bundle.folder / "plans" / f"model.{artefact.precision}.{key}.plan"


def usable_plan(bundle: Bundle) -> bool:
    """Whether a plan for this TensorRT and this device lies in the bundle; never raises."""
    if not any((bundle.folder / "plans").glob("*.plan")):
        return False
    try:
        toolkit, device = find_toolkit(), probe()
    except SightlineError:
        return False
    artefacts = [a for a in bundle.manifest.artefacts if a.format == "onnx"]
    headers = (_header(plan_path(bundle, artefact, toolkit, device)) for artefact in artefacts)
    here = [Identity.here(artefact, toolkit, device) for artefact in artefacts]
    return any(header is not None and header.identity in here for header in headers)


def packed(header: PlanHeader, plan: bytes) -> bytes:
    """The content of a plan's file."""
    return MAGIC + header.model_dump_json().encode() + b"\n" + plan


def unpacked(content: bytes) -> tuple[PlanHeader, bytes]:
    """Header and plan of a file's content; the plan is not looked at.

    Raises:
        ValueError: it does not begin with a header of ours.
    """
    if not content.startswith(MAGIC):
        raise ValueError("it does not begin as a plan of Sightline's does")
    end = content.find(b"\n", len(MAGIC), len(MAGIC) + HEADER_BYTES)
    if end < 0:
        raise ValueError("its header has no end")
    return PlanHeader.model_validate_json(content[len(MAGIC) : end]), content[end + 1 :]


def read_plan(bundle: Bundle, precision: Precision, toolkit: Toolkit, device: Device | None) -> bytes:
    """The plan for this TensorRT and device, after its header and its hash were found right.

    Raises:
        NoPlan: none was built here. PlanUnusable: it is damaged, or another machine's.
    """
    artefact = bundle.artefact("onnx", precision)
    path = plan_path(bundle, artefact, toolkit, device)
    fix = f"Build it on this device: sightline build {bundle.folder} --precision {precision}"
    try:
        header, plan = unpacked(path.read_bytes())
    except FileNotFoundError as error:
        raise NoPlan(_no_plan(bundle, artefact, toolkit, device), fix) from error
    except OSError as error:
        raise NoPlan(f"{path} cannot be read: {error.strerror}.", fix) from error
    except ValueError as error:
        raise PlanUnusable(f"{path} was changed or swapped: its header cannot be read.", fix) from error
    if other := header.identity.differences(Identity.here(artefact, toolkit, device)):
        raise PlanUnusable(f"{path} was changed or swapped: it was built for {other}.", fix)
    if hashlib.sha256(plan).hexdigest() != header.plan_sha256:
        raise PlanUnusable(f"{path} was changed or swapped: its bytes are not those that were built.", fix)
    return plan


def headers(bundle: Bundle, precision: Precision) -> list[PlanHeader]:
    """Those of all plans of this precision in the bundle, the newest first; what is damaged is left out."""
    found = map(_header, (bundle.folder / "plans").glob(f"model.{precision}.*.plan"))
    return sorted((header for header in found if header), key=lambda header: header.built, reverse=True)


def _header(path: Path) -> PlanHeader | None:
    try:
        with open(path, "rb") as stream:
            return unpacked(stream.read(len(MAGIC) + HEADER_BYTES))[0]
    except (OSError, ValueError):
        return None


def _no_plan(bundle: Bundle, artefact: Artefact, toolkit: Toolkit, device: Device | None) -> str:
    here = Identity.here(artefact, toolkit, device)
    others = [header.identity.differences(here) for header in headers(bundle, artefact.precision)]
    seen = f" There is one for {others[0]}." if others else ""
    return f"{bundle.folder} holds no {artefact.precision} plan for {toolkit} on {device or NO_DEVICE}.{seen}"


def _jetpack() -> str:
    jetson = this_machine().jetson
    return f"{jetson.jetpack or 'unknown'} (L4T {jetson.l4t or 'unknown'})" if jetson else ""


def _short(field: str, value: str) -> str:
    """A hash by its first digits; what is empty as a word."""
    return (value[:12] if field.endswith("sha256") else value) or "none"


def _no_toolkit() -> MissingPackageError | InputError:
    if platform.machine() == "x86_64":
        return MissingPackageError("tensorrt-rtx", "tensorrt-rtx", "The tensorrt backend")
    return InputError(
        "The tensorrt backend needs the Python module 'tensorrt', which was not found. On a Jetson it "
        "comes with JetPack: sudo apt install python3-libnvinfer, and make the virtual environment "
        "with --system-site-packages."
    )
