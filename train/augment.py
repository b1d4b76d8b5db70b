"""The order and the augmentation of one epoch, drawn from (seed, epoch) alone.

So an epoch is the same whether the training came to it in one go or after `--resume`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.pixels import PAD_VALUE, Image
from train.data import LabelledImages
from train.effects import blurred, compressed, with_noise
from train.recipe import Recipe

JPEG_QUALITY = (50, 96)
"""From the first on, below the second."""
NOISE_SIGMA = (2.0, 15.0)
"""Of 255, drawn evenly; the same for all of an image's values."""
BLUR_SIGMA_PX = (0.3, 1.2)


@dataclass(frozen=True)
class Patches:
    """A rectangle of another image of the batch in each image, or none (CutMix, Yun et al. 2019, arXiv 1905.04899).

    Attributes:
        other: int64 (N,), the places in the batch that the rectangles come from.
        inside: bool (N, H, W), where they are.
    """

    other: NDArray[np.int64]
    inside: NDArray[np.bool_]

    @property
    def share(self) -> NDArray[np.float32]:
        """Of each image's pixels, float32 (N,)."""
        share: NDArray[np.float32] = self.inside.mean(axis=(1, 2), dtype=np.float32)
        return share

    def on(self, images: Image) -> Image:
        """The batch's images, uint8 (N, H, W, C), with them."""
        return np.where(self.inside[..., None], images[self.other], images)


@dataclass(frozen=True)
class View:
    """Which images a batch shows, and from where; drawn before any pixel is touched.

    Attributes:
        chosen: int64 (N,), positions in the data.
        mirror: bool (N,), left to right.
        shift: int64 (2, N), rows and columns that the image's window moves, each -shift_px to shift_px.
        patches: put onto what is seen then; None for none at all.
    """

    chosen: NDArray[np.int64]
    mirror: NDArray[np.bool_]
    shift: NDArray[np.int64]
    patches: Patches | None = None

    @property
    def patched(self) -> NDArray[np.bool_]:
        """Which images hold a part of another one, (N,)."""
        return self.patches.share > 0 if self.patches else np.zeros(len(self.chosen), np.bool_)

    def of(self, images: Image) -> Image:
        """Those views of all of the data's images: uint8 (N, H, W, C)."""
        seen = mirrored(images[self.chosen], self.mirror) if self.mirror.any() else images[self.chosen]
        seen = moved(seen, self.shift) if self.shift.any() else seen
        return self.patches.on(seen) if self.patches else seen

    def targets(self, one_hot: NDArray[np.float32]) -> NDArray[np.float32]:
        """The labels of the images as seen, float32 (N, classes): a patched one has its two by their areas."""
        if self.patches is None:
            return one_hot
        share = self.patches.share[:, None]
        mixed: NDArray[np.float32] = (1 - share) * one_hot + share * one_hot[self.patches.other]
        return mixed


def viewed(data: LabelledImages, recipe: Recipe, epoch: int) -> Iterator[tuple[View, Image]]:
    """The epoch's batches as views and their images, uint8 (batch_size, H, W, 3).

    The last, smaller batch is left out; which images those are changes with the epoch.
    """
    rng = np.random.default_rng((recipe.seed, epoch))
    order = rng.permutation(len(data))
    first = np.random.default_rng(recipe.seed).random(len(data)) < 0.5
    for step in range(steps_per_epoch(data, recipe)):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        mirror = _mirror(recipe, first[chosen], epoch, rng)
        shift = rng.integers(-recipe.shift_px, recipe.shift_px + 1, (2, len(chosen)))
        view = View(chosen, mirror, shift, _patches(recipe, (len(chosen), *data.images.shape[1:3]), rng))
        images = view.of(data.images)
        yield view, as_seen(images, recipe, rng)


def _mirror(
    recipe: Recipe, first: NDArray[np.bool_], epoch: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    if recipe.alternate:
        return first ^ bool(epoch % 2)
    return rng.random(len(first)) < 0.5 if recipe.flip else np.zeros(len(first), np.bool_)


def _patches(recipe: Recipe, shape: tuple[int, int, int], rng: np.random.Generator) -> Patches | None:
    """For a batch of that shape, (N, H, W): their areas are drawn evenly, their centres anywhere in the image."""
    if not recipe.patch:
        return None
    n = shape[0]
    length = np.sqrt(rng.random(n)) * (rng.random(n) < recipe.patch)
    rows, columns = (_span(size, length, rng) for size in shape[1:])
    return Patches(rng.permutation(n), rows[:, :, None] & columns[:, None, :])


def _span(size: int, length: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of `size` places are in an interval of that share of them around a place drawn anew: bool (N, size)."""
    centre = rng.random(len(length)) * size
    distance: NDArray[np.float64] = np.abs(np.arange(size) + 0.5 - centre[:, None])
    return distance < length[:, None] * size / 2


def steps_per_epoch(data: LabelledImages, recipe: Recipe) -> int:
    """Whole batches in the data; one smaller batch where there is not even one."""
    return max(1, len(data) // recipe.batch_size)


def mirrored(images: Image, which: NDArray[np.bool_]) -> Image:
    """Mirror those images left to right, bool (N,): uint8 (N, H, W, C)."""
    return np.where(which[:, None, None, None], images[:, :, ::-1], images)


def as_seen(images: Image, recipe: Recipe, rng: np.random.Generator) -> Image:
    """The images with the recipe's shares cut, blurred, noisy and compressed: uint8 (N, H, W, 3) RGB."""
    if recipe.cutout:
        images = cut_out(images, recipe.cutout, rng)
    # In a camera's order: its lens blurs, its sensor adds noise, its encoder compresses.
    for share, change in ((recipe.blur, _blurred), (recipe.noise, _noisy), (recipe.jpeg, _compressed)):
        if share:
            images = _changed(images, share, change, rng)
    return images


def cut_out(images: Image, side: int, rng: np.random.Generator) -> Image:
    """A square of 128 at a random place of each image, its centre anywhere inside: uint8 (N, H, W, C), a copy."""
    n, height, width = images.shape[:3]
    top, left = (rng.integers(0, size, n) - side // 2 for size in (height, width))
    rows, columns = np.arange(height), np.arange(width)
    inside = ((rows >= top[:, None]) & (rows < top[:, None] + side))[:, :, None] & (
        (columns >= left[:, None]) & (columns < left[:, None] + side)
    )[:, None, :]
    return np.where(inside[..., None], np.uint8(PAD_VALUE), images)


def _changed(
    images: Image,
    share: float,
    change: Callable[[Image, np.random.Generator], Image],
    rng: np.random.Generator,
) -> Image:
    out = images.copy()
    for index in np.flatnonzero(rng.random(len(images)) < share):
        out[index] = change(images[index], rng)
    return out


def _compressed(picture: Image, rng: np.random.Generator) -> Image:
    return compressed(picture, int(rng.integers(*JPEG_QUALITY)))


def _noisy(picture: Image, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(picture.shape, np.float32)
    return with_noise(picture, noise * np.float32(rng.uniform(*NOISE_SIGMA)))


def _blurred(picture: Image, rng: np.random.Generator) -> Image:
    return blurred(picture, rng.uniform(*BLUR_SIGMA_PX))


def moved(images: Image, shift: NDArray[np.int64]) -> Image:
    """Move the window of each image by (2, N) rows and columns, filling with 128: uint8 (N, H, W, C)."""
    height, width = images.shape[1:3]
    most = int(np.abs(shift).max())
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), constant_values=PAD_VALUE)
    rows = (shift[0] + most)[:, None] + np.arange(height)
    columns = (shift[1] + most)[:, None] + np.arange(width)
    seen: Image = padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return seen
