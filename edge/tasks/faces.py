"""Face detection: the heads of an anchor-free detector to boxes.

Each level of stride s has a cell for every s x s pixels of the input, and two heads:

    score (1, H/s, W/s, 1): the logit of a face whose centre is near the cell
    box   (1, H/s, W/s, 4): dx, dy, log w, log h, in units of the stride

    cx = (col + 0.5 + dx) * s      w = exp(log w) * s
    cy = (row + 0.5 + dy) * s      h = exp(log h) * s

in pixels of the input, where 0 is the left or upper edge of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge.boxes import Floats
from edge.bundle import Manifest, OutputSpec
from edge.errors import BundleError
from edge.pixels import Image, Placement
from edge.protocols import Heads
from edge.results import Faces

IOU_THRESHOLD = 0.55
"""Chosen on the val split at 320x320: AP50 .810 at 0.45, .816 at 0.55, .815 at 0.65. Crowds overlap."""

MOST_CANDIDATES = 1000
"""A trained model passes some hundred cells on a crowd. The cap bounds the time of NMS for a model that
passes all of its cells, which an untrained one does, or a threshold near 0."""

MOST_FACES = 300
_OFFSET_LIMIT, _LOG_SIZE_LIMIT = 1e4, 8.0
_LIMITS = np.array([_OFFSET_LIMIT, _OFFSET_LIMIT, _LOG_SIZE_LIMIT, _LOG_SIZE_LIMIT], np.float32)
"""A broken model's outputs must not overflow float32; 8 is a face of 2981 strides."""


@dataclass(frozen=True)
class Grid:
    """The cells of all levels of a detector, one level after the other, row by row.

    Attributes:
        scores, boxes: names of the heads, by level.
        cells: float32 (cells, 3): x and y of the centre in pixels of the input, and the stride.
    """

    scores: tuple[str, ...]
    boxes: tuple[str, ...]
    cells: Floats

    @classmethod
    def of(cls, outputs: Sequence[OutputSpec]) -> Grid:
        """Of a manifest's outputs.

        Raises:
            BundleError: a head without a stride, or scores without boxes.
        """
        scores = {output.stride: output for output in outputs if output.role == "score"}
        boxes = {output.stride: output for output in outputs if output.role == "box"}
        if not scores or None in scores or scores.keys() != boxes.keys():
            raise BundleError(
                "A detector needs a score head and a box head for each stride; the manifest has scores at "
                f"{list(scores)} and boxes at {list(boxes)}. Export the bundle anew."
            )
        shapes = {stride: output.shape[1:3] for stride, output in scores.items() if stride}
        return cls(
            tuple(scores[stride].name for stride in shapes),
            tuple(boxes[stride].name for stride in shapes),
            _cells(shapes),
        )

    @classmethod
    @lru_cache(maxsize=8)
    def of_size(cls, height: int, width: int, strides: tuple[int, ...] = (8, 16, 32)) -> Grid:
        """Of our own detectors, by the size of the input in pixels; the heads are `score_<stride>`."""
        shapes = {stride: (math.ceil(height / stride), math.ceil(width / stride)) for stride in strides}
        return cls(
            tuple(f"score_{stride}" for stride in strides),
            tuple(f"box_{stride}" for stride in strides),
            _cells(shapes),
        )


def _cells(shapes: Mapping[int, tuple[int, ...]]) -> Floats:
    """By stride, rows and columns."""
    levels = []
    for stride, (rows, columns) in shapes.items():
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        levels.append(np.column_stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(x.size, stride)]))
    return np.concatenate(levels).astype(np.float32)


class FacesTask:
    """Decoding, non-maximum suppression, and the way back to the picture's pixels.

    Args:
        score_threshold: faces with a lower score are not shown, 0 to 1.
        most_candidates: cells that go into suppression, the best first.
        most_faces: that are given back, the best first.
    """

    def __init__(
        self,
        manifest: Manifest,
        score_threshold: float = 0.5,
        most_candidates: int = MOST_CANDIDATES,
        most_faces: int = MOST_FACES,
    ) -> None:
        self._grid = Grid.of(manifest.outputs)
        self._input = manifest.input
        self._threshold = score_threshold
        self._most_candidates, self._most_faces = most_candidates, most_faces

    def decode(self, heads: Heads, picture: Image) -> Faces:
        """Raw heads to faces in pixels of `picture`, uint8 (H, W, 3), best first."""
        boxes, scores = candidates(heads, self._grid, self._threshold, self._most_candidates)
        if not len(scores):  # most frames of most cameras
            return Faces(boxes, scores)
        kept = nms(boxes, scores)[: self._most_faces]
        have_h, have_w = picture.shape[:2]
        spec = self._input
        placement = Placement.of(have_h, have_w, spec.height, spec.width, spec.resize)
        return _inside(placement.to_source(boxes[kept]), scores[kept], have_h, have_w)


def candidates(
    heads: Heads, grid: Grid, score_threshold: float, most: int = MOST_CANDIDATES
) -> tuple[Floats, Floats]:
    """The cells that see a face, before suppression.

    Args:
        heads: float32, by name, of one picture.
        score_threshold: 0 to 1; a cell is a candidate when its score is at least this.
        most: only so many of the best.

    Returns:
        Boxes float32 (n, 4), x0, y0, x1, y1 in pixels of the input, and scores float32 (n,), both
        in descending order of the scores, equal ones in the order of the cells.
    """
    logits = np.concatenate([heads[name].reshape(-1) for name in grid.scores])
    chosen = np.flatnonzero(logits >= _logit(score_threshold))
    if not len(chosen):
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    chosen = chosen[np.argsort(-logits[chosen], kind="stable")[:most]]
    deltas = np.concatenate([heads[name].reshape(-1, 4) for name in grid.boxes]).take(chosen, axis=0)
    boxes, scores = decode(deltas, grid.cells.take(chosen, axis=0)), sigmoid(logits[chosen])
    real = np.isfinite(boxes).all(axis=1)  # a broken model's need not be
    return boxes[real], scores[real]


def decode(deltas: Floats, cells: Floats) -> Floats:
    """Box heads (n, 4) at their cells (n, 3), as in `Grid`, to boxes (n, 4) in pixels of the input."""
    deltas = np.maximum(np.minimum(deltas, _LIMITS), -_LIMITS)
    stride = cells[:, 2:]
    centre = cells[:, :2] + deltas[:, :2] * stride
    half = np.exp(deltas[:, 2:]) * (stride * np.float32(0.5))
    return np.concatenate([centre - half, centre + half], axis=1)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow: exp sees no positive number."""
    powers = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, powers) / (1 + powers), np.float32)


def nms(boxes: Floats, scores: Floats, iou_threshold: float = IOU_THRESHOLD) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: the best box stays, those that overlap it more go, and so on.

    Args:
        boxes: float32 (n, 4), x0, y0, x1, y1, finite and with an area.
        scores: float32 (n,), above 0.
        iou_threshold: the largest intersection over union that two kept boxes may have.

    Returns:
        Indices of the kept boxes, best first; of equal scores the first comes first.
    """
    import cv2

    rectangles = boxes.astype(np.float64)
    rectangles[:, 2:] -= rectangles[:, :2]
    # Lists are read in half the time of arrays.
    kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, iou_threshold)
    return np.asarray(kept, np.intp).reshape(-1)


def _inside(boxes: Floats, scores: Floats, height: int, width: int) -> Faces:
    """Clipped to the picture; what has no area left there is dropped."""
    edges = np.array([width, height] * 2, np.float32)
    boxes = np.maximum(np.minimum(boxes, edges), np.float32(0))
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Faces(boxes[real], scores[real])


def _logit(score: float) -> float:
    """The inverse of the sigmoid; infinite at 0 and 1."""
    if not 0 < score < 1:
        return -math.inf if score <= 0 else math.inf
    return math.log(score / (1 - score))
