"""Our face detector beside YuNet where a camera has it harder: faces turned, small, dark, blurred, compressed.

    python bench/faces_conditions.py --data DIR --peers DIR [--bundle face-320]... [--split test] [--source NAME]

Each picture is first brought to 320x320 as the edge does it (letterbox), then spoilt, so that a blur of 1.5 pixels is
the same for every picture, and all detectors see the same pixels. The box of a turned face is the one around the
turned ellipse that fills its upright box. Ours is the int8 TFLite file. AP50 of all faces by the rule of
`bench/faces.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import cv2
import numpy as np
from faces import conditions, int8_and_yunets, markdown_table, measurable
from rich.console import Console
from rich.progress import track

from edge.pixels import Image
from train.detection.augment import moved_boxes, rotation, warped
from train.detection.average_precision import Matched, average_precision, match
from train.detection.data import BoxedImage, pictures
from train.effects import blurred, compressed, with_noise

SIDE = 320
GAMMA = 2.2
SENSOR_NOISE = 5.0


def _as_it_is(pixels: Image, _: np.random.Generator) -> Image:
    return pixels


def _in_light(part: float) -> Callable[[Image, np.random.Generator], Image]:
    """With that part of the light, through the display's gamma, and a sensor's noise on all channels."""

    def darkened(pixels: Image, rng: np.random.Generator) -> Image:
        noise = rng.normal(0, SENSOR_NOISE, (*pixels.shape[:2], 1))
        return with_noise(pixels * part ** (1 / GAMMA), noise)

    return darkened


def _grey(pixels: Image, _: np.random.Generator) -> Image:
    return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


@dataclass(frozen=True)
class Condition:
    """What happens to a picture: it is scaled and turned (degrees), then its pixels are spoilt."""

    name: str
    degrees: float = 0.0
    scale: float = 1.0
    spoil: Callable[[Image, np.random.Generator], Image] = _as_it_is


CONDITIONS = (
    Condition("as it is"),
    Condition("turned by 15 degrees", degrees=15),
    Condition("turned by 30 degrees", degrees=30),
    Condition("turned by 45 degrees", degrees=45),
    Condition("half as large", scale=0.5),
    Condition("a quarter of the light, some noise", spoil=_in_light(1 / 4)),
    Condition("a sixteenth of the light, some noise", spoil=_in_light(1 / 16)),
    Condition("grey", spoil=_grey),
    Condition("Gaussian blur, sigma 1.5 px", spoil=lambda pixels, _: blurred(pixels, 1.5)),
    Condition("JPEG, quality 20", spoil=lambda pixels, _: compressed(pixels, 20)),
)


def seen(
    image: BoxedImage, picture: Image, condition: Condition, rng: np.random.Generator
) -> tuple[BoxedImage, Image]:
    """The picture in the middle of a grey square of 320, under a condition, with its faces where they lie there."""
    scale = condition.scale * SIDE / max(image.width, image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    scales = np.array(size) / (image.width, image.height)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    turn = rotation(math.radians(condition.degrees))
    matrix = np.column_stack([turn, SIDE / 2 - turn @ (np.array(size) / 2)])
    boxes = moved_boxes(image.boxes * np.tile(scales, 2), matrix).clip(0, SIDE).astype(np.float32)
    square = condition.spoil(warped(small, matrix, SIDE), rng)
    return replace(image, width=SIDE, height=SIDE, boxes=boxes), square


def squares(images: tuple[BoxedImage, ...], condition: Condition) -> Iterator[tuple[BoxedImage, Image]]:
    """Each picture as `seen`; the same noise for every detector and at every run."""
    rng = np.random.default_rng(0)
    for image, picture in zip(images, pictures(images), strict=True):
        yield seen(image, picture, condition, rng)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), envvar="DATA", help="A COCO folder of faces.")
@click.option("--peers", "folder", type=click.Path(path_type=Path), envvar="PEERS", help="Their models.")
@click.option("--bundle", "bundles", multiple=True, default=("face-320",), show_default=True)
@click.option("--split", default="test", show_default=True)
@click.option("--source", metavar="NAME", help="The pictures of this source alone.")
def main(
    data: Path | None, folder: Path | None, bundles: tuple[str, ...], split: str, source: str | None
) -> None:
    """Measure ours and theirs, and print a table in Markdown."""
    console = Console(width=200)
    found = measurable(data, folder, split, console)
    if found is None:
        return
    images, theirs = found
    if source is not None:
        images = replace(images, images=tuple(one for one in images.images if one.source == source))
    entrants = int8_and_yunets(bundles, theirs, SIDE, console)
    table = markdown_table("AP50", *(entrant.name for entrant in entrants))
    for condition in track(CONDITIONS, "conditions", console=Console(stderr=True)):
        matched: dict[str, list[Matched]] = {entrant.name: [] for entrant in entrants}
        for image, square in squares(images.images, condition):
            for entrant in entrants:
                matched[entrant.name].append(match(image, entrant.detect(square)))
        table.add_row(condition.name, *(f"{average_precision(found):.3f}" for found in matched.values()))
    console.print(conditions(images), highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
