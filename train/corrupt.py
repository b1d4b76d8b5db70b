"""What a camera does to a picture before a model sees it: `sightline evaluate --corrupt`.

Strengths are fixed, so that figures compare between models; each is what an ordinary camera, its encoder or poor
light does, not the worst case (Hendrycks and Dietterich 2019, arXiv 1903.12261, name more and stronger ones).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np

from edge.pixels import Image
from train.data import LabelledImages
from train.effects import blurred, compressed, with_noise

JPEG_QUALITY = 75
BLUR_SIGMA_PX = 0.8
NOISE_SIGMA = 10.0
BRIGHT, DARK = 1.4, 0.6
SHRINK = 2

Corruption = Callable[[Image, np.random.Generator], Image]
"""One picture, uint8 (H, W, 3) RGB, to another of the same size."""


def _jpeg(picture: Image, _: np.random.Generator) -> Image:
    return compressed(picture, JPEG_QUALITY)


def _blur(picture: Image, _: np.random.Generator) -> Image:
    return blurred(picture, BLUR_SIGMA_PX)


def _noise(picture: Image, rng: np.random.Generator) -> Image:
    return with_noise(picture, rng.normal(0, NOISE_SIGMA, picture.shape))


def _bright(picture: Image, _: np.random.Generator) -> Image:
    return np.asarray(cv2.convertScaleAbs(picture, alpha=BRIGHT), np.uint8)


def _dark(picture: Image, _: np.random.Generator) -> Image:
    return np.asarray(cv2.convertScaleAbs(picture, alpha=DARK), np.uint8)


def _coarse(picture: Image, _: np.random.Generator) -> Image:
    height, width = picture.shape[:2]
    small = (max(1, width // SHRINK), max(1, height // SHRINK))
    shrunk = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


CORRUPTIONS: Mapping[str, tuple[str, Corruption]] = {
    "jpeg": (f"JPEG, quality {JPEG_QUALITY}", _jpeg),
    "blur": (f"Gaussian blur, sigma {BLUR_SIGMA_PX} px", _blur),
    "noise": (f"Gaussian noise, sigma {NOISE_SIGMA:g} of 255", _noise),
    "bright": (f"values times {BRIGHT}", _bright),
    "dark": (f"values times {DARK}", _dark),
    "coarse": (f"shrunk to 1/{SHRINK} and enlarged again", _coarse),
}
"""By name: in words, and what it does."""


def corrupted(data: LabelledImages, name: str, seed: int = 0) -> LabelledImages:
    """The same images after one of `CORRUPTIONS`; the same seed gives the same noise."""
    _, corrupt = CORRUPTIONS[name]
    rng = np.random.default_rng(seed)
    images = np.stack([corrupt(picture, rng) for picture in data.images])
    return replace(data, images=images, source=f"{data.source}, {name}")
