"""The one way from a picture to a model's input, shared by training, calibration and the edge.

Every model of ours is trained on `(x - 128) / 128` of RGB pixels. Outside the model's graph there
is only crop and resize, and they are done here, so that training and device cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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


class Window(NamedTuple):
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, image: Image) -> Image:
        """This part of an image; a view, not a copy."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Placement:
    """Which window of a picture becomes which window of the model's input.

    `fit` brings pixels there and `to_source` brings boxes back, so neither can drift from the other.
    """

    source: Window
    target: Window

    @classmethod
    def of(cls, have_h: int, have_w: int, height: int, width: int, rule: ResizeRule) -> Placement:
        """Of a picture of have_h x have_w pixels in an input of height x width."""
        whole, target = Window(0, 0, have_w, have_h), Window(0, 0, width, height)
        if rule == "crop":
            crop_w = min(have_w, max(1, round(have_h * width / height)))
            crop_h = min(have_h, max(1, round(have_w * height / width)))
            return cls(_centred(crop_w, crop_h, have_w, have_h), target)
        if rule == "letterbox":
            scale = min(height / have_h, width / have_w)
            new_w = min(width, max(1, round(have_w * scale)))
            new_h = min(height, max(1, round(have_h * scale)))
            return cls(whole, _centred(new_w, new_h, width, height))
        return cls(whole, target)

    def to_source(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) from pixels of the input to pixels of the picture; 0 is a pixel's left edge."""
        return _moved(boxes_xyxy, self.target, self.source)

    def to_input(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) from pixels of the picture to pixels of the input."""
        return _moved(boxes_xyxy, self.source, self.target)


def _centred(width: int, height: int, in_width: int, in_height: int) -> Window:
    return Window((in_width - width) // 2, (in_height - height) // 2, width, height)


def _moved(boxes: NDArray[np.float32], begin: Window, end: Window) -> NDArray[np.float32]:
    """Width and height scale apart, because both were rounded to whole pixels."""
    scale_x, scale_y = end.width / begin.width, end.height / begin.height
    shift_x, shift_y = end.left - begin.left * scale_x, end.top - begin.top * scale_y
    scale = np.array([scale_x, scale_y] * 2, np.float32)
    return boxes * scale + np.array([shift_x, shift_y] * 2, np.float32)


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
    out = np.empty((height, width, image.shape[2]), np.uint8)
    placement = Placement.of(image.shape[0], image.shape[1], height, width, rule)
    _resize(placement.source.of(image), placement.target.of(out))
    _pad(out, placement.target)
    return out


def _pad(out: Image, inside: Window) -> None:
    """The model's zero all around a window."""
    out[: inside.top] = out[inside.top + inside.height :] = PAD_VALUE
    out[:, : inside.left] = out[:, inside.left + inside.width :] = PAD_VALUE


def _resize(image: Image, out: Image) -> None:
    """Area averaging when shrinking, which does not alias; bilinear when enlarging."""
    import cv2

    (height, width), (have_h, have_w) = out.shape[:2], image.shape[:2]
    method = cv2.INTER_AREA if height <= have_h and width <= have_w else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=method)
    out[:] = resized.reshape(out.shape)  # OpenCV drops the axis of a single channel
