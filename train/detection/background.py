"""Training crops of things that are no faces: tiles of small pictures, a few views with faces among them.

Photographs of people teach what stands beside a face, and nothing of what merely looks like one: a detector that has
seen no others answers to dogs and owls. A data set of small pictures without faces, such as CIFAR-10, shows them. Its
pictures are coarse once they are enlarged; so that this is not what tells a dog from a face, faces as coarse lie among
them.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge.pixels import Image
from train.detection.augment import Picture, Random, Targets, filmed, view
from train.detection.loss import IGNORED
from train.detection.recipe import DetectorRecipe

TILE_PX = 32
MOST_VIEWS = 3
"""With faces, in one crop; crowds would otherwise fill a batch's list of faces."""

SMALLEST_FACE_PX = 10.0
"""In a tile, before it is enlarged: of a smaller face too little is left to be told from a dog's."""


def background_crop(
    images: Image, picture: Picture, size: int, recipe: DetectorRecipe, rng: Random
) -> tuple[Image, Targets]:
    """A training crop of square tiles, from one to as many as fit in without shrinking.

    Args:
        images: uint8 (N, TILE_PX, TILE_PX, 3) RGB, without faces.
        picture: up to MOST_VIEWS tiles are views of it.
        size: height and width of the crop.

    Returns:
        uint8 (size, size, 3) and its targets.
    """
    side = round(np.exp(rng.uniform(0, np.log(size / TILE_PX))))
    tiles = images[rng.integers(len(images), size=side**2)]
    targets = [np.zeros((0, 5), np.float32)]
    for place in rng.permutation(side**2)[: rng.integers(MOST_VIEWS + 1)]:
        tiles[place], seen = view(picture, TILE_PX, recipe, rng)
        left, top = TILE_PX * (place % side), TILE_PX * (place // side)
        targets.append(_clear(seen) + np.array([left, top, left, top, 0], np.float32))
    rows = tiles.reshape(side, side, TILE_PX, TILE_PX, 3).swapaxes(1, 2)
    pixels = rows.reshape(side * TILE_PX, side * TILE_PX, 3)
    zoom = size / (side * TILE_PX)
    enlarged = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)
    return filmed(enlarged, recipe, rng), np.concatenate(targets) * np.float32([zoom] * 4 + [1])


def _clear(targets: Targets) -> Targets:
    """Faces too small in a tile to be recognised are ignored."""
    clear = targets.copy()
    clear[(targets[:, 2:4] - targets[:, :2]).min(axis=1) < SMALLEST_FACE_PX, 4] = IGNORED
    return clear
