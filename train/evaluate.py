"""What is measured, a Keras model or a bundle as a device runs it (without TensorFlow), and top-1 accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, InputSpec, TaskName
from edge.errors import InputError
from edge.pixels import Image, normalise
from train.data import LabelledImages

if TYPE_CHECKING:
    import keras

    from edge.model import Model
    from train.card import Card

Advance = Callable[[int], object]
"""Told after each part how many images were done, for a progress bar."""

BATCH = 500
"""Pictures that a Keras model sees at once."""

Z_95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


@dataclass(frozen=True)
class Subject:
    """A model that is ready to be measured.

    Attributes:
        model: a Keras model, or an opened bundle.
        backend: `keras`, or the one that runs the bundle; precision: `fp32`, `fp16` or `int8`.
    """

    name: str
    task: TaskName
    labels: tuple[str, ...]
    input: InputSpec
    backend: str
    precision: str
    model: Any

    def close(self) -> None:
        """Free the memory of a bundle's runner."""
        if self.backend != "keras":
            self.model.close()


def open_subject(model: str, backend: str = "auto", precision: str = "auto") -> Subject:
    """Load a Keras file with its card, or a bundle by its folder or shipped name.

    Raises:
        InputError: it is missing or damaged, or does not run on that backend in that precision.
        BundleChanged: a file of the bundle has another hash than the manifest says.
    """
    path = Path(model)
    if path.suffix == ".keras" or path.is_file() or (path / "saved_model.pb").is_file():
        return _keras_subject(path, backend, precision)
    from edge.model import Model

    opened = Model.open(Bundle.open(model), backend, precision)
    about = opened.manifest
    return Subject(
        about.name, about.task, about.labels, about.input, opened.backend, opened.precision, opened
    )


def _keras_subject(path: Path, backend: str, precision: str) -> Subject:
    from train.card import read_card
    from train.weights import load_network

    if backend not in ("auto", "keras") or precision not in ("auto", "fp32"):
        raise InputError(
            f"{path} is a Keras model, which runs on the backend keras in fp32, not on {backend} "
            f"{precision}. Give a bundle: `sightline export` makes one."
        )
    model, card = load_network(path), read_card(path)
    _check_card(path, model, card)
    return Subject(card.name, card.task, card.labels, card.input, "keras", "fp32", model)


def _check_card(path: Path, model: keras.Model, card: Card) -> None:
    """A card may be written by hand: raises InputError where the network takes or gives something else."""
    takes = [tuple(tensor.shape)[1:] for tensor in model.inputs]
    gives = [tuple(tensor.shape)[1:] for tensor in model.outputs]
    picture, classes = (card.input.height, card.input.width, 3), len(card.labels)
    if len(takes) != 1 or not _may_be(takes[0], picture):
        raise InputError(
            f"{path} takes {_shapes(takes)}; its card says pictures of {picture}. Mend the one or the other."
        )
    if card.task == "classification" and gives != [(classes,)]:
        raise InputError(
            f"{path} gives {_shapes(gives)}; its card names {classes} classes, which are one output ({classes},). "
            "Mend the one or the other."
        )


def _may_be(shape: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    """None is any size."""
    return len(shape) == len(wanted) and all(
        found in (None, size) for found, size in zip(shape, wanted, strict=True)
    )


def _shapes(shapes: list[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))


@dataclass(frozen=True)
class Top1:
    """`right` of `n` images named correctly."""

    right: int
    n: int

    @property
    def per_cent(self) -> float:
        return 100 * self.right / self.n

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval in per cent: Wilson 1927, doi 10.1080/01621459.1927.10502953."""
        p, n, zz = self.right / self.n, self.n, Z_95 * Z_95
        centre = (p + zz / (2 * n)) / (1 + zz / n)
        half = Z_95 / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
        return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)

    def as_json(self) -> dict[str, Any]:
        """The fields of `evaluate --json` that are the same for every model."""
        return {"metric": "top1", "value": self.per_cent, "n": self.n, "ci95": list(self.ci95)}


def keras_outputs(model: keras.Model, images: Image, advance: Advance | None = None) -> NDArray[np.float32]:
    """What a network with one output makes of the pictures.

    Args:
        model: float32 (N, H, W, 3) in [-1, 127/128] to (N, ...).
        images: uint8 (N, H, W, 3) RGB.
        advance: told of the pictures that are done.

    Returns:
        float32 (N, ...).
    """
    import keras

    parts = []
    for start in range(0, len(images), BATCH):
        (seen,) = keras.tree.flatten(model(normalise(images[start : start + BATCH]), training=False))
        parts.append(np.asarray(keras.ops.convert_to_numpy(seen), np.float32))
        if advance:
            advance(len(parts[-1]))
    return np.concatenate(parts)


def keras_top1(model: keras.Model, data: LabelledImages, advance: Advance | None = None) -> Top1:
    """Accuracy of a model that takes float32 (N, H, W, 3) in [-1, 127/128] and gives logits."""
    logits = keras_outputs(model, data.images, advance)
    return Top1(int((logits.argmax(axis=1) == data.labels).sum()), len(data))


def bundle_top1(model: Model, data: LabelledImages, advance: Advance | None = None) -> Top1:
    """Accuracy of an opened bundle, image by image as on a device."""
    right = 0
    for picture, label in zip(data.images, data.labels, strict=True):
        result = model.decode(model.infer(model.prepare(picture)), picture)
        right += result.index == int(label)
        if advance:
            advance(1)
    return Top1(right, len(data))


def check_labels(data: LabelledImages, labels: tuple[str, ...], model: str) -> None:
    """Raises InputError unless the data's classes are the model's labels, in the same order."""
    if data.class_names == labels:
        return
    if len(data.class_names) != len(labels):
        raise InputError(
            f"{data.source} has {len(data.class_names)} classes, {model} has {len(labels)}: "
            f"{shortened(data.class_names)} against {shortened(labels)}. "
            "Take the data set it was made for."
        )
    at = int(np.argmax([a != b for a, b in zip(data.class_names, labels, strict=True)]))
    raise InputError(
        f"{data.source} and {model} disagree on class {at}: '{data.class_names[at]}' against '{labels[at]}'. "
        "Take the data set it was made for, or name the class folders as its labels."
    )


def shortened(names: tuple[str, ...]) -> str:
    """The first three of some names, for a message."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


@contextmanager
def evaluation_progress(name: str, images: int) -> Iterator[Advance]:
    """A progress bar on a terminal, nothing elsewhere; gives the function that moves it on."""
    from rich.progress import Progress

    from edge.console import open_console

    console = open_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=images)
        yield lambda done: progress.advance(task, done)
