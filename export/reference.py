"""What an export's artefacts are compared with: the float model that the user had before any int8.

For most models that is the exported model itself. Quantization-aware training changes the weights, so the float
weights that it leaves would hide what it cost: its card names the file that it started from, and that one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.plan import Plan
from edge.bundle import Reference
from edge.files import sha256
from train.card import Card, QatStart
from train.weights import in_float32, load_network

ITSELF = "the exported model itself, in float"


@dataclass(frozen=True)
class Compared:
    """A float Keras model, and what the manifest says of it."""

    model: Any
    reference: Reference


def compared_with(path: Path, model: Any, card: Card, plan: Plan | None) -> Compared:
    """The float model to compare with.

    Args:
        path: of the exported `.keras` file; model: what it holds, as it is exported.
        plan: that is followed, where one is: it tells of a training whose card was lost.
    """
    trained = card.qat_start is not None or (plan is not None and plan.settings.qat)
    if not trained:
        return Compared(model, Reference(kind="itself", words=ITSELF, sha256=sha256(path)))
    found = _found(path, card.qat_start)
    if isinstance(found, str):
        words = (
            "its own float weights, which quantization-aware training has changed, not the model that the training "
            f"started from: {found}. What int8 costs against that one is not seen here"
        )
        return Compared(model, Reference(kind="trained", words=words, sha256=sha256(path)))
    words = f"{found.name}, the float model that quantization-aware training started from"
    return Compared(
        in_float32(load_network(found)), Reference(kind="origin", words=words, sha256=sha256(found))
    )


def _found(path: Path, start: QatStart | None) -> Path | str:
    """The file that the training started from, where the card has it or beside the model; else why there is none."""
    if start is None:
        return f"{path.name} has no card that names it"
    here = [p for p in (path.parent / start.path, path.parent / Path(start.path).name) if p.is_file()]
    if not here:
        return f"{start.path} (SHA-256 {start.sha256[:12]}…) is not there; put it back, or beside {path.name}"
    same = next((p for p in here if sha256(p) == start.sha256), None)
    return same or f"{start.path} is another file than the training started from, its SHA-256 differs"
