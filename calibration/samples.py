"""The pictures that calibration watches: of the training split, at the size of the model's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.bundle import InputSpec
from edge.pixels import Image, fit
from train.data import LabelledImages, load, pick
from train.detection.data import BoxedImages, is_boxed, load_boxed, pictures


@dataclass(frozen=True)
class Samples:
    """Images to watch: uint8 (N, H, W, 3) RGB, and where they come from, for cards and reports."""

    images: Image
    source: str


def read_samples(data: str, spec: InputSpec, count: int) -> Samples:
    """`count` training images of a data set of either kind, labelled or boxed.

    Raises:
        InputError: the data are missing or of another shape. SourceError: a picture cannot be decoded.
    """
    if is_boxed(data):
        return boxed_samples(load_boxed(data, "train"), spec, count)
    return labelled_samples(load(data, "train", spec.height, spec.width, spec.resize), count)


def labelled_samples(train: LabelledImages, count: int) -> Samples:
    """`count` images spread evenly over the classes."""
    chosen = train.take(pick(train, count), f", {min(count, len(train))} by class")
    return Samples(chosen.images, chosen.source)


def boxed_samples(train: BoxedImages, spec: InputSpec, count: int) -> Samples:
    """`count` pictures evenly spaced in the order of their ids, where those of one source lie together."""
    chosen = every_nth(train, count)
    size = spec.height, spec.width, spec.resize
    images = np.stack([fit(picture, *size) for picture in pictures(chosen.images)])
    return Samples(images, chosen.source)


def every_nth(images: BoxedImages, count: int) -> BoxedImages:
    """`count` of the pictures, evenly spaced; all of them where there are no more."""
    if count >= len(images):
        return images
    places = np.linspace(0, len(images) - 1, count).round().astype(int)
    return BoxedImages(tuple(images.images[i] for i in places), f"{images.source}, {count} evenly spaced")
