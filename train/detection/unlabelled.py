"""Faces that the annotations leave out: found by a teacher, and kept out of the background.

Photographs of crowds are seldom annotated to the last face. A detector that is punished for finding one
learns to overlook its like. A file of such places, `{image id: [[x0, y0, x1, y1, score], ...]}` in pixels
of the picture, makes them count as neither face nor background while training.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.errors import InputError
from train.detection.data import BoxedImage, BoxedImages

Places = dict[int, list[list[float]]]


def read_places(path: Path) -> Places:
    """The places by image id; raises InputError where the file is missing or of another form."""
    try:
        content = json.loads(path.read_bytes())
        return {int(image_id): [_corners(row) for row in rows] for image_id, rows in content.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected places to ignore.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} holds no places ({error}); expected {{image id: [[x0, y0, x1, y1, score], ...]}}."
        ) from error


def _corners(row: list[float]) -> list[float]:
    x0, y0, x1, y1, *_ = (float(value) for value in row)
    return [x0, y0, x1, y1]


def with_ignored(data: BoxedImages, places: Places) -> BoxedImages:
    """The same pictures with these places ignored."""
    images = tuple(_ignoring(image, places.get(image.image_id, [])) for image in data.images)
    count = sum(len(places.get(image.image_id, [])) for image in data.images)
    return replace(data, images=images, notes=(*data.notes, f"{count} unlabelled faces ignored"))


def _ignoring(image: BoxedImage, places: list[list[float]]) -> BoxedImage:
    boxes = np.array(places, np.float32).reshape(-1, 4)
    return replace(
        image,
        boxes=np.concatenate([image.boxes, boxes]),
        ignored=np.concatenate([image.ignored, np.ones(len(boxes), np.bool_)]),
    )
