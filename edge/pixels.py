"""The one way from a picture to a model's input, shared by training, calibration and the edge.

Every model of ours is trained on `(x - 128) / 128` of RGB pixels. Outside the model's graph there
is only crop and resize, and they are done here, so that training and device cannot drift apart.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
ResizeRule = Literal["crop", "stretch", "letterbox"]

PAD_VALUE = 128
"""The pixel value that the model sees as zero; letterboxing pads with it."""


def normalise(pixels: Image, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """`(x - 128) / 128`: uint8 of any shape to float32 in [-1, 127/128], exact in float16 too."""
    out = np.empty(pixels.shape, np.float32) if out is None else out
    np.subtract(pixels, np.float32(128), out=out, casting="unsafe")
    np.multiply(out, np.float32(1 / 128), out=out)
    return out


def fit(image: Image, height: int, width: int, rule: ResizeRule) -> Image:
    """Bring one picture to a model's input size.

    Args:
        image: uint8 (H, W, C), any colour order, which is kept.
        height, width: the model's input size in pixels.
        rule: `crop` takes the largest centred part of the right aspect ratio, `stretch` ignores
            the aspect ratio, `letterbox` keeps the whole picture and pads with 128.

    Returns:
        uint8 (height, width, C). The picture itself, uncopied, where it has the size already.
    """
    if image.shape[:2] == (height, width):
        return image
    if rule == "letterbox":
        return _letterbox(image, height, width)
    return _resize(_centre_crop(image, height, width) if rule == "crop" else image, height, width)


def _centre_crop(image: Image, height: int, width: int) -> Image:
    """The largest centred window with the aspect ratio width:height; a view, not a copy."""
    have_h, have_w = image.shape[:2]
    crop_w = min(have_w, max(1, round(have_h * width / height)))
    crop_h = min(have_h, max(1, round(have_w * height / width)))
    top, left = (have_h - crop_h) // 2, (have_w - crop_w) // 2
    return image[top : top + crop_h, left : left + crop_w]


def _letterbox(image: Image, height: int, width: int) -> Image:
    have_h, have_w = image.shape[:2]
    scale = min(height / have_h, width / have_w)
    new_h = min(height, max(1, round(have_h * scale)))
    new_w = min(width, max(1, round(have_w * scale)))
    canvas = np.full((height, width, image.shape[2]), PAD_VALUE, np.uint8)
    top, left = (height - new_h) // 2, (width - new_w) // 2
    canvas[top : top + new_h, left : left + new_w] = _resize(image, new_h, new_w)
    return canvas


def _resize(image: Image, height: int, width: int) -> Image:
    """Area averaging when shrinking, which does not alias; bilinear when enlarging."""
    import cv2

    shrinking = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=method)
    return np.asarray(resized, np.uint8).reshape(height, width, -1)
