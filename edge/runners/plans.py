"""TensorRT plans beside a bundle: which file is whose, and when one may be loaded.

A plan runs only with the very TensorRT that built it, on the same kind of GPU. So its name is a
key of all of these, and a card (JSON) beside it says so in words, with the plan's own SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.bundle import Artefact, Bundle, Precision, Sha256
from edge.errors import BundleChanged, InputError, MissingPackageError
from edge.runners.cuda import Device, probe

Flavour = Literal["tensorrt", "tensorrt_rtx"]

MODULES: tuple[tuple[str, Flavour], ...] = (
    ("tensorrt", "tensorrt"),
    ("tensorrt_rtx", "tensorrt_rtx"),
    ("tensorrt_rtx_bindings", "tensorrt_rtx"),
)
"""Where TensorRT may be found, best first. The RTX edition's bindings also come without frontend."""

NO_DEVICE = "no GPU"
"""In a plan's card: it was built ahead of time, on a machine without a GPU."""


@dataclass(frozen=True)
class Toolkit:
    """The TensorRT of this machine: its Python module, edition and version."""

    module: Any
    flavour: Flavour
    version: str

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.flavour == 'tensorrt_rtx' else 'TensorRT'} {self.version}"


class PlanCard(BaseModel):
    """What stands beside a plan, as `<name>.json`.

    Attributes:
        onnx_sha256: of the ONNX file it was built from.
        plan_sha256: of the plan's own bytes.
        device: name and compute capability, or `no GPU`.
        build_seconds: of NVIDIA's builder alone.
        built: date and time, UTC, ISO 8601; for display.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    onnx_sha256: Sha256
    plan_sha256: Sha256
    flavour: Flavour
    version: str
    device: str
    build_seconds: float
    built: str


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
    parts = (artefact.sha256, toolkit.flavour, toolkit.version, str(device or NO_DEVICE))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return bundle.folder / "plans" / f"model.{artefact.precision}.{key}.plan"


def usable_plan(bundle: Bundle) -> bool:
    """Whether a plan for this TensorRT and this device lies in the bundle; never raises."""
    if not any((bundle.folder / "plans").glob("*.plan")):
        return False
    try:
        toolkit, device = find_toolkit(), probe()
    except InputError:
        return False
    artefacts = (a for a in bundle.manifest.artefacts if a.format == "onnx")
    return any(plan_path(bundle, a, toolkit, device).is_file() for a in artefacts)


def read_plan(bundle: Bundle, precision: Precision, toolkit: Toolkit, device: Device) -> bytes:
    """The plan for this TensorRT and device, after its hashes were found right.

    Raises:
        InputError: none was built here. BundleChanged: it is not what its card or the manifest says.
    """
    artefact = bundle.artefact("onnx", precision)
    path = plan_path(bundle, artefact, toolkit, device)
    try:
        content = path.read_bytes()
        card = PlanCard.model_validate_json(path.with_suffix(".json").read_bytes())
    except FileNotFoundError as error:
        raise InputError(_no_plan(bundle, artefact, toolkit, device)) from error
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} or its card cannot be read. {_build(bundle, precision)}") from error
    found = (card.onnx_sha256, card.plan_sha256, card.flavour, card.version, card.device)
    plan_sha256 = hashlib.sha256(content).hexdigest()
    if found != (artefact.sha256, plan_sha256, toolkit.flavour, toolkit.version, str(device)):
        raise BundleChanged(
            f"{path} is not the plan that its card, the manifest and this machine ask for: it was "
            f"changed or swapped. Nothing was loaded. {_build(bundle, precision)}"
        )
    return content


def _no_plan(bundle: Bundle, artefact: Artefact, toolkit: Toolkit, device: Device) -> str:
    others = sorted({f"{card.version} on {card.device}" for card in _cards(bundle, artefact.precision)})
    seen = f" There are plans for {'; '.join(others)}, which another TensorRT or GPU built." if others else ""
    return (
        f"{bundle.folder} holds no {artefact.precision} plan for {toolkit} on {device}.{seen} "
        f"{_build(bundle, artefact.precision)}"
    )


def _cards(bundle: Bundle, precision: str) -> list[PlanCard]:
    cards = []
    for path in (bundle.folder / "plans").glob(f"model.{precision}.*.json"):
        try:
            cards.append(PlanCard.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return cards


def _build(bundle: Bundle, precision: str) -> str:
    return f"Build it on this device: sightline build {bundle.folder} --precision {precision}"


def _no_toolkit() -> MissingPackageError | InputError:
    if platform.machine() == "x86_64":
        return MissingPackageError("tensorrt-rtx", "tensorrt-rtx", "The tensorrt backend")
    return InputError(
        "The tensorrt backend needs the Python module 'tensorrt', which was not found. On a Jetson it "
        "comes with JetPack: sudo apt install python3-libnvinfer, and make the virtual environment "
        "with --system-site-packages."
    )
