"""Training crops for a detector: one square view of one picture, or a mosaic of four.

A batch is drawn from (seed, epoch, step) alone, so that a training goes on after `--resume` as if it
had never stopped. Boxes turn and move with their pixels; where a face is cut off or becomes too small
to be seen, its place is marked as ignored, neither face nor background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.pixels import PAD_VALUE, Image
from train.detection.loss import FACE, IGNORED
from train.detection.recipe import DetectorRecipe
from train.effects import blurred, compressed, with_noise

FACES_AN_IMAGE = 12
"""Targets a crop on average over a batch, ignored places counted; crowds have more, most crops one or two."""

SMALLEST_FACE_PX = 4.0
"""Below, a face is ignored: it covers less than a quarter of the finest cell."""

TRIES = 20
Random = np.random.Generator
Targets = NDArray[np.float32]
"""float32 (n, 5): x0, y0, x1, y1 in pixels of the crop, and FACE or IGNORED."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: uint8 (H, W, 3) RGB, and its faces as targets."""

    pixels: Image
    targets: Targets


def crop(pictures: list[Picture], size: int, recipe: DetectorRecipe, rng: Random) -> tuple[Image, Targets]:
    """A training crop from `pictures[0]`, the others serve a mosaic: uint8 (size, size, 3), targets."""
    if len(pictures) == 4:
        pixels, targets = _mosaic(pictures, size, recipe, rng)
    else:
        pixels, targets = view(pictures[0], size, recipe, rng)
    return filmed(pixels, recipe, rng), targets


def listed(targets: list[Targets]) -> NDArray[np.float32]:
    """The targets of a batch's images as one list of fixed length, see `train.detection.loss`.

    Returns:
        float32 (FACES_AN_IMAGE * images, 6): x0, y0, x1, y1, kind, index of the image; zeros behind
        them. Of more targets than have room the largest are kept, each as seen within its crop.
    """
    rows = np.concatenate([np.insert(of_image, 5, index, axis=1) for index, of_image in enumerate(targets)])
    sizes = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    out = np.zeros((FACES_AN_IMAGE * len(targets), 6), np.float32)
    kept = rows[np.argsort(-sizes, kind="stable")[: len(out)]]
    out[: len(kept)] = kept
    return out


def _mosaic(pictures: list[Picture], size: int, recipe: DetectorRecipe, rng: Random) -> tuple[Image, Targets]:
    half = size // 2
    pixels = np.empty((size, size, 3), np.uint8)
    targets = []
    for index, picture in enumerate(pictures):
        top, left = half * (index // 2), half * (index % 2)
        pixels[top : top + half, left : left + half], moved = view(picture, half, recipe, rng)
        targets.append(moved + np.array([left, top, left, top, 0], np.float32))
    return pixels, np.concatenate(targets)


# -- geometry -------------------------------------------------------------------------------------


def view(picture: Picture, size: int, recipe: DetectorRecipe, rng: Random) -> tuple[Image, Targets]:
    """A square view of one picture: scaled, moved, sometimes turned and mirrored."""
    face = _drawn_face(picture, rng)
    side = _side(picture, face, recipe, rng)
    stretch = _log_uniform(rng, 0.9, 1 / 0.9)
    scales = np.array([stretch, 1 / stretch]) * size / side
    angle = rng.uniform(-1, 1) * math.radians(recipe.rotate_deg) if rng.random() < recipe.rotate else 0.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    linear = rotation(angle) @ np.diag(scales) @ np.diag([mirror, 1.0])
    centre = _centre(picture, face, side, rng)
    matrix = np.column_stack([linear, size / 2 - linear @ centre])
    pixels = _shrunk_and_warped(picture.pixels, matrix, float(scales.min()), size)
    return pixels, _moved(picture.targets, matrix, size)


def _drawn_face(picture: Picture, rng: Random) -> Targets | None:
    """The face that must lie in the view: one at random, and none one time in ten."""
    faces = picture.targets[picture.targets[:, 4] == FACE]
    if len(faces) == 0 or rng.random() < 0.1:
        return None
    drawn: Targets = faces[rng.integers(len(faces))]
    return drawn


def _side(picture: Picture, face: Targets | None, recipe: DetectorRecipe, rng: Random) -> float:
    """The view's side in pixels of the picture; a face that is looked at fills 90 % of it at most."""
    side = _log_uniform(rng, recipe.smallest_crop, recipe.largest_crop) * min(picture.pixels.shape[:2])
    extent = 0.0 if face is None else float((face[2:4] - face[:2]).max())
    return max(side, extent / 0.9)


def _centre(picture: Picture, face: Targets | None, side: float, rng: Random) -> NDArray[np.float64]:
    """The view's centre in the picture: mostly padding only where the face leaves no other way."""
    extent = np.array(picture.pixels.shape[1::-1])
    if face is None:
        return extent / 2 + rng.uniform(-0.5, 0.5, 2) * np.maximum(extent - side, side * 0.3)
    middle = (face[:2] + face[2:4]) / 2
    wanted = middle + rng.uniform(-0.45, 0.45, 2) * side
    within = np.clip(wanted, np.minimum(side, extent) / 2, np.maximum(extent - side / 2, extent / 2))
    return np.clip(within, middle - side * 0.45, middle + side * 0.45)


def _shrunk_and_warped(pixels: Image, matrix: NDArray[np.float64], scale: float, size: int) -> Image:
    """The view's pixels. Shrinking averages areas first, as the edge does; otherwise it would alias."""
    if scale < 1:
        height, width = pixels.shape[:2]
        smaller = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
        matrix = matrix.copy()
        matrix[:, 0] *= width / smaller[0]
        matrix[:, 1] *= height / smaller[1]
    return warped(pixels, matrix, size)


def warped(pixels: Image, matrix: NDArray[np.float64], size: int) -> Image:
    """A square of `size` pixels, uint8 (size, size, 3), padded with grey; `matrix` (2, 3) moves boxes alike."""
    border = (PAD_VALUE, PAD_VALUE, PAD_VALUE)
    # OpenCV maps the centres of pixels, which lie at whole numbers there and at halves in our boxes.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(pixels, shifted, (size, size), flags=cv2.INTER_LINEAR, borderValue=border)


def _moved(targets: Targets, matrix: NDArray[np.float64], size: int) -> Targets:
    """Targets in the crop, cut at its edge.

    A face whose centre is outside, or that is too small, becomes IGNORED where it can be seen at all.
    """
    around = moved_boxes(targets[:, :4], matrix)
    centres, boxes = (around[:, :2] + around[:, 2:]) / 2, around.clip(0, size)
    extent = boxes[:, 2:] - boxes[:, :2]
    seen = ((centres > 0) & (centres < size)).all(axis=1) & (extent.min(axis=1) >= SMALLEST_FACE_PX)
    kind = np.where(seen & (targets[:, 4] == FACE), FACE, IGNORED)
    moved = np.column_stack([boxes, kind]).astype(np.float32)
    return moved[(extent > 0.5).all(axis=1)]


def moved_boxes(boxes: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each box (n, 4), the one around the ellipse that fills it, turned, scaled and moved by `matrix` (2, 3)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    halves = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centres - halves, centres + halves], axis=1)


def rotation(angle: float) -> NDArray[np.float64]:
    """(2, 2), by that angle in radians from the first axis to the second."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


# -- colour, light and the camera -----------------------------------------------------------------


def filmed(pixels: Image, recipe: DetectorRecipe, rng: Random) -> Image:
    """The crop as another camera in another light might have seen it."""
    draws = rng.random(4)
    pixels = _relit(pixels, rng, dark=bool(draws[0] < recipe.dark))
    if draws[1] < recipe.grey:
        pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if draws[2] < recipe.blur:
        pixels = blurred(pixels, rng.uniform(0.4, 1.6))
    if draws[0] < recipe.dark or rng.random() < 0.1:
        noise = rng.normal(0, rng.uniform(2, 10), pixels.shape[:2]).astype(np.float32)
        pixels = with_noise(pixels, noise[..., None])
    if draws[3] < recipe.jpeg:
        pixels = compressed(pixels, int(rng.integers(25, 90)))
    return pixels


def _relit(pixels: Image, rng: Random, dark: bool) -> Image:
    """Gamma, contrast and brightness by one table a channel, then saturation."""
    gamma = math.exp(rng.uniform(0.3, 1.1)) if dark else math.exp(rng.normal(0, 0.2))
    gains = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3) * (rng.uniform(0.4, 0.9) if dark else 1.0)
    ramp = (np.arange(256) / 255) ** gamma
    tables = 255 * ramp[:, None] * gains + rng.uniform(-20, 20) * (not dark)
    lit = cv2.LUT(pixels, np.clip(tables, 0, 255).astype(np.uint8)[None])
    grey = cv2.cvtColor(cv2.cvtColor(lit, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = rng.uniform(0.6, 1.4)
    return cv2.addWeighted(lit, saturation, grey, 1 - saturation, 0)
