"""How sure the annotated boxes are: two detectors that learnt from different pictures beside them.

    python bench/faces_annotations.py --data DIR --peers DIR [--bundle face-320] [--split train]

For each annotated face that both ours (int8 TFLite) and YuNet_n at 640 find (IoU 0.3), its size by each of them, the
square root of the box's area. Where the two agree with one another better than either does with the annotation, and
err the same way (the correlation of the logarithms of their sizes over the annotated one), the annotation is what
varies: no detector can answer with a box that is not in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from faces import Entrant, conditions, int8_and_yunets, markdown_table, measurable
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge.boxes import iou
from edge.results import Faces
from train.detection.data import BoxedImage, BoxedImages, pictures

FOUND = 0.3
LONG_SIDE = 640


@dataclass(frozen=True)
class Size:
    """Of one annotated face: the logarithms of its size by ours and by theirs over the annotated size."""

    source: str
    ours: float
    theirs: float


def sizes(image: BoxedImage, ours: Faces, theirs: Faces) -> list[Size]:
    """Of the faces of a picture that both find."""
    found = [_best(image, faces) for faces in (ours, theirs)]
    rows = zip(*found, strict=True)
    return [Size(image.source, a, b) for a, b in rows if np.isfinite(a) and np.isfinite(b)]


def _best(image: BoxedImage, faces: Faces) -> NDArray[np.float64]:
    """By each annotated face (n,), the log of the size of the box that overlaps it most over its own; nan for none."""
    if not len(faces.boxes):
        return np.full(len(image.boxes), np.nan)
    overlaps = iou(faces.boxes, image.boxes)
    best = overlaps.argmax(axis=0)
    ratio = _log_size(faces.boxes)[best] - _log_size(image.boxes)
    return np.where(overlaps.max(axis=0) >= FOUND, ratio, np.nan)


def _log_size(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    return 0.5 * np.log(np.maximum(sides.prod(axis=1), 1e-9))


def all_sizes(images: BoxedImages, ours: Entrant, theirs: Entrant) -> list[Size]:
    """Of the faces of all pictures that both find."""
    found = []
    both = zip(images.images, pictures(images.images), strict=True)
    for image, picture in track(both, "detecting", total=len(images), console=Console(stderr=True)):
        if len(image.boxes):
            found += sizes(image, ours.detect(picture), theirs.detect(picture))
    return found


def _spread(logs: NDArray[np.float64]) -> str:
    low, middle, high = np.exp(np.quantile(logs, [0.1, 0.5, 0.9]))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), envvar="DATA", help="A COCO folder of faces.")
@click.option("--peers", "folder", type=click.Path(path_type=Path), envvar="PEERS", help="Their models.")
@click.option("--bundle", default="face-320", show_default=True)
@click.option("--split", default="train", show_default=True)
def main(data: Path | None, folder: Path | None, bundle: str, split: str) -> None:
    """Print a table in Markdown: medians of the sizes' ratios, and their middle 80 %."""
    console = Console(width=200)
    found = measurable(data, folder, split, console)
    if found is None:
        return
    images, models = found
    ours, _, yunet_n = int8_and_yunets((bundle,), models, LONG_SIDE, console)
    rows = all_sizes(images, ours, yunet_n)
    table = markdown_table(
        "size", "faces", "ours / annotated", "YuNet_n / annotated", "ours / YuNet_n", "correlation"
    )
    for source in sorted({row.source for row in rows}):
        a, b = np.array([(row.ours, row.theirs) for row in rows if row.source == source]).T
        table.add_row(
            source, f"{len(a):,}", _spread(a), _spread(b), _spread(a - b), f"{np.corrcoef(a, b)[0, 1]:.2f}"
        )
    console.print(conditions(images), highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
