"""What each kind of mistake of a face detector costs: AP50 were it not made (Bolya et al. 2020, arXiv 2008.08439).

    python bench/faces_errors.py --data DIR --peers DIR [--bundle face-320]... [--split val]

In turn each misplaced box (its best overlap with an annotated face is .1 to .5) is put in its place, each box where
nothing is annotated (below .1) is left out, and the faces that no box touches (below .1) are no longer asked for. Two
mistakes may hide one another, so the gains do not add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from faces import Entrant, accuracy_table, conditions, int8_and_yunets, measurable
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge.boxes import iou
from edge.results import Faces
from train.detection.average_precision import Matched, match
from train.detection.data import BoxedImage, BoxedImages, pictures

TOUCHES, HITS = 0.1, 0.5
LONG_SIDE = 320


def in_place(image: BoxedImage, faces: Faces) -> Matched:
    """As though each misplaced box were the face that it overlaps most."""
    overlaps = _overlaps(image, faces)
    best = overlaps.max(axis=1)
    misplaced = (best >= TOUCHES) & (best < HITS)
    boxes = faces.boxes.copy()
    boxes[misplaced] = image.boxes[overlaps.argmax(axis=1)[misplaced]]
    return match(image, replace(faces, boxes=boxes))


def without_false(image: BoxedImage, faces: Faces) -> Matched:
    """As though nothing were seen where nothing is annotated."""
    kept = _overlaps(image, faces).max(axis=1) >= TOUCHES
    return match(image, Faces(faces.boxes[kept], faces.scores[kept]))


def without_missed(image: BoxedImage, faces: Faces) -> Matched:
    """As though the faces that no box touches were not there."""
    touched = (_overlaps(image, faces) >= TOUCHES).any(axis=0)
    return match(replace(image, boxes=image.boxes[touched], ignored=image.ignored[touched]), faces)


def _overlaps(image: BoxedImage, faces: Faces) -> NDArray[np.float32]:
    """IoU (detections, faces or one column of zeros where there are none)."""
    if not len(image.boxes):
        return np.zeros((len(faces), 1), np.float32)
    return iou(faces.boxes, image.boxes)


WORLDS: dict[str, Callable[[BoxedImage, Faces], Matched]] = {
    "as it is": match,
    "misplaced boxes in place": in_place,
    "none where none is annotated": without_false,
    "no face missed": without_missed,
}


def all_worlds(images: BoxedImages, entrants: list[Entrant]) -> dict[str, list[Matched]]:
    """By "detector, world", what is found in each picture."""
    found: dict[str, list[Matched]] = {f"{one.name}, {world}": [] for one in entrants for world in WORLDS}
    both = zip(images.images, pictures(images.images), strict=True)
    for image, picture in track(both, "detecting", total=len(images), console=Console(stderr=True)):
        for entrant in entrants:
            faces = entrant.detect(picture)
            for world, matched in WORLDS.items():
                found[f"{entrant.name}, {world}"].append(matched(image, faces))
    return found


@click.command()
@click.option("--data", type=click.Path(path_type=Path), envvar="DATA", help="A COCO folder of faces.")
@click.option("--peers", "folder", type=click.Path(path_type=Path), envvar="PEERS", help="Their models.")
@click.option("--bundle", "bundles", multiple=True, default=("face-320",), show_default=True)
@click.option("--split", default="val", show_default=True)
def main(data: Path | None, folder: Path | None, bundles: tuple[str, ...], split: str) -> None:
    """Print a table in Markdown: AP50 of all and by source, in each world."""
    console = Console(width=200)
    measured = measurable(data, folder, split, console)
    if measured is None:
        return
    images, models = measured
    found = all_worlds(images, int8_and_yunets(bundles, models, LONG_SIDE, console))
    console.print(conditions(images), highlight=False)
    console.print(accuracy_table(found, images))


if __name__ == "__main__":
    main()
