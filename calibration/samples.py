"""The pictures that calibration watches: of the training split, at the size of the model's input."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edge.bundle import InputSpec
from edge.errors import InputError
from edge.pixels import Image, fit
from train.data import LabelledImages, Split, open_split, pick, tell_notes
from train.detection.data import BoxedImages, is_boxed, load_boxed, pictures

By = Literal["balanced", "random", "k-centre"]
"""How samples are chosen.

`balanced`: spread evenly over the classes; of boxed pictures, evenly spaced in the order of their ids, where those
of one source lie together. `random`: drawn. `k-centre`: each next one is the picture least like those chosen, by its
8x8 thumbnail, so that rare scenes are among them.
"""
RULES: tuple[By, ...] = get_args(By)

THUMBNAIL = 8
POOL = 10_000
SEEN = 64
"""Pictures of the pool that are in memory at once."""

BOXED_POOL = 4
"""Candidates for k-centre: so many drawn ones, of boxed pictures so many times the count, since each is decoded."""

HELD_OUT = 128
"""Other training pictures, on which the ranges are tried."""


class Pictures(Protocol):
    """Images of one size, uint8 (N, H, W, 3) RGB, of which a slice may be read from disk when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, part: slice, /) -> Image:
        """uint8 (n, H, W, 3)."""


@dataclass(frozen=True)
class Samples:
    """Images to watch.

    Attributes:
        images: uint8 (N, H, W, 3) RGB.
        source: where they come from, for cards and reports.
        ids: by image, its place in the split, or its id in the annotations; the list that a plan records.
        held_out: others of the same split, or None where all are watched.
    """

    images: Pictures
    source: str
    ids: tuple[str, ...] = ()
    held_out: Pictures | None = None


@dataclass(frozen=True)
class BoxedPictures:
    """Pictures of a detection data set at the input's size, decoded slice by slice: memory holds one slice."""

    boxed: BoxedImages
    spec: InputSpec

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return len(self.boxed), self.spec.height, self.spec.width, 3

    def __len__(self) -> int:
        return len(self.boxed)

    def __getitem__(self, part: slice, /) -> Image:
        """uint8 (n, H, W, 3). Raises SourceError where one cannot be decoded."""
        size = self.spec.height, self.spec.width, self.spec.resize
        chosen = self.boxed.images[part]
        fitted = [fit(picture, *size) for picture in pictures(chosen)]
        return np.stack(fitted) if fitted else np.empty((0, *self.shape[1:]), np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.uint8)


def read_samples(
    data: str, spec: InputSpec, count: int, by: By = "balanced", skip_corrupt: bool = False
) -> Samples:
    """`count` training images of a data set of either kind, labelled or boxed; what was mended is told.

    Args:
        skip_corrupt: of labelled ones, leave out what cannot be decoded.

    Raises:
        InputError: the data are missing or of another shape. SourceError: a picture cannot be decoded.
    """
    if is_boxed(data):
        return boxed_samples(load_boxed(data, "train"), spec, count, by)
    train = open_split(data, "train", spec.height, spec.width, spec.resize, skip_corrupt)
    tell_notes(train.source, train.notes)
    return labelled_samples(train, count, by)


def labelled_samples(train: LabelledImages | Split, count: int, by: By = "balanced") -> Samples:
    """`count` images of a split, chosen as `by` says."""
    count = min(_at_least_one(count), len(train))
    chosen = {
        "balanced": lambda: pick(train, count),
        "random": lambda: _drawn(len(train), count),
        "k-centre": lambda: _spread(train, count),
    }[by]()
    note = {"balanced": "by class", "random": "at random", "k-centre": "by k-centre"}[by]
    taken = train.take(chosen, f", {count} {note}")
    others = np.setdiff1d(np.arange(len(train)), chosen)
    held_out = train.take(others[_drawn(len(others), HELD_OUT)], "").images if len(others) else None
    return Samples(taken.images, taken.source, tuple(map(str, chosen.tolist())), held_out)


def boxed_samples(train: BoxedImages, spec: InputSpec, count: int, by: By = "balanced") -> Samples:
    """`count` pictures of a split, chosen as `by` says, at the size of `spec`."""
    count = _at_least_one(count)
    if by == "balanced":
        chosen = every_nth(train, count)
    elif by == "random":
        chosen = _taken(train, _drawn(len(train), count), f", {min(count, len(train))} at random")
    else:
        pool = every_nth(train, BOXED_POOL * count)
        places = k_centre(thumbnails(BoxedPictures(pool, spec)), count)
        chosen = _taken(
            BoxedImages(pool.images, train.source), np.sort(places), f", {len(places)} by k-centre"
        )
    ids = {image.image_id for image in chosen.images}
    rest = tuple(image for image in train.images if image.image_id not in ids)
    others = every_nth(BoxedImages(rest, train.source), HELD_OUT)
    return Samples(
        BoxedPictures(chosen, spec),
        chosen.source,
        tuple(str(image.image_id) for image in chosen.images),
        BoxedPictures(others, spec) if rest else None,
    )


def every_nth(images: BoxedImages, count: int) -> BoxedImages:
    """`count` of the pictures, evenly spaced; all of them where there are no more."""
    if count >= len(images):
        return images
    places = np.linspace(0, len(images) - 1, count).round().astype(int)
    return _taken(images, places, f", {count} evenly spaced")


def k_centre(features: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Greedy k-centre: indices of `count` rows of (n, d), each as far from those before it as any.

    Begins at the row nearest to the mean. The largest distance of a row from its nearest centre is at most twice
    the least possible one (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance").
    """
    centre = int(_distances(features, features.mean(axis=0)).argmin())
    nearest = np.full(len(features), np.inf, np.float32)
    chosen = []
    for _ in range(min(count, len(features))):
        chosen.append(centre)
        nearest = np.minimum(nearest, _distances(features, features[centre]))
        nearest[centre] = -1.0  # never twice, whatever the rounding, and even among equal pictures
        centre = int(nearest.argmax())
    return np.array(chosen, np.int64)


def thumbnails(images: Pictures) -> NDArray[np.float32]:
    """What k-centre compares: each picture's mean colours in 8x8 fields, float32 (N, 192), 0 to 255."""
    import cv2

    size = (THUMBNAIL, THUMBNAIL)
    rows = [
        cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(-1)
        for start in range(0, len(images), SEEN)
        for image in images[start : start + SEEN]
    ]
    return np.asarray(rows, np.float32)


def pixels_sha256(images: Pictures, batch: int = 64) -> str:
    """The hash of all pixels, in order."""
    digest = hashlib.sha256()
    for start in range(0, len(images), batch):
        digest.update(np.ascontiguousarray(images[start : start + batch]).data)
    return digest.hexdigest()


def preprocessing(spec: InputSpec) -> str:
    """In words, what happens to a picture before the model sees it."""
    return f"{spec.resize} to {spec.width}x{spec.height} {spec.color}, (x - 128) / 128"


def _spread(train: LabelledImages | Split, count: int) -> NDArray[np.int64]:
    pool = _drawn(len(train), POOL)
    parts = (pool[start : start + SEEN] for start in range(0, len(pool), SEEN))
    features = np.concatenate([thumbnails(train.take(part, "").images) for part in parts])
    return np.sort(pool[k_centre(features, count)])


def _drawn(total: int, count: int) -> NDArray[np.int64]:
    """`count` of the numbers below `total`, drawn once for all, ascending."""
    return np.sort(np.random.default_rng(0).permutation(total)[:count])


def _taken(images: BoxedImages, places: NDArray[np.int64], note: str) -> BoxedImages:
    return BoxedImages(tuple(images.images[i] for i in places), f"{images.source}{note}")


def _distances(features: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances of all rows from one."""
    difference = features - one
    squared: NDArray[np.float32] = np.einsum("nd,nd->n", difference, difference)
    return squared


def _at_least_one(count: int) -> int:
    if count < 1:
        raise InputError(f"Calibration needs at least one image, {count} were asked for. Pass --samples 512.")
    return count
