"""A detector's figures: AP50, AP50-95 and recall, for all pictures, by source and by face size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.bundle import InputSpec
from edge.pixels import Placement
from edge.results import Faces
from train.detection.average_precision import COCO_THRESHOLDS, Curve, Matched, Sizes, Sorted, bootstrap
from train.detection.data import BoxedImage, BoxedImages
from train.detection.evaluate import matches

SIZES = {"small": (0.0, 16.0), "medium": (16.0, 48.0), "large": (48.0, math.inf)}
"""Square roots of the boxes' areas in pixels of the model's input, low <= size < high. COCO's 32 and 96 are
for objects in pictures of 640; at an input of 320 a face of 16 covers two cells of the finest map."""


@dataclass(frozen=True)
class Figures:
    """What one group of pictures or faces shows; all values 0 to 1, nan where the group has no face.

    Attributes:
        images, faces: how many; for a face size all images, since each may hold a false detection.
        ap50: the whole area under the precision-recall envelope at IoU 0.5; ci95: its 95 % interval, images
            resampled 1000 times.
        ap50_coco: the mean of 101 points of the same curve, as pycocotools gives it; a few thousandths off.
        ap50_95: the mean of COCO's average precision at the IoU thresholds 0.50, 0.55, ... 0.95.
        recall_at_one: the recall with one false detection an image on average.
    """

    images: int
    faces: int
    ap50: float
    ci95: tuple[float, float]
    ap50_coco: float
    ap50_95: float
    recall_at_one: float

    def as_json(self) -> dict[str, Any]:
        """For JSON, which knows no nan: null instead."""
        found: dict[str, Any] = without_nan(asdict(self))
        return found


@dataclass(frozen=True)
class Measured:
    """All figures of a detector on one set of pictures.

    Attributes:
        overall: of all; by_source, by_size: of the parts.
        curves: precision and recall at IoU 0.5, of all and by source.
    """

    overall: Figures
    by_source: dict[str, Figures]
    by_size: dict[str, Figures]
    curves: dict[str, Curve]

    def as_json(self) -> dict[str, Any]:
        """The fields of `evaluate --json`."""
        figures = self.overall.as_json()
        return {
            "metric": "ap50",
            "value": figures.pop("ap50"),
            "n": figures.pop("images"),
            **figures,
            "by_source": {name: part.as_json() for name, part in self.by_source.items()},
            "by_size": {name: part.as_json() for name, part in self.by_size.items()},
        }


def measure(
    images: BoxedImages, found: Sequence[Faces], spec: InputSpec, repetitions: int = 1000
) -> Measured:
    """Hold a detector's faces against the truth.

    Args:
        images: the truth; found: the detections in each of them.
        spec: the model's input, which decides how large a face appeared to it.
        repetitions: of the bootstrap.
    """
    matched = [matches(images, found, threshold) for threshold in COCO_THRESHOLDS]
    by_source = {
        source: _pick(matched, [image.source == source for image in images.images])
        for source in sorted({image.source for image in images.images} - {""})
    }
    scales = [_scale(image, spec) for image in images.images]
    by_size = {
        name: [
            matches(images, found, threshold, [Sizes(low, high, scale) for scale in scales])
            for threshold in COCO_THRESHOLDS
        ]
        for name, (low, high) in SIZES.items()
    }
    return Measured(
        _figures(matched, repetitions),
        {name: _figures(part, repetitions) for name, part in by_source.items()},
        {name: _figures(part, repetitions) for name, part in by_size.items()},
        {name: Sorted.of(part[0]).curve() for name, part in {"all": matched, **by_source}.items()},
    )


def _pick(matched: Sequence[Sequence[Matched]], chosen: Sequence[bool]) -> list[list[Matched]]:
    """The chosen images, at each IoU threshold."""
    return [[one for one, wanted in zip(at, chosen, strict=True) if wanted] for at in matched]


def _figures(matched: Sequence[Sequence[Matched]], repetitions: int) -> Figures:
    """From what was matched at each of COCO's IoU thresholds, 0.5 first."""
    curves = [Sorted.of(at).curve() for at in matched]
    return Figures(
        images=len(matched[0]),
        faces=sum(one.truths for one in matched[0]),
        ap50=curves[0].area,
        ci95=bootstrap(matched[0], repetitions),
        ap50_coco=curves[0].coco,
        ap50_95=float(np.mean([curve.coco for curve in curves])),
        recall_at_one=curves[0].recall_at_one,
    )


def _scale(image: BoxedImage, spec: InputSpec) -> float:
    """Pixels of the input for one of the picture; the geometric mean where the sides differ."""
    placement = Placement.of(image.height, image.width, spec.height, spec.width, spec.resize)
    source, target = placement.source, placement.target
    return math.sqrt(target.width / source.width * target.height / source.height)


def without_nan(value: Any) -> Any:
    """A number, or tuples and dictionaries of them, for JSON, which knows no nan: null instead."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
