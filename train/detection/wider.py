"""The WIDER FACE protocol: easy, medium and hard (Yang et al. 2016, arXiv 1511.06523), val split.

After the set's own MATLAB code (eval_tools, `wider_eval.m`) and its Python port (wondervictor,
WiderFace-Evaluation), whose quirks are kept, because published figures have them:

- The three settings are lists of faces, nested in each other. A picture's other faces are ignored.
- Scores are stretched over the whole set to 0..1 and then cut at 1000 thresholds. A single outlier
  moves them all, and scores of few distinct values (int8) give a coarse curve.
- A detection goes to the face that it overlaps most, among all of the picture, taken or ignored ones
  too; widths and heights count one pixel more. On an ignored face it does not count. The first on a face
  that counts is right, each later one is wrong.
- A picture without a detection costs its faces, one without any face costs nothing: false detections
  there are not counted.
- There is no interpolation but the monotone envelope; the area under it is the average precision.

Three rules differ from `train.detection.average_precision`: the argmax over taken faces, the pixel more,
and the thresholds. Compare figures of one protocol only, and of one input size: hard faces are tiny,
and most published figures come from pictures of their own size, about 1024 pixels wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, MissingPackageError
from edge.pixels import Image
from edge.results import Faces
from train.data import read_image
from train.detection.average_precision import Floats, Interval, interval_of

SETTINGS = ("easy", "medium", "hard")
UNLISTED = "valid"
"""The one setting where the lists are missing: all faces that are not marked invalid. Not official."""

IMAGES = Path("WIDER_val/images")
TRUTH = "wider_face_val.mat"
TEXT = "wider_face_val_bbx_gt.txt"
PLACES = (".", "ground_truth", "eval_tools/ground_truth", "wider_face_split")
THRESHOLDS = 1000
IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class WiderImage:
    """One picture.

    Attributes:
        path: of the file.
        boxes: float64 (n, 4), x0, y0, x0 + width, y0 + height in pixels, as annotated, not cut.
        kept: by setting, bool (n,): the faces that count.
    """

    path: Path
    boxes: Floats
    kept: dict[str, NDArray[np.bool_]]

    def read(self) -> Image:
        """uint8 (H, W, 3) RGB. Raises SourceError."""
        return read_image(self.path)


@dataclass(frozen=True)
class WiderImages:
    """The val split. `settings` are the names of what is measured; `source` is for reports."""

    images: tuple[WiderImage, ...]
    settings: tuple[str, ...]
    source: str = "wider/val"

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class WiderFigures:
    """One setting.

    Attributes:
        faces: that count; average_precision: 0 to 1; ci95: its 95 % interval, pictures resampled.
        recall, precision: float64 (1000,), at the thresholds from 0.999 to 0.
    """

    faces: int
    average_precision: float
    ci95: Interval
    recall: Floats
    precision: Floats


def is_wider(folder: str | Path) -> bool:
    """Whether a folder holds WIDER FACE's validation pictures and their annotations."""
    return (Path(folder) / IMAGES).is_dir() and (_find(folder, TRUTH) or _find(folder, TEXT)) is not None


def load_wider(folder: str | Path) -> WiderImages:
    """Read the annotations, from `wider_face_val.mat` and the three lists, or from the text file.

    Raises:
        InputError: a file or a picture is missing, or a file is not what its name says.
        MissingPackageError: SciPy, which reads `.mat`, is not installed.
    """
    lists = {setting: _find(folder, f"wider_{setting}_val.mat") for setting in SETTINGS}
    truth, text = _find(folder, TRUTH), _find(folder, TEXT)
    try:
        if truth and all(lists.values()):
            images = _from_mat(
                Path(folder) / IMAGES, truth, {name: path for name, path in lists.items() if path}
            )
        elif text:
            images = _from_text(Path(folder) / IMAGES, text)
        else:
            raise InputError(
                f"{folder} lacks {', '.join(f'wider_{name}_val.mat' for name, path in lists.items() if not path)} "
                f"and {TEXT}. Unpack eval_tools.zip (its ground_truth/) or wider_face_split.zip there."
            )
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"The annotations of {folder} are not WIDER FACE's ({error}). Unpack the official archives anew."
        ) from error
    _all_there(images)
    return WiderImages(images, tuple(images[0].kept))


def wider_figures(
    images: WiderImages, found: Sequence[Faces], setting: str, repetitions: int = 1000, seed: int = 0
) -> WiderFigures:
    """The official figures of one setting, from the detections in each picture."""
    stretched = _stretched(found)
    counts = np.stack(
        [
            _counts(image, faces.boxes, scores, image.kept[setting])
            for image, faces, scores in zip(images.images, found, stretched, strict=True)
        ]
    )
    truths = np.array([image.kept[setting].sum() for image in images.images], np.float64)
    recall, precision = _curve(counts.sum(axis=0), truths.sum())
    random, n = np.random.default_rng(seed), len(images)
    weights = np.stack([np.bincount(random.integers(0, n, n), minlength=n) for _ in range(repetitions)])
    totals = np.tensordot(weights.astype(np.float64), counts.astype(np.float64), axes=1)
    values = [_area(*_curve(total, faces)) for total, faces in zip(totals, weights @ truths, strict=True)]
    ci95 = interval_of(np.array(values))
    return WiderFigures(int(truths.sum()), _area(recall, precision), ci95, recall, precision)


# -- the protocol ---------------------------------------------------------------------------------


def _stretched(found: Sequence[Faces]) -> list[Floats]:
    """All scores brought to 0..1 by the smallest and the largest of the whole set."""
    everything = np.concatenate([np.zeros(0), *(faces.scores for faces in found)])
    low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    return [(faces.scores.astype(np.float64) - low) / ((high - low) or 1.0) for faces in found]


def _counts(image: WiderImage, boxes: Any, scores: Floats, kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """int32 (1000, 2): at each threshold, the detections that count, and the faces they found."""
    out = np.zeros((THRESHOLDS, 2), np.int32)
    if not len(image.boxes) or not len(scores):
        return out
    order = np.argsort(-scores, kind="stable")
    overlaps = _overlaps(boxes[order].astype(np.float64), image.boxes)
    face = overlaps.argmax(axis=1)
    over = overlaps.max(axis=1) >= IOU_THRESHOLD
    proposed = ~over | kept[face]
    right = np.zeros(len(order), np.bool_)
    on_kept = np.flatnonzero(over & kept[face])
    right[on_kept[np.unique(face[on_kept], return_index=True)[1]]] = True
    thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    taken = np.searchsorted(-scores[order], -thresholds, side="right")
    out[:, 0] = np.concatenate([[0], np.cumsum(proposed)])[taken]
    out[:, 1] = np.concatenate([[0], np.cumsum(right)])[taken]
    return out


def _overlaps(boxes: Floats, truths: Floats) -> Floats:
    """Intersection over union (n, m), by widths and heights of one pixel more, as in Pascal VOC's code."""
    corner0 = np.maximum(boxes[:, None, :2], truths[None, :, :2])
    corner1 = np.minimum(boxes[:, None, 2:], truths[None, :, 2:])
    shared = np.clip(corner1 - corner0 + 1, 0, None).prod(axis=2)
    areas = [(part[:, 2:] - part[:, :2] + 1).prod(axis=1) for part in (boxes, truths)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared), np.float64)


def _curve(counts: NDArray[Any], truths: float) -> tuple[Floats, Floats]:
    """Recall and precision at the thresholds; 0/0, before the first detection, is a precision of 0."""
    recall = counts[:, 1] / (truths or np.nan)
    return recall, counts[:, 1] / np.maximum(counts[:, 0], 1)


def _area(recall: Floats, precision: Floats) -> float:
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


# -- the files ------------------------------------------------------------------------------------


def _find(folder: str | Path, name: str) -> Path | None:
    candidates = (Path(folder) / place / name for place in PLACES)
    return next((path for path in candidates if path.is_file()), None)


def _from_mat(pictures: Path, truth: Path, lists: dict[str, Path]) -> tuple[WiderImage, ...]:
    """Nested cells, event by event and picture by picture; the lists hold indices from 1."""
    read = _mat_reader()
    content = read(truth)
    kept = {setting: read(path)["gt_list"] for setting, path in lists.items()}
    images = []
    for event, event_cell in enumerate(content["event_list"][:, 0]):
        for index, name in enumerate(content["file_list"][event, 0][:, 0]):
            xywh = np.asarray(content["face_bbx_list"][event, 0][index, 0], np.float64).reshape(-1, 4)
            listed = {setting: cells[event, 0][index, 0] for setting, cells in kept.items()}
            # Not rstrip(".jpg"), as some ports do: it would also eat the name's last letters.
            path = pictures / str(event_cell[0]) / f"{str(name[0]).removesuffix('.jpg')}.jpg"
            masks = {setting: _mask(len(xywh), indices) for setting, indices in listed.items()}
            images.append(WiderImage(path, _corners(xywh), masks))
    return tuple(images)


def _mat_reader() -> Callable[[Path], dict[str, Any]]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingPackageError("scipy", "train", "WIDER FACE's .mat") from error

    def read(path: Path) -> dict[str, Any]:
        try:
            return dict(loadmat(str(path)))
        except (MatReadError, NotImplementedError, OSError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a MATLAB file of version 5: {error}.") from error

    return read


def _mask(n: int, indices: NDArray[Any]) -> NDArray[np.bool_]:
    mask = np.zeros(n, np.bool_)
    chosen = np.asarray(indices, np.int64).reshape(-1) - 1
    if len(chosen) and not (chosen.min() >= 0 and chosen.max() < n):
        raise ValueError(f"a list names face {chosen.max() + 1} of {n}")
    mask[chosen] = True
    return mask


def _from_text(pictures: Path, path: Path) -> tuple[WiderImage, ...]:
    """A name, a count, and a line for each face: x y w h blur expression illumination invalid ...

    A picture without faces has the count 0 and one line of zeros all the same.
    """
    lines = iter(path.read_text().splitlines())
    images = []
    for name in lines:
        count = int(next(lines, ""))
        rows = [[int(word) for word in next(lines, "").split()] for _ in range(max(1, count))][:count]
        table = np.array(rows, np.int64).reshape(count, -1)[:, :8] if count else np.zeros((0, 8), np.int64)
        valid = table[:, 7] == 0
        images.append(WiderImage(pictures / name.strip(), _corners(table[:, :4]), {UNLISTED: valid}))
    return tuple(images)


def _corners(xywh: NDArray[Any]) -> Floats:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float64)


def _all_there(images: Sequence[WiderImage]) -> None:
    missing = [image.path for image in images if not image.path.is_file()]
    if missing or not images:
        raise InputError(
            f"{len(missing)} of {len(images)} pictures of WIDER FACE's val split are missing, the first is "
            f"{missing[0] if missing else 'none listed'}. Unpack WIDER_val.zip beside the annotations."
        )
