"""What cameras do to a picture, each with its strength; for training and for `evaluate --corrupt`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.pixels import Image


def compressed(picture: Image, quality: int) -> Image:
    """As JPEG of that quality, 1 to 100, leaves it: uint8 (H, W, 3) RGB."""
    coded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[:, :, ::-1]


def blurred(picture: Image, sigma_px: float) -> Image:
    """Gaussian, of that deviation in pixels: uint8 (H, W, 3)."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px), np.uint8)


def with_noise(picture: Image, noise: NDArray[np.floating]) -> Image:
    """The noise, steps of 255, added, rounded and cut off at 0 and 255: uint8 (H, W, 3)."""
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
