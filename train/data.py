"""Labelled images, from three places: CIFAR-10's official folder, `DIR/<class>/*`, embedded digits.

Images are uint8 RGB throughout; normalisation is `edge.pixels.normalise`, applied by the batch.
Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, MissingPackageError, SourceError
from edge.pixels import Image, ResizeRule, fit
from edge.sources import IMAGE_SUFFIXES
from edge.sources.images import read_image as read_bgr
from train.cifar10 import read_cifar10
from train.memory import check_memory

CIFAR10_FOLDER = "cifar-10-batches-py"
SPLITS = ("train", "test")
NAMED = 5
"""So many pictures or classes a message names; of more it gives the number."""


@dataclass(frozen=True)
class LabelledImages:
    """One split of a classification data set, in memory.

    Attributes:
        images: uint8 (N, H, W, 3), RGB.
        labels: int64 (N,), indices into `class_names`.
        class_names: one name a class.
        source: what was read, for cards and reports ("cifar10/train").
        notes: what was mended or is missing, in words, such as pictures that were left out.
        names: of the images, by which a user finds them; empty where each is known by its place.

    Raises:
        InputError: the arrays do not fit each other, hold a value that is not a number, or a label
            has no class.
    """

    images: Image
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype.kind == "f" and not np.isfinite(self.images).all():
            broken = np.flatnonzero(~np.isfinite(self.images).reshape(len(self.images), -1).all(axis=1))
            raise InputError(
                f"{self.source}: {len(broken)} of {len(self)} images hold NaN or infinity, the first is image "
                f"{broken[0]}. Expected uint8 pixels; look at what made them."
            )
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise InputError(
                f"Expected uint8 images of shape (N, H, W, 3), got {self.images.dtype} {self.images.shape}."
            )
        if len(self.images) == 0 or len(self.images) != len(self.labels):
            raise InputError(f"{self.source}: {len(self.images)} images and {len(self.labels)} labels.")
        self._check_labels()

    def _check_labels(self) -> None:
        classes = len(self.class_names)
        if self.labels.dtype.kind not in "iu":
            raise InputError(f"{self.source}: expected whole numbers as labels, got {self.labels.dtype}.")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= classes))
        if len(wrong):
            raise InputError(
                f"{self.source}: {len(wrong)} of {len(self)} labels are outside 0 to {classes - 1}, the first is "
                f"{self.labels[wrong[0]]} of image {wrong[0]}. There are {classes} classes: do labels count from 1?"
            )

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        """The hash of pixels and labels, by which a card names its data."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """By which a user finds the image: its file below the data folder, or its place in the whole split."""
        return self.names[index] if self.names else f"number {index}"

    def take(self, indices: NDArray[np.integer[Any]], note: str) -> LabelledImages:
        """The images at `indices`, in that order."""
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            source=f"{self.source}{note}",
            names=tuple(map(self.name, np.arange(len(self))[indices])),
        )


def load(
    data: str,
    split: str,
    height: int = 32,
    width: int = 32,
    rule: ResizeRule = "crop",
    skip_corrupt: bool = False,
) -> LabelledImages:
    """Read one split.

    Args:
        data: `digits` (scikit-learn's, embedded), a folder that is or holds CIFAR-10's
            `cifar-10-batches-py`, or a folder of class folders.
        split: `train` or `test`.
        height, width, rule: how pictures that have another size are brought to the model's.
        skip_corrupt: leave out the pictures that cannot be decoded, and say so in `notes`.

    Raises:
        InputError: the folder is missing, empty or of another shape, pictures cannot be decoded, or they
            do not fit into the memory.
    """
    return _sized(_held(data, split), height, width, rule, skip_corrupt)


@dataclass(frozen=True)
class Split:
    """One split whose pictures are read when they are taken: the others need no memory.

    Attributes:
        labels, class_names, source, notes: as those of `LabelledImages`.
        take: as its method; raises InputError where one of them cannot be decoded.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str
    notes: tuple[str, ...]
    take: Callable[[NDArray[np.integer[Any]], str], LabelledImages]

    def __len__(self) -> int:
        return len(self.labels)


def open_split(
    data: str, split: str, height: int, width: int, rule: ResizeRule = "crop", skip_corrupt: bool = False
) -> Split:
    """As `load`, of which pictures are read when they are taken. To leave out broken ones, all are decoded once."""
    held = _held(data, split)
    if isinstance(held, _ImageFiles):
        held = _readable(held, lambda picture: None, True) if skip_corrupt else held
        held = replace(held, notes=held.told)

    def take(indices: NDArray[np.integer[Any]], note: str) -> LabelledImages:
        return _sized(held.take(indices, note), height, width, rule, False)

    return Split(np.asarray(held.labels, np.int64), held.class_names, held.source, held.notes, take)


def _sized(
    images: LabelledImages | _ImageFiles, height: int, width: int, rule: ResizeRule, skip_corrupt: bool
) -> LabelledImages:
    if isinstance(images, LabelledImages) and images.images.shape[1:3] == (height, width):
        return images
    check_memory(
        len(images.labels) * height * width * 3,
        f"{len(images.labels)} pictures of {height}x{width}",
        "Lower height and width, or take fewer pictures.",
    )
    if isinstance(images, _ImageFiles):
        return _decoded(images, height, width, rule, skip_corrupt)
    fitted = np.empty((len(images.labels), height, width, 3), np.uint8)
    for place, picture in zip(fitted, images.images, strict=True):
        place[:] = fit(picture, height, width, rule)
    return replace(images, images=fitted)


def check_classes(data: LabelledImages, fix: str = "Add pictures, or remove the class") -> None:
    """Raises InputError, which ends with the `fix`, where a class has no image to learn from."""
    if missing := _missing(tuple(data.labels), data.class_names):
        raise InputError(f"{data.source}: {missing}. {fix}.")


def _missing(labels: tuple[int, ...], class_names: tuple[str, ...]) -> str:
    """Which classes have no image, in words; empty where each has one."""
    missing = np.setdiff1d(np.arange(len(class_names)), labels)
    names = ", ".join(class_names[label] for label in missing[:NAMED])
    return f"no image of {names}, {len(missing)} of {len(class_names)} classes" if names else ""


def tell_notes(source: str, notes: Iterable[str]) -> None:
    """Say on stderr what was mended in the pictures of `source`, and which classes have none."""
    for note in notes:
        click.echo(f"{source}: {note}", err=True)


def pick(
    data: LabelledImages | Split, count: int, seed: int = 0, in_proportion: bool = False
) -> NDArray[np.int64]:
    """`count` indices, as many or (`in_proportion`) as large a part of each class, the same for a seed, ascending."""
    order = np.random.default_rng(seed).permutation(len(data))
    rank = np.empty(len(data))
    for label in np.unique(data.labels):
        members = order[data.labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / (len(members) if in_proportion else 1)
    chosen = order[np.argsort(rank[order], kind="stable")][:count]
    return np.sort(chosen)


def few(data: LabelledImages, limit: int | None) -> LabelledImages:
    """That many of the images, spread over the classes; all of them without a limit, or with fewer of them."""
    return data.take(pick(data, limit), f" {limit} of {len(data)}") if limit and limit < len(data) else data


@dataclass(frozen=True)
class _ImageFiles:
    """Pictures not yet read: they are resized one by one, since their sizes differ."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, with the classes that have none of these pictures."""
        return (*self.notes, *filter(None, (_missing(self.labels, self.class_names),)))

    def take(self, indices: NDArray[np.integer[Any]], note: str) -> _ImageFiles:
        """Those at `indices`, in that order."""
        paths, labels = zip(*((self.paths[i], self.labels[i]) for i in indices), strict=True)
        return replace(self, paths=paths, labels=labels, source=f"{self.source}{note}")


def _held(data: str, split: str) -> LabelledImages | _ImageFiles:
    """What a split holds, pictures in files not yet read."""
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}'; there are {', '.join(SPLITS)}.")
    if data == "digits":
        return _digits(split)
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(
            f"No data folder {folder}. Expected one that holds {CIFAR10_FOLDER}/ or <class>/* folders, "
            "or the word 'digits'."
        )
    for candidate in (folder, folder / CIFAR10_FOLDER):
        if (candidate / "batches.meta").is_file() or (candidate / "data_batch_1").is_file():
            return LabelledImages(*read_cifar10(candidate, split), f"cifar10/{split}")
    return _class_folders(folder, split)


# -- scikit-learn's digits ------------------------------------------------------------------------


def _digits(split: str) -> LabelledImages:
    """1,797 handwritten digits, 8x8 grey values 0..16; every fifth image is the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "train", "The embedded digits data set") from error
    digits = load_digits()
    held_out = np.arange(len(digits.target)) % 5 == 0
    chosen = held_out if split == "test" else ~held_out
    grey = (digits.images[chosen] * (255 / 16)).round().astype(np.uint8)
    return LabelledImages(
        np.repeat(grey[..., None], 3, axis=3),
        digits.target[chosen].astype(np.int64),
        tuple(str(name) for name in digits.target_names),
        f"digits/{split}",
    )


# -- a folder of class folders --------------------------------------------------------------------


def _class_folders(folder: Path, split: str) -> _ImageFiles:
    """`DIR/train/<class>/*` and `DIR/test/<class>/*` where they exist, else a fifth held out by name."""
    separate = all((folder / name).is_dir() for name in SPLITS)
    root = folder / split if separate else folder
    class_names = _class_names(root)
    differing = set(_class_names(folder / "train")) ^ set(_class_names(folder / "test")) if separate else ()
    if differing:
        raise InputError(
            f"The class folders of {folder}/train and {folder}/test differ: {', '.join(sorted(differing))}."
        )
    if not separate and "train" in {name.lower() for name in class_names}:
        raise InputError(
            f"{folder} holds the folders {', '.join(class_names[:NAMED])}; expected train/ and test/, each with one "
            "folder a class, or one folder a class and neither of them. Rename the folder for testing to test."
        )
    files = [(path, label) for label, name in enumerate(class_names) for path in _visible(root / name)]
    found = [
        (path, label)
        for path, label in files
        if path.suffix.lower() in IMAGE_SUFFIXES
        and (separate or _held_out(f"{class_names[label]}/{path.name}") == (split == "test"))
    ]
    if len(class_names) < 2 or not found:
        raise InputError(
            f"{root} holds {len(class_names)} class folders and {len(found)} images for '{split}'. "
            f"Expected {CIFAR10_FOLDER}/ or DIR/<class>/*.jpg with at least two classes."
        )
    paths, labels = zip(*found, strict=True)
    source, notes = f"{folder.resolve().name}/{split}", _left_out(path for path, _ in files)
    return _ImageFiles(paths, labels, class_names, source, notes)


def _left_out(files: Iterable[Path]) -> tuple[str, ...]:
    """What is in the class folders and is no picture by its name, for the notes."""
    others = Counter(
        path.suffix for path in files if path.suffix.lower() not in IMAGE_SUFFIXES and path.is_file()
    )
    return tuple(
        f"left out {count} file{'s' * (count > 1)} {f'named *{suffix}' if suffix else 'without a suffix'}"
        for suffix, count in sorted(others.items())
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _visible(folder) if entry.is_dir())
    for name in names:
        if os.fsencode(name).decode(errors="replace") != name:
            raise InputError(
                f"The class folder {name!a} in {folder} has a name that is not UTF-8. Rename it: it becomes a label."
            )
    return names


def _visible(folder: Path) -> list[Path]:
    """The entries of a folder by name, without those hidden by a dot (.git, .DS_Store)."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _held_out(name: str) -> bool:
    """A fifth of all names, by hash: adding a picture never moves another one between the splits."""
    return int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % 5 == 0


def read_image(path: Path) -> Image:
    """Decode one picture, as the edge does: uint8 (H, W, 3), RGB. Raises SourceError."""
    import cv2

    return np.asarray(cv2.cvtColor(read_bgr(path), cv2.COLOR_BGR2RGB), np.uint8)


def _decoded(
    files: _ImageFiles, height: int, width: int, rule: ResizeRule, skip_corrupt: bool
) -> LabelledImages:
    """All that can be decoded, each brought to the size."""
    images = np.empty((len(files.paths), height, width, 3), np.uint8)
    places = iter(images)
    files = _readable(
        files, lambda picture: np.copyto(next(places), fit(picture, height, width, rule)), skip_corrupt
    )
    names = tuple(f"{path.parent.name}/{path.name}" for path in files.paths)
    labels = np.asarray(files.labels, np.int64)
    return LabelledImages(images[: len(labels)], labels, files.class_names, files.source, files.told, names)


def _readable(files: _ImageFiles, see: Callable[[Image], None], skip_corrupt: bool) -> _ImageFiles:
    """Those that can be decoded, each given to `see`; raises InputError for others, unless they may be skipped."""
    kept: list[int] = []
    broken: list[SourceError] = []
    for place, path in enumerate(files.paths):
        try:
            picture = read_image(path)
        except SourceError as error:
            broken.append(error)
        else:
            see(picture)
            kept.append(place)
    if broken and not (skip_corrupt and kept):
        raise InputError(_corrupt(broken, files))
    left_out = (f"left out {_which(broken, files)}",) if broken else ()
    return replace(files.take(np.array(kept), ""), notes=(*files.notes, *left_out))


def _corrupt(broken: list[SourceError], files: _ImageFiles) -> str:
    if len(broken) == len(files.paths):
        return f"{files.source}: none of {len(broken)} pictures can be decoded. {broken[0]}"
    return f"{files.source}: {_which(broken, files)}. `--skip-corrupt` goes on without them."


def _which(broken: list[SourceError], files: _ImageFiles) -> str:
    """`2 of 18 pictures that cannot be decoded`, and the first few with the reason."""
    more = f" … and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    named = " ".join(str(error) for error in broken[:NAMED])
    return f"{len(broken)} of {len(files.paths)} pictures that cannot be decoded: {named.rstrip('.')}{more}"
