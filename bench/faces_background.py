"""What our face detector and YuNet take for a face where there is none: the animals and vehicles of CIFAR-10.

    python bench/faces_background.py --data DIR --peers DIR --without DIR [--bundle face-320]... [--split val]

WITHOUT holds CIFAR-10, whose 10,000 test images are laid out in squares of 320 pixels, GRIDS of them to a side; a
detector that learnt from its training images in such squares knows their kind. The last row is of photographs that
nobody here learnt from, scikit-image's and scikit-learn's but for two that show a man or a woman, whole and in
quarters. Scores of two detectors do not mean the same, so each is taken from the score on at which it finds 80 % of the
faces of the split (IoU 0.5). A few images of CIFAR-10 do show people, small or from afar; all detectors see the same
ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

import click
import cv2
import numpy as np
from faces import Entrant, all_matched, conditions, int8_and_yunets, markdown_table, measurable
from rich.console import Console
from rich.progress import track

from edge.pixels import Image
from train.data import load
from train.detection.average_precision import Matched

SIDE = 320
GRIDS = (2, 5, 10)
RECALL = 0.8
SHOW_SOMEBODY = ("astronaut", "camera")
SMALLEST_SIDE = 250
"""Pixels of a photograph: below are test patterns."""


def squares(images: Image, grid: int) -> Iterator[Image]:
    """All images uint8 (N, H, W, 3), grid x grid of them in each square of SIDE; the last few left out."""
    side = SIDE // grid
    for first in range(0, len(images) - grid**2 + 1, grid**2):
        tiles = [
            cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
            for image in images[first : first + grid**2]
        ]
        yield np.vstack([np.hstack(tiles[row : row + grid]) for row in range(0, grid**2, grid)])


def photographs() -> Iterator[Image]:
    """Those without faces that come with scikit-image and scikit-learn, whole and in quarters."""
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        for path in sorted(Path(str(files(package)), folder).iterdir()):
            picture = cv2.imread(str(path)) if path.stem not in SHOW_SOMEBODY else None
            if picture is not None and min(picture.shape[:2]) >= SMALLEST_SIDE:
                picture = picture[..., ::-1]
                rows, columns = (side // 2 for side in picture.shape[:2])
                quarters = [picture[y : y + rows, x : x + columns] for y in (0, rows) for x in (0, columns)]
                yield from map(np.ascontiguousarray, (picture, *quarters))


def score_at(matched: list[Matched]) -> float:
    """The score from which on RECALL of the faces are found; 0 where so many never are."""
    hits = np.sort(np.concatenate([one.scores[one.hit] for one in matched]))[::-1]
    wanted = int(np.ceil(RECALL * sum(one.truths for one in matched)))
    return float(hits[wanted - 1]) if wanted <= len(hits) else 0.0


def false_faces(
    entrants: list[Entrant], scores: list[float], pictures: Iterable[Image], each: int
) -> list[str]:
    """Of each detector, how many faces it sees in a hundred images; each picture holds so many of them."""
    counts, images = np.zeros(len(entrants)), 0
    for picture in track(pictures, "looking", total=None, console=Console(stderr=True)):
        images += each
        for column, (entrant, score) in enumerate(zip(entrants, scores, strict=True)):
            counts[column] += np.count_nonzero(entrant.detect(picture).scores >= score)
    return [f"{count:.2f}" for count in 100 * counts / images]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), envvar="DATA", help="A COCO folder of faces.")
@click.option("--peers", "folder", type=click.Path(path_type=Path), envvar="PEERS", help="Their models.")
@click.option("--without", envvar="WITHOUT", metavar="DIR", help="A folder with CIFAR-10: no faces.")
@click.option("--bundle", "bundles", multiple=True, default=("face-320",), show_default=True)
@click.option("--split", default="val", show_default=True, help="Whose faces set the scores.")
def main(
    data: Path | None, folder: Path | None, without: str | None, bundles: tuple[str, ...], split: str
) -> None:
    """Count false faces of ours and theirs, and print a table in Markdown."""
    console = Console(width=200)
    found = measurable(data, folder, split, console)
    if found is None:
        return
    if without is None:
        console.print("skipped: give --without DIR (or WITHOUT=), a folder with CIFAR-10")
        return
    images = load(without, "test").images
    faces, theirs = found
    entrants = int8_and_yunets(bundles, theirs, SIDE, console)
    scores = [score_at(matched) for matched in all_matched(entrants, faces).values()]
    table = markdown_table("false faces in 100 images", *(entrant.name for entrant in entrants))
    table.add_row(f"from this score on it finds {RECALL:.0%}", *(f"{score:.2f}" for score in scores))
    for grid in GRIDS:
        counts = false_faces(entrants, scores, squares(images, grid), grid**2)
        table.add_row(f"CIFAR-10, each {SIDE // grid} px wide", *counts)
    table.add_row("photographs", *false_faces(entrants, scores, photographs(), 1))
    console.print(f"{conditions(faces)}; {len(images):,} images without faces", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
