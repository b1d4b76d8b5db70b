"""The order and the augmentation of one epoch, drawn from (seed, epoch) alone.

So an epoch is the same whether the training came to it in one go or after `--resume`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge.pixels import PAD_VALUE, Image, normalise
from train.data import LabelledImages
from train.recipe import Recipe

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


def batches(data: LabelledImages, recipe: Recipe, epoch: int) -> Iterator[Batch]:
    """The epoch's batches: float32 (batch_size, H, W, 3) in [-1, 127/128] and int64 labels.

    The last, smaller batch is left out; which images those are changes with the epoch.
    """
    rng = np.random.default_rng((recipe.seed, epoch))
    order = rng.permutation(len(data))
    for step in range(steps_per_epoch(data, recipe)):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        images = data.images[chosen]
        if recipe.flip:
            images = flipped(images, rng)
        if recipe.shift_px:
            images = shifted(images, recipe.shift_px, rng)
        yield normalise(images), data.labels[chosen]


def steps_per_epoch(data: LabelledImages, recipe: Recipe) -> int:
    """Whole batches in the data; one smaller batch where there is not even one."""
    return max(1, len(data) // recipe.batch_size)


def flipped(images: Image, rng: np.random.Generator) -> Image:
    """Mirror each image left to right with probability one half: uint8 (N, H, W, C)."""
    mirror = rng.random(len(images)) < 0.5
    return np.where(mirror[:, None, None, None], images[:, :, ::-1], images)


def shifted(images: Image, limit_px: int, rng: np.random.Generator) -> Image:
    """Move each image by up to `limit_px` pixels in x and y, filling with 128: uint8 (N, H, W, C)."""
    height, width = images.shape[1:3]
    edge = (limit_px, limit_px)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)), constant_values=PAD_VALUE)
    top, left = rng.integers(0, 2 * limit_px + 1, (2, len(images)))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    moved: Image = padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved
