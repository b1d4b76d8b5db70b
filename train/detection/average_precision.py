"""Average precision of a face detector, by COCO's matching rule, with bootstrap intervals.

The rule is that of `pycocotools.cocoeval` (Lin et al. 2014, arXiv 1405.0312): detections are taken by
descending score; each claims the free face that it overlaps most, if their intersection over union (IoU)
reaches the threshold. A face that does not count is claimed only where none that counts fits, and the
detection then counts neither as right nor as wrong. An ignored region is a COCO crowd: it takes any number
of detections, by the share of the detection that lies in it.

Two averages are given. `average_precision` is the whole area under the precision-recall curve (the form of
Pascal VOC since 2010); `coco_average_precision` is COCO's mean of 101 points of the same curve, which lies
a few thousandths lower or higher.

int8 scores have many equals. pycocotools takes those one by one, in the order of the images; here each of
the n detections of one score is taken at its expected place in a random order: the i-th of k hits comes
after i * (n - k) / (k + 1) false ones. So no figure depends on the order of images, and none is punished
for coarse scores, which taking equals as one step would do (by 0.3 points at logits rounded to 0.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.results import Faces
from train.detection.data import BoxedImage

Floats = NDArray[np.float64]
COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""AP50-95 is the mean over these IoU thresholds."""
COCO_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Sizes:
    """Faces of these sizes count, low <= size < high; size is the square root of a box's area.

    Attributes:
        low, high: pixels, after scaling.
        scale: pixels of the model's input for one pixel of the picture.
    """

    low: float
    high: float
    scale: float = 1.0

    def holds(self, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool (n,): whether each of the boxes float32 (n, 4), in pixels of the picture, is of these sizes."""
        size = self.scale * np.sqrt(_areas(boxes.astype(np.float64)))
        return (self.low <= size) & (size < self.high)


@dataclass(frozen=True)
class Matched:
    """The detections of one picture held against its faces, best first.

    Attributes:
        scores: float64 (n,), descending.
        hit: bool (n,), whether a detection found a face that counts.
        counted: bool (n,), False where it counts neither as right nor as wrong.
        truths: faces that count.
    """

    scores: Floats
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    truths: int


def match(image: BoxedImage, faces: Faces, iou_threshold: float = 0.5, sizes: Sizes | None = None) -> Matched:
    """Hold the detections of one picture against its faces.

    Args:
        image: the truth.
        faces: the detections, in any order.
        iou_threshold: 0 to 1.
        sizes: only faces of these sizes count; a detection of another size that finds no face then does
            not count either (COCO's area ranges).
    """
    order = np.argsort(-faces.scores, kind="stable")
    boxes = faces.boxes[order].astype(np.float64).reshape(-1, 4)
    unwanted = image.ignored if sizes is None else image.ignored | ~sizes.holds(image.boxes)
    claimed = _claims(_overlaps(boxes, image), unwanted, image.ignored, iou_threshold)
    found = claimed >= 0
    hit = found & ~np.append(unwanted, True)[claimed]
    counted = hit | (~found if sizes is None else ~found & sizes.holds(faces.boxes[order].reshape(-1, 4)))
    return Matched(faces.scores[order].astype(np.float64), hit, counted, int((~unwanted).sum()))


def _claims(
    overlaps: Floats, unwanted: NDArray[np.bool_], crowds: NDArray[np.bool_], threshold: float
) -> NDArray[np.int64]:
    """int64 (detections,): the face that each detection claims, -1 for none."""
    claimed = np.full(len(overlaps), -1, np.int64)
    if not overlaps.size:
        return claimed
    free = np.ones(overlaps.shape[1], np.bool_)
    for row in np.flatnonzero(overlaps.max(axis=1) >= threshold):
        fits = free & (overlaps[row] >= threshold)
        fits = fits & ~unwanted if (fits & ~unwanted).any() else fits
        if fits.any():
            # Of equal overlaps pycocotools takes the last.
            best = len(fits) - 1 - int(np.where(fits, overlaps[row], -1.0)[::-1].argmax())
            claimed[row], free[best] = best, crowds[best]
    return claimed


def _overlaps(boxes: Floats, image: BoxedImage) -> Floats:
    """float64 (detections, faces): IoU; with an ignored region the part of the detection inside it."""
    truths = image.boxes.astype(np.float64)
    corner0 = np.maximum(boxes[:, None, :2], truths[None, :, :2])
    corner1 = np.minimum(boxes[:, None, 2:], truths[None, :, 2:])
    shared = np.clip(corner1 - corner0, 0, None).prod(axis=2)
    own = _areas(boxes)[:, None]
    whole = np.where(image.ignored[None], own, own + _areas(truths)[None] - shared)
    return np.asarray(shared / np.maximum(whole, 1e-12), np.float64)


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float64)


# -- from matches to one number --------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Precision and recall at each hit, from the best score on.

    Attributes:
        hits, false_positives: float64 (k,), ascending, how many by then.
        truths: faces that count; images: pictures.
    """

    hits: Floats
    false_positives: Floats
    truths: float
    images: int

    @property
    def recall(self) -> Floats:
        """float64 (k,), ascending, 0 to 1; nan where no face counts."""
        return self.hits / (self.truths or np.nan)

    @property
    def precision(self) -> Floats:
        """float64 (k,), 0 to 1, as measured."""
        return self.hits / np.maximum(self.hits + self.false_positives, 1e-12)

    @property
    def envelope(self) -> Floats:
        """The best precision at this recall or a higher one: float64 (k,), never rising."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    @property
    def area(self) -> float:
        """The area under the envelope, 0 to 1; nan where no face counts."""
        steps = np.diff(self.hits, prepend=0.0)
        return float((steps * self.envelope).sum() / (self.truths or np.nan))

    @property
    def coco(self) -> float:
        """The mean of the envelope at 101 recalls from 0 to 1, 0 beyond the highest; nan without faces."""
        if not self.truths:
            return float("nan")
        at = np.searchsorted(self.recall, COCO_RECALLS, side="left")
        return float(np.append(self.envelope, 0.0)[at].mean())

    @property
    def recall_at_one(self) -> float:
        """The recall where a picture has one false detection at most, on average over `images`."""
        allowed = self.hits[self.false_positives <= self.images]
        return float(allowed.max(initial=0.0) / (self.truths or np.nan))


@dataclass(frozen=True)
class Sorted:
    """The detections of all pictures by descending score, made once for many resamplings.

    Attributes:
        hit: bool (n,) of the counted detections; image: int64 (n,), the picture of each.
        run: int64 (n,), which run of equal scores each belongs to, from 0; starts: int64 (runs,), their first.
        truths: float64 (images,), the faces that count in each picture.
    """

    hit: NDArray[np.bool_]
    image: NDArray[np.int64]
    run: NDArray[np.int64]
    starts: NDArray[np.int64]
    truths: Floats

    @classmethod
    def of(cls, matched: Sequence[Matched]) -> Sorted:
        """Sort what `match` gave for each picture."""
        scores = _joined((m.scores[m.counted] for m in matched), np.float64)
        order = np.argsort(-scores, kind="stable")
        image = np.repeat(np.arange(len(matched)), [int(m.counted.sum()) for m in matched])[order]
        hit = _joined((m.hit[m.counted] for m in matched), np.bool_)[order]
        first = np.diff(scores[order], prepend=np.inf) != 0
        truths = np.array([m.truths for m in matched], np.float64)
        return cls(hit, image, np.cumsum(first) - 1, np.flatnonzero(first), truths)

    def curve(self, weights: Floats | None = None) -> Curve:
        """The curve of the pictures, or of a resampling in which each stands `weights` times."""
        weights = np.ones(len(self.truths)) if weights is None else weights
        weight = weights[self.image]
        right, wrong = weight * self.hit, weight * ~self.hit
        run = self.run[self.hit]
        before_right, in_right = self._before_and_in_runs(right)
        before_wrong, in_wrong = self._before_and_in_runs(wrong)
        hits = np.cumsum(right)[self.hit]
        place = (hits - before_right[run]) / (in_right[run] + 1)
        others = before_wrong[run] + place * in_wrong[run]
        return Curve(hits, others, float(weights @ self.truths), len(self.truths))

    def _before_and_in_runs(self, values: Floats) -> tuple[Floats, Floats]:
        """The sums of `values` before each run of equal scores, and in it: float64 (runs,) each."""
        inside = np.add.reduceat(values, self.starts) if len(values) else values
        return np.cumsum(inside) - inside, inside


def average_precision(matched: Sequence[Matched]) -> float:
    """The whole area under the precision-recall envelope, 0 to 1; nan where no face counts."""
    return Sorted.of(matched).curve().area


def coco_average_precision(matched: Sequence[Matched]) -> float:
    """COCO's mean of 101 points of the envelope, 0 to 1; nan where no face counts."""
    return Sorted.of(matched).curve().coco


def recall_at_one(matched: Sequence[Matched]) -> float:
    """The recall, 0 to 1, at one false detection a picture on average; nan where no face counts."""
    return Sorted.of(matched).curve().recall_at_one


# -- how sure it is --------------------------------------------------------------------------------


Interval = tuple[float, float]


def bootstrap(
    matched: Sequence[Matched], repetitions: int = 1000, seed: int = 0, coco: bool = False
) -> Interval:
    """The 95 % interval of the average precision, pictures drawn anew (Efron's percentile bootstrap)."""
    return interval_of(_resampled(Sorted.of(matched), repetitions, seed, coco))


def paired_bootstrap(
    a: Sequence[Matched],
    b: Sequence[Matched],
    repetitions: int = 1000,
    seed: int = 0,
    coco: bool = False,
) -> Interval:
    """The 95 % interval of AP(a) - AP(b) for two detectors on the same pictures, drawn together.

    Raises:
        ValueError: the two are not of equally many pictures.
    """
    if len(a) != len(b):
        raise ValueError(f"expected the same pictures twice, found {len(a)} and {len(b)}")
    first, second = (_resampled(Sorted.of(part), repetitions, seed, coco) for part in (a, b))
    return interval_of(first - second)


def _resampled(detections: Sorted, repetitions: int, seed: int, coco: bool) -> Floats:
    """float64 (repetitions,): the average precision of each resampling, the same ones for the same seed."""
    n, random = len(detections.truths), np.random.default_rng(seed)
    curves = (
        detections.curve(np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64))
        for _ in range(repetitions)
    )
    return np.array([curve.coco if coco else curve.area for curve in curves])


def interval_of(values: Floats) -> Interval:
    """The 2.5 and 97.5 per cent points; a resampling without any face says nothing and is left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _joined(parts: Iterable[NDArray[np.generic]], dtype: type[np.generic]) -> NDArray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
