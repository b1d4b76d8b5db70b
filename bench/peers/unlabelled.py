"""Find the faces that a data set's annotations leave out, with YuNet as the teacher.

    python -m bench.peers.unlabelled --data DIR --teacher yunet_n_dynamic.onnx --out unlabelled.json
    sightline train face ignored_from=unlabelled.json --data DIR

A confident detection that overlaps no annotated face is written as a place to ignore while training, see
`train.detection.unlabelled`. Of the 4,090 training pictures that `models/face.keras` was trained on it
finds 983 in 552, beside 9,858 annotated faces: background figures in news photographs, for the most part.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import cv2
from rich.progress import track

from bench.peers.faces import YuNet, open_session
from edge.boxes import iou
from edge.files import write_text
from train.data import read_image
from train.detection.data import BoxedImage, load_boxed

LONG_SIDE = 832
"""Larger than the pictures: small faces are found at twice their size."""

CONFIDENT, OVERLAP = 0.6, 0.3


@click.command()
@click.option("--data", required=True, help="A folder with annotations.json and images/.")
@click.option("--teacher", required=True, type=click.Path(path_type=Path, exists=True), help="YuNet's ONNX.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The JSON file to write.")
def unlabelled(data: str, teacher: Path, out: Path) -> None:
    """Write {image id: [[x0, y0, x1, y1, score], ...]}, pixels of the picture."""
    cv2.setNumThreads(1)
    yunet = YuNet(open_session(teacher), LONG_SIDE)
    images = load_boxed(data, "train").images
    found = {image.image_id: _places(yunet, image) for image in track(images, "looking")}
    kept = {image_id: places for image_id, places in found.items() if places}
    write_text(out, json.dumps(kept) + "\n")
    click.echo(f"{sum(map(len, kept.values()))} places in {len(kept)} of {len(images)} pictures: {out}")


def _places(yunet: YuNet, image: BoxedImage) -> list[list[float]]:
    faces = yunet.detect(read_image(image.path))
    known = iou(faces.boxes, image.boxes).max(axis=1, initial=0.0)
    new = (faces.scores >= CONFIDENT) & (known < OVERLAP)
    rows = zip(faces.boxes[new], faces.scores[new], strict=True)
    return [[round(float(value), 2) for value in (*box, score)] for box, score in rows]


if __name__ == "__main__":
    unlabelled()
