"""Pictures for `bench/transfer.py`, as class folders: what a network has learnt, and what it is to learn next.

    even          CIFAR-10's classes 0, 2, 4, 6, 8: airplane, bird, deer, frog, ship; the source network's
    odd           the other five: automobile, cat, dog, horse, truck; similar to what the source has learnt
    turned        pictures of `odd`, upright or turned by a quarter, a half or three, which is to be told
    digits        scikit-learn's, 8x8 grey values enlarged to 32x32
    faces         squares with and without a face, cut out of photographs
    NAME-N-SEED   N training images of each class of NAME, drawn by SEED; the same test split

Each has `train/<class>/*.png` and `test/<class>/*.png`, so that every row of the table is a plain command.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from edge.pixels import Image
from train.data import LabelledImages, few, load, pick, read_image

SIDE = 32
LEAST_FACE_PX = 24
FACE_SPLITS = {"train": ("train", "val"), "test": ("test",)}
TRIES = 20
MOST_TURNED = 5000


def write_all(out: Path, cifar10: str, faces: Path | None, parts: Iterable[str]) -> None:
    """Every folder that is not there yet; `parts` are those named NAME-N-SEED."""
    for split in ("train", "test"):
        for name, first in (("even", 0), ("odd", 1)):
            _write(out / name / split, lambda split=split, first=first: _every_second(cifar10, split, first))
        _write(out / "turned" / split, lambda split=split: _turned(cifar10, split))
        _write(out / "digits" / split, lambda split=split: load("digits", split, SIDE, SIDE, "stretch"))
        if faces is not None:
            _write(out / "faces" / split, lambda split=split: _face_squares(faces, split))
    for part in parts:
        name, count, seed = part.split("-")
        if (out / name).is_dir():
            _few(out, name, int(count), int(seed))


def _few(out: Path, name: str, count: int, seed: int) -> None:
    folder = out / f"{name}-{count}-{seed}"
    if folder.is_dir():
        return
    images = load(str(out / name), "train", SIDE, SIDE)
    chosen = images.take(pick(images, count * len(images.class_names), seed), "")
    _write(folder / "train", lambda: chosen)
    (folder / "test").symlink_to(Path("..") / name / "test")


def _write(folder: Path, made) -> None:
    """One PNG an image, in folders by class; nothing where the folder is there already."""
    if folder.is_dir():
        return
    images: LabelledImages = made()
    for name in images.class_names:
        (folder / name).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        cv2.imwrite(str(folder / images.class_names[label] / f"{index:05d}.png"), image[:, :, ::-1])


def _every_second(cifar10: str, split: str, first: int) -> LabelledImages:
    """The classes of that parity."""
    images = load(cifar10, split)
    kept = np.flatnonzero(images.labels % 2 == first)
    return LabelledImages(
        images.images[kept], images.labels[kept] // 2, images.class_names[first::2], images.source
    )


def _turned(cifar10: str, split: str) -> LabelledImages:
    """Image i turned by i quarters, of at most 5,000 images."""
    images = few(_every_second(cifar10, split, 1), MOST_TURNED)
    quarters = np.arange(len(images)) % 4
    turned = np.stack([np.rot90(image, k) for image, k in zip(images.images, quarters, strict=True)])
    # Class folders are read in the order of their names.
    names = ("0", "180", "270", "90")
    return LabelledImages(turned, np.array([0, 3, 1, 2])[quarters], names, images.source)


# -- squares with and without a face --------------------------------------------------------------


def _face_squares(folder: Path, split: str) -> LabelledImages:
    """For each face of at least 24 pixels a square around it, and one as large that touches none."""
    rng = np.random.default_rng(0)
    squares, labels = [], []
    for picture, boxes in _photographs(folder, split):
        for x, y, width, height in boxes:
            if min(width, height) < LEAST_FACE_PX:
                continue
            side = max(width, height)
            face = _cut(picture, x + width / 2 - side / 2, y + height / 2 - side / 2, side)
            other = _elsewhere(picture, boxes, side, rng)
            if face is not None and other is not None:
                squares += [face, other]
                labels += [0, 1]
    return LabelledImages(np.stack(squares), np.array(labels), ("face", "other"), f"faces/{split}")


def _photographs(folder: Path, split: str) -> Iterator[tuple[Image, list[list[float]]]]:
    listed = json.loads((folder / "annotations.json").read_text())
    boxes: dict[int, list[list[float]]] = {}
    for annotation in listed["annotations"]:
        boxes.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    for about in listed["images"]:
        if about["split"] in FACE_SPLITS[split] and about["id"] in boxes:
            yield read_image(folder / "images" / about["file_name"]), boxes[about["id"]]


def _elsewhere(
    picture: Image, boxes: list[list[float]], side: float, rng: np.random.Generator
) -> Image | None:
    height, width = picture.shape[:2]
    if side >= min(height, width):
        return None
    for _ in range(TRIES):
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        if all(bx >= x + side or by >= y + side or bx + w <= x or by + h <= y for bx, by, w, h in boxes):
            return _cut(picture, x, y, side)
    return None


def _cut(picture: Image, x: float, y: float, side: float) -> Image | None:
    left, top, size = round(x), round(y), round(side)
    height, width = picture.shape[:2]
    if left < 0 or top < 0 or left + size > width or top + size > height:
        return None
    square = picture[top : top + size, left : left + size]
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
