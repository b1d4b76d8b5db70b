"""Looking at a detector while it trains: its detections on sample pictures, as one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.errors import InputError
from edge.files import whole_file
from edge.pixels import Image, fit
from edge.results import Faces
from train.detection.data import BoxedImage, BoxedImages

TILE = 256
COLUMNS, ROWS = 4, 3
SHOWN_FROM = 0.3
TRUTH, FOUND = (90, 160, 255), (80, 220, 120)


def draw_samples(path: Path, images: BoxedImages, found: Sequence[Faces]) -> None:
    """Write a JPEG of twelve pictures spread over the split: truth in blue, detections in green.

    Raises:
        InputError: the file cannot be written.
    """
    chosen = np.linspace(0, len(images) - 1, COLUMNS * ROWS).astype(int)
    tiles = [_tile(images.images[index], found[index]) for index in chosen]
    rows = [np.hstack(tiles[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS)]
    _, content = cv2.imencode(".jpg", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(content.tobytes())
    except OSError as error:
        raise InputError(f"Cannot write the samples to {path}: {error.strerror}.") from error


def _tile(image: BoxedImage, faces: Faces) -> Image:
    picture = image.read().copy()
    thickness = max(1, round(max(picture.shape[:2]) / TILE))
    for box in image.boxes:
        _rectangle(picture, box, TRUTH, 3 * thickness)
    for box in faces.boxes[faces.scores >= SHOWN_FROM]:
        _rectangle(picture, box, FOUND, thickness)
    return fit(picture, TILE, TILE, "letterbox")


def _rectangle(picture: Image, box: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, thickness)
