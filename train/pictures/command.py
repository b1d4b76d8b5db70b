"""`--report` of `evaluate` and `train`: finds what a report needs, and says early what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, MissingPackageError
from edge.files import sha256
from edge.pixels import Image, fit
from train.card import Card, read_card
from train.data import LabelledImages, read_image
from train.ensemble import Member
from train.evaluate import Subject
from train.pictures.evidence import Evidence
from train.pictures.report import check_report, folder_of, write_report

if TYPE_CHECKING:
    import keras

MODEL_FOLDERS = (Path("models"), Path("build/models"))
"""Where the Keras model of a bundle is looked for, under the bundle's name."""


@dataclass(frozen=True)
class ReportOptions:
    """`path` of the page, None where none is wanted; `image` the file that the layers are shown for."""

    path: Path | None
    image: Path | None = None

    def check(self) -> None:
        """Raises InputError or MissingPackageError where no report can come of it."""
        if self.image is not None and self.path is None:
            raise InputError(
                "--image: the picture that a report shows the layers for. Add --report FILE.html."
            )
        if self.path is not None:
            check_report(self.path)

    def refuse_for(self, subject: Subject) -> None:
        """Raises InputError where a report of a face detector was asked for."""
        if self.path is not None:
            raise InputError(f"--report: for classifiers only; {subject.name} is a face detector.")

    def reporter(self, subject: Subject, model: str) -> Reporter | None:
        """Find the Keras model and read the picture, before anything is measured; None without a report.

        Raises:
            InputError: the picture cannot be read, or there is no Keras model to show it to.
        """
        if self.path is None:
            return None
        behind = _behind(subject, model)
        if self.image is None:
            return Reporter(self.path, subject, behind, None, "")
        if behind.network is None:
            raise InputError(f"--image {self.image}: {behind.absent}")
        spec = subject.input
        picture = fit(read_image(self.image), spec.height, spec.width, spec.resize)
        return Reporter(self.path, subject, behind, picture, self.image.name)


@dataclass(frozen=True)
class Behind:
    """The Keras model behind a subject and its card; `absent` says why there is none."""

    network: keras.Model | None
    card: Card | None
    absent: str = ""


@dataclass(frozen=True)
class Reporter:
    """Writes the report of one subject.

    Attributes:
        picture: uint8 (H, W, 3) RGB that the layers are shown for; None for the first image of the data.
    """

    path: Path
    subject: Subject
    behind: Behind
    picture: Image | None
    picture_name: str

    def write(self, images: LabelledImages, answers: Member, remark: str = "") -> str:
        """Write page and pictures; what was written, in words. `remark` says of the images which they are."""
        subject, behind = self.subject, self.behind
        first = (images.images[0], f"image 0 of {images.source}")
        picture, name = first if self.picture is None else (self.picture, self.picture_name)
        evidence = Evidence(
            subject.name,
            f"{subject.backend} {subject.precision}",
            remark,
            subject.labels,
            images,
            answers,
            behind.card,
            behind.network,
            behind.absent,
            picture,
            name,
        )
        count = write_report(self.path, evidence)
        return f"{self.path} is written, and {count} pictures in {folder_of(self.path)}/."


def _behind(subject: Subject, model: str) -> Behind:
    if subject.backend == "keras":
        return Behind(subject.model, read_card(Path(model)))
    path, why = _keras_file(subject.model.manifest)
    if path is None:
        return Behind(None, None, why)
    from train.weights import load_network

    try:
        return Behind(load_network(path), read_card(path))
    except MissingPackageError as error:
        return Behind(None, None, f"Filters and layers are drawn from the Keras model {path}. {error}")


def _keras_file(manifest: Any) -> tuple[Path | None, str]:
    """The `.keras` file that a bundle was exported from, by its hash; or why there is none."""
    if manifest.calibration is None:
        return (
            None,
            "The bundle does not say which Keras model it was made from, so no filters or layers are shown.",
        )
    wanted = manifest.calibration.model_sha256
    for folder in MODEL_FOLDERS:
        path = folder / f"{manifest.name}.keras"
        if path.is_file() and sha256(path) == wanted:
            return path, ""
    looked = " and ".join(f"{folder}/{manifest.name}.keras" for folder in MODEL_FOLDERS)
    return None, (
        f"Filters and layers are drawn from the Keras model, which is not here: looked for {looked} with the "
        f"SHA-256 {wanted[:12]}… in the current folder."
    )


def report_of_training(path: Path, images: LabelledImages, network: Any, card: Card) -> str:
    """The report at the end of a training, on the images that its lesson is judged by."""
    subject = Subject(card.name, card.task, card.labels, card.input, "keras", "fp32", network)
    held_out = "validation_top1" in card.metrics
    kept, tested = " that were held out of the training", ": none were held out, so it is the test split"
    answers = Member.measured(subject, images)
    return Reporter(path, subject, Behind(network, card), None, "").write(
        images, answers, kept if held_out else tested
    )
