"""What each task brings to an export: its pictures, its heads, and how an artefact is measured on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from calibration.samples import By, Samples
from edge.bundle import Bundle, Metrics, OutputSpec, TaskName
from edge.pixels import Image
from edge.tables import resolve
from export.golden import Tolerance
from train.card import Card

Advance = Callable[[int], None]
"""Told how many pictures went through one more model."""


@dataclass(frozen=True)
class Judge:
    """Tells what int8 costs before the proof, on training images that were not calibrated on.

    Attributes:
        images: how many.
        drop: of a simulation, as `calibration.simulate` builds it: the loss of the task's metric, in points.
    """

    images: int
    drop: Callable[[Any], float]


METRIC_NAMES = {"top1": "top-1", "ap50": "AP50"}


class Proof(Protocol):
    """The real pictures of one export, of one task."""

    @property
    def samples(self) -> Samples:
        """Images to calibrate on, from the training split."""

    def __len__(self) -> int:
        """How many images prove the artefacts."""

    def outputs(self, model: Any) -> tuple[OutputSpec, ...]:
        """The manifest's heads of a Keras model; raises InputError where they are not the task's."""

    def golden_inputs(self) -> Image:
        """uint8 (n, H, W, 3): pictures that may be given away with the bundle."""

    @property
    def tolerance(self) -> Tolerance:
        """Of the golden vectors."""

    @property
    def can_judge(self) -> bool:
        """Whether training images are left that were not calibrated on."""

    def judge(self, model: Any) -> Judge | None:
        """Of this float model; None where it cannot."""

    def measure(self, model: Any, bundle: Bundle, advance: Advance) -> tuple[Metrics, ...]:
        """Each artefact of the bundle's manifest against the Keras model, on the same images."""


PROOFS: dict[TaskName, str] = {
    "classification": "export.classification:Classification",
    "faces": "export.faces:FaceDetection",
}


@dataclass(frozen=True)
class Share:
    """What of a data set an export takes.

    Attributes:
        samples: training images to calibrate on; sample: how they are chosen.
        limit: test images to prove on; None for all.
        skip_corrupt: of a classifier's, leave out what cannot be decoded, see `train.data.load`.
    """

    samples: int
    limit: int | None = None
    sample: By = "balanced"
    skip_corrupt: bool = False


def open_proof(data: str, card: Card, share: Share) -> Proof:
    """The proof of a card's task.

    Raises:
        InputError: the data are missing, or not those of the model.
    """
    proof: Proof = resolve(PROOFS[card.task]).load(data, card, share)
    return proof
