"""The model card: `<name>.card.json` beside `<name>.keras`, what it is and how it came to be."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from edge.bundle import InputSpec, Sha256, TaskName
from edge.errors import InputError
from edge.files import sha256, write_text
from edge.machine import parse_cpu, read_text

if TYPE_CHECKING:
    import keras

    from train.data import LabelledImages


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataCard(_Part):
    """The images trained on; `sha256` is that of their pixels and labels."""

    source: str
    n: int
    sha256: Sha256


class Machine(_Part):
    """Where it was trained. The weights repeat bit for bit only with the same cores and versions."""

    cpu: str
    architecture: str
    cores: int
    devices: tuple[str, ...]
    python: str
    backend: str
    packages: dict[str, str]


class QatStart(_Part):
    """The float model that a quantization-aware training started from.

    Attributes:
        path: of its file, from the folder of the model that the card describes; sha256: of that file.
    """

    path: str
    sha256: Sha256


class Origin(_Part):
    """The network that another one was trained on from, see `train.transfer`.

    Attributes:
        model: its file's name; model_sha256: the file's hash; labels, data: what it had learnt, where it had a card.
        strategy: how it was trained on; reason: why so.
        cut: the layer up to which it is unchanged; None where all was trained.
        terms: those of its training data, under which the new weights stand as well; None where none are known.
    """

    model: str
    model_sha256: Sha256
    labels: tuple[str, ...] | None = None
    data: DataCard | None = None
    strategy: str
    reason: str
    cut: str | None = None
    terms: str | None = None


class SeedRun(_Part):
    """One of several trainings of a recipe that differ in their seed alone.

    Attributes:
        metric: `test_top1` in per cent, or `test_ap50` from 0 to 1; value: of the float network.
        weights_sha256: of that run's weights.
    """

    seed: int
    metric: str
    value: float
    weights_sha256: Sha256 | None = None


class Card(_Part):
    """What is known of a `.keras` file.

    Name, labels and input are needed to use the model; a model that was not trained here needs a
    card with these alone. The others are its provenance.

    Attributes:
        task: what it is for; labels: one name a class, in the order of the logits.
        input: size and resize rule; the pixel convention is `edge.pixels.normalise`.
        recipe: all fields of the recipe; seed: the one it was trained with.
        command: trains the same model again.
        terms: of the training data: what a company must know before it ships the weights.
        origin: the network that it was trained on from, if any.
        seconds: of training, without the final evaluation.
        parameters, macs: weights, and multiply-accumulates for one picture.
        metrics: `test_top1` in per cent, of a detector `test_ap50` from 0 to 1, with `test_n` images and
            its 95 % interval `test_ci95_low`, `test_ci95_high`; the last epoch's `train_loss`,
            `train_top1`, and `validation_top1` or `validation_ap50` where images were held out.
        seeds: the runs of this recipe from several seeds, this one among them, see `sightline seeds`.
        history: what each epoch reported: `epoch` from 1, `loss`, `accuracy` from 0 to 1, and where images
            were held out `validation_top1` or `validation_ap50`; epochs before a `--resume` included.
        weights_sha256: of the weights' values, equal when a training is repeated.
        model_sha256: of the `.keras` file, which also holds the time of writing.
        qat_start: of a quantization-aware training, what it started from: what an export compares with.
    """

    name: str
    task: TaskName = "classification"
    labels: tuple[str, ...] = Field(min_length=1)
    input: InputSpec
    recipe: dict[str, Any] | None = None
    seed: int | None = None
    command: str | None = None
    data: DataCard | None = None
    terms: str | None = None
    origin: Origin | None = None
    machine: Machine | None = None
    seconds: float | None = None
    parameters: int | None = None
    macs: int | None = None
    metrics: dict[str, float] = {}
    seeds: tuple[SeedRun, ...] = ()
    history: tuple[dict[str, float], ...] | None = None
    weights_sha256: Sha256 | None = None
    model_sha256: Sha256 | None = None
    qat_start: QatStart | None = None

    @field_validator("labels")
    @classmethod
    def _has_something_to_tell_apart(cls, labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("task") == "classification" and len(labels) < 2:
            raise ValueError("a classifier has at least two")
        return labels


def card_path(model_path: Path) -> Path:
    """Where the card of a `.keras` file lies."""
    return model_path.with_suffix(".card.json")


def read_card(model_path: Path) -> Card:
    """The card beside a `.keras` file.

    Raises:
        InputError: it is missing, is no card, or was written for another file.
    """
    path = card_path(model_path)
    try:
        card = Card.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{model_path} has no card: {path} cannot be read ({error.strerror}). `sightline train` writes "
            "one; for a model made elsewhere write it by hand, with name, labels and input (height, width, "
            "resize)."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} is not a model card: {where}: {first['msg']}. Train the model anew."
        ) from error
    if card.model_sha256 is not None and card.model_sha256 != sha256(model_path):
        raise InputError(
            f"{path} was written for another file than {model_path}: the SHA-256 differs. "
            "Copy both together, or train the model anew."
        )
    return card


def card_if_any(model_path: Path) -> Card | None:
    """As `read_card`; None where the file has no card."""
    return read_card(model_path) if card_path(model_path).exists() else None


def write_card(card: Card, model_path: Path) -> None:
    """Write the card beside the model, whole or not at all."""
    write_text(card_path(model_path), card.model_dump_json(indent=2, exclude_none=True) + "\n")


def data_card(data: LabelledImages) -> DataCard:
    """The provenance of a training split."""
    return DataCard(source=data.source, n=len(data), sha256=data.sha256())


def weights_sha256(model: keras.Model) -> str:
    """The hash of all weights' values, in the model's order."""
    digest = hashlib.sha256()
    for values in model.get_weights():
        digest.update(values.tobytes())
    return digest.hexdigest()


def this_machine() -> Machine:
    """The machine and the versions that this process trains with."""
    import keras

    backend = keras.config.backend()
    return Machine(
        cpu=parse_cpu(read_text(Path("/proc/cpuinfo"))) or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        devices=tuple(keras.distribution.list_devices()),
        python=platform.python_version(),
        backend=backend,
        packages={name: importlib.import_module(name).__version__ for name in ("keras", backend, "numpy")},
    )
