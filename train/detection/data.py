"""Pictures with face boxes: a folder with COCO's `annotations.json` and `images/`.

Each image of the file names its `split` (train, val or test; train where it does not say) and, where it
has one, its `source`. Pictures without faces are kept: they teach what a face is not. Nothing is
downloaded.
"""

from __future__ import annotations

import codecs
import hashlib
import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, FiniteFloat, PositiveInt, ValidationError

from edge.errors import InputError
from edge.pixels import Image
from train.data import NAMED, read_image

ANNOTATIONS = "annotations.json"
IMAGES = "images"
SPLITS = ("train", "val", "test")
Boxes = NDArray[np.float32]
"""float32 (n, 4): x0, y0, x1, y1 in pixels of the picture, corners, not x, y, width, height."""

READERS, AHEAD = 2, 8
"""Threads that decode, and pictures that they hold ready; a picture may be large."""


@dataclass(frozen=True)
class BoxedImage:
    """One picture, not yet read.

    Attributes:
        path: of the file; image_id: COCO's.
        width, height: as the annotations state them, pixels.
        boxes: float32 (n, 4), x0, y0, x1, y1 in pixels, inside the picture; n may be 0.
        ignored: bool (n,): regions that count neither as found nor as missed (`ignore` or `iscrowd`).
        source: where the picture comes from; "" where the file does not say.
    """

    path: Path
    image_id: int
    width: int
    height: int
    boxes: Boxes
    ignored: NDArray[np.bool_]
    source: str

    def read(self) -> Image:
        """The picture, uint8 (H, W, 3) RGB, turned upright by its EXIF tag; grey becomes RGB, alpha goes.

        Raises:
            SourceError: it cannot be decoded.
            InputError: its size is not the annotated one, so that the boxes would not lie on the faces.
        """
        picture = read_image(self.path)
        height, width = picture.shape[:2]
        if (width, height) != (self.width, self.height):
            turned = (height, width) == (self.width, self.height)
            cause = "the boxes were drawn before an EXIF tag turned it" if turned else "it was resized since"
            raise InputError(
                f"{self.path} is {width}x{height} upright, the annotations (image {self.image_id}) say "
                f"{self.width}x{self.height}: probably {cause}. Mend width, height and boxes in "
                f"{ANNOTATIONS}, or put the original picture back."
            )
        return picture


@dataclass(frozen=True)
class BoxedImages:
    """One split of a detection data set.

    Attributes:
        images: in the order of their ids.
        source: what was read, for cards and reports ("faces/train").
        notes: what was mended on the way, in words ("3 boxes cut at the picture's edge").
    """

    images: tuple[BoxedImage, ...]
    source: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def faces(self) -> int:
        """Faces that count."""
        return sum(int((~image.ignored).sum()) for image in self.images)

    def sha256(self) -> str:
        """The hash of the annotations and the files' names and sizes, by which a card names its data."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.image_id} {image.path.name} {image.path.stat().st_size}".encode())
            digest.update(image.boxes.tobytes() + image.ignored.tobytes())
        return digest.hexdigest()


def is_boxed(folder: str | Path) -> bool:
    """Whether a folder looks like a detection data set."""
    return (Path(folder) / ANNOTATIONS).is_file()


def pictures(images: Sequence[BoxedImage]) -> Iterator[Image]:
    """The pictures in order, as `BoxedImage.read` gives them, decoded ahead by a few threads."""
    waiting: deque[Future[Image]] = deque()
    with ThreadPoolExecutor(READERS, "read") as pool:
        for image in images:
            waiting.append(pool.submit(image.read))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def load_boxed(folder: str | Path, split: str) -> BoxedImages:
    """Read the annotations of one split; the pictures stay on the disk.

    Boxes are cut at the picture's edge; one with no area left is dropped, and `notes` counts them.

    Raises:
        InputError: no annotations, a file that is not COCO's, pictures that are missing, an id or a picture
            that stands twice, a box of an unknown picture, or boxes of several categories.
    """
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}'; there are {', '.join(SPLITS)}.")
    path = Path(folder) / ANNOTATIONS
    content = _read(path)
    by_image = _by_image(content, path)
    rows = sorted((row for row in content.images if row.split == split), key=lambda row: row.id)
    if not rows:
        found = ", ".join(
            f"{name} {count}" for name, count in Counter(r.split for r in content.images).items()
        )
        raise InputError(
            f"{path} has no images of the split '{split}'; it has: {found or 'none'}. "
            "Each image's `split` says where it belongs."
        )
    _all_there(rows, path)
    notes: Counter[str] = Counter()
    images = tuple(_image(row, by_image[row.id], path.parent / IMAGES, notes) for row in rows)
    said = tuple(f"{what}: {count}" for what, count in sorted(notes.items()) if count)
    return BoxedImages(images, f"{Path(folder).resolve().name}/{split}", said)


def cut_to_picture(
    boxes: NDArray[np.float64], width: int, height: int, notes: Counter[str]
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes x0, y0, x1, y1 (n, 4) cut at the edges, those left with an area, and which they are, bool (n,)."""
    inside = np.clip(boxes, 0, [width, height, width, height])
    kept = ((inside[:, 2:] - inside[:, :2]) > 0).all(axis=1)
    notes["boxes cut at the picture's edge"] += int((inside != boxes).any(axis=1)[kept].sum())
    notes["boxes left out, without area in the picture"] += int((~kept).sum())
    return inside[kept].astype(np.float32), kept


# -- COCO's file ----------------------------------------------------------------------------------


class _Row(BaseModel):
    """An image of COCO's file, with our two fields."""

    id: int
    file_name: str
    width: PositiveInt
    height: PositiveInt
    split: str = "train"
    source: str = ""


class _Face(BaseModel):
    """An annotation of COCO's file; `bbox` is x, y, width, height in pixels."""

    id: int | None = None
    image_id: int
    category_id: int | None = None
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    iscrowd: int = 0
    ignore: int = 0


class _Coco(BaseModel):
    images: list[_Row]
    annotations: list[_Face]


def _read(path: Path) -> _Coco:
    try:
        return _Coco.model_validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise InputError(
            f"No annotations at {path} ({error.strerror}): expected COCO's JSON beside {IMAGES}/."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is not COCO's JSON: {where + ': ' if where else ''}{first['msg']}. Expected images with "
            "id, file_name, width, height and annotations with image_id, bbox [x, y, width, height]."
        ) from error


def _by_image(content: _Coco, path: Path) -> dict[int, list[_Face]]:
    """The faces by their image's id, after the file was found consistent."""
    _no_duplicates((row.id for row in content.images), path, "image")
    _no_duplicates((face.id for face in content.annotations if face.id is not None), path, "annotation")
    _each_picture_once(content.images, path)
    _one_category(content.annotations, path)
    known = {row.id for row in content.images}
    by_image: dict[int, list[_Face]] = defaultdict(list)
    for face in content.annotations:
        if face.image_id not in known:
            raise InputError(
                f"{path}: annotation {face.id} names the image {face.image_id}, which the file does not "
                "list. Remove the annotation, or add its image."
            )
        by_image[face.image_id].append(face)
    return by_image


def _no_duplicates(ids: Iterable[int], path: Path, what: str) -> None:
    twice = [number for number, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: the {what} id {twice[0]} stands more than once ({len(twice)} such ids). "
            f"Give each {what} an id of its own."
        )


def _each_picture_once(rows: Sequence[_Row], path: Path) -> None:
    """In two splits it would be tested on what was learnt; in one, each row's faces are the other's background."""
    splits: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        splits[os.path.normpath(row.file_name)].append(row.split)
    twice = [name for name, found in splits.items() if len(found) > 1]
    if twice:
        found = splits[twice[0]]
        raise InputError(
            f"{path} lists the picture {twice[0]} {len(found)} times, for {' and '.join(sorted(set(found)))} "
            f"({len(twice)} such pictures). Give each one entry with all its boxes, in one split."
        )


def _one_category(faces: Sequence[_Face], path: Path) -> None:
    counts = Counter(face.category_id for face in faces if face.category_id is not None)
    if len(counts) > 1:
        found = ", ".join(f"{count} of {number}" for number, count in counts.most_common(NAMED))
        raise InputError(
            f"{path} has boxes of {len(counts)} categories (category_id: {found}), and all would count as faces. "
            "Keep those of faces alone."
        )


def _all_there(rows: Sequence[_Row], annotations: Path) -> None:
    missing = [row.file_name for row in rows if not _is_file(annotations.parent / IMAGES / row.file_name)]
    if missing:
        raise InputError(
            f"{annotations} lists {missing[0]}, but {annotations.parent / IMAGES / missing[0]} does not exist "
            f"({len(missing)} of {len(rows)} are missing). Copy the pictures, or remove them from the file."
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, such as a signed address, or one with a zero in it
        return False


def _image(row: _Row, faces: Sequence[_Face], folder: Path, notes: Counter[str]) -> BoxedImage:
    xywh = np.array([face.bbox for face in faces], np.float64).reshape(-1, 4)
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    boxes, kept = cut_to_picture(corners, row.width, row.height, notes)
    ignored = np.array([bool(face.ignore or face.iscrowd) for face in faces], np.bool_)[kept]
    return BoxedImage(folder / row.file_name, row.id, row.width, row.height, boxes, ignored, row.source)
