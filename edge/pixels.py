"""The one way from a picture to a model's input, shared by training, calibration and the edge.

Every model of ours is trained on `(x - 128) / 128` of RGB pixels. Outside the model's graph there
is only crop and resize, and they are done here, so that training and device cannot drift apart.
"""

from __future__ import annotations

import threading
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
            new_w = max(1, round(have_w * scale))
            new_h = max(1, round(have_h * scale))
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


class Halves:
    """A picture at 1/2, 1/4, 1/8 ... of its size, each made when it is first asked for.

    The memory is kept for the next picture. Models that see the same frame share one of these, on whatever
    threads: what one has made is there for the next one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._picture: Image | None = None
        self._kept: list[Image] = []
        self._made = 0

    def begin(self, picture: Image) -> None:
        """Go on with another picture, uint8 (H, W, C); it is read until the next call."""
        self._picture, self._made = picture, 0

    def at(self, times: int) -> Image:
        """Halved so often; 0 is the picture itself. Valid until `begin`. An odd last row or column is left out."""
        assert self._picture is not None, "begin comes first"
        with self._lock:
            while self._made < times:
                self._halve(self._kept[self._made - 1] if self._made else self._picture)
                self._made += 1
        return self._kept[times - 1] if times else self._picture

    def _halve(self, picture: Image) -> None:
        height, width, channels = picture.shape
        shape = height // 2, width // 2, channels
        if len(self._kept) <= self._made:
            self._kept.append(np.empty(shape, np.uint8))
        elif self._kept[self._made].shape != shape:
            self._kept[self._made] = np.empty(shape, np.uint8)
        _resize(picture[: shape[0] * 2, : shape[1] * 2], self._kept[self._made])


class Fitter:
    """Brings pictures to one model's input, in memory that is kept. Used by one thread.

    A picture that is four times too large or more is halved first, and again, until less than that is left
    to do: OpenCV averages 2x2 pixels with vector instructions, and other areas one value at a time. From
    1280x720 to 320x180 that takes 0.5 ms in place of 2.0, and nothing after another model has done it (x86,
    OpenCV 5.0, p50 of 100; docs/results.md). Each halving rounds up by 1/8 of a step on average.

    Args:
        height, width: the model's input size in pixels.
        rule: as in `fit`.
        out: uint8 (height, width, C) to write into; None makes one that fits the first picture.
    """

    def __init__(self, height: int, width: int, rule: ResizeRule, out: Image | None = None) -> None:
        self._size = height, width
        self._rule = rule
        self._out = out
        self._have: tuple[int, ...] = ()
        self._own = Halves()

    def __call__(self, picture: Image, shared: Halves | None = None) -> Image:
        """As `fit`; the result is valid until the next call.

        Args:
            shared: the halves of this picture, for several models together.
        """
        if picture.shape[:2] == self._size:
            return picture
        out = self._prepared(picture)
        source, times = self._placement.source, self._times
        if shared is not None and not (source.left | source.top) % (1 << times):
            found = Window(*(edge >> times for edge in source)).of(shared.at(times))
        else:
            self._own.begin(source.of(picture))
            found = self._own.at(times)
        _resize(found, self._placement.target.of(out))
        return out

    def _prepared(self, picture: Image) -> Image:
        """The buffer, its margins filled: they stay as they are for as long as pictures keep their size."""
        if self._out is None:
            self._out = np.empty((*self._size, picture.shape[2]), np.uint8)
        if self._have != picture.shape:
            self._have = picture.shape
            (have_h, have_w), (height, width) = picture.shape[:2], self._size
            self._placement = Placement.of(have_h, have_w, height, width, self._rule)
            self._times = _halvings(self._placement.source, self._placement.target)
            _pad(self._out, self._placement.target)
        return self._out


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
    return Fitter(height, width, rule)(image)


def _halvings(source: Window, target: Window) -> int:
    """How often the source is halved before the rest is done: while that is four times too large, or twice."""
    times, width, height = 0, source.width, source.height
    wanted = target.width, target.height
    while width % 2 == height % 2 == 0 and (
        (width >= 4 * target.width and height >= 4 * target.height) or (width // 2, height // 2) == wanted
    ):
        times, width, height = times + 1, width // 2, height // 2
    return times


def _pad(out: Image, inside: Window) -> None:
    """The model's zero all around a window."""
    out[: inside.top] = out[inside.top + inside.height :] = PAD_VALUE
    out[:, : inside.left] = out[:, inside.left + inside.width :] = PAD_VALUE


def _resize(image: Image, out: Image) -> None:
    """Area averaging when shrinking, which does not alias; bilinear when enlarging."""
    import cv2

    (height, width), (have_h, have_w) = out.shape[:2], image.shape[:2]
    method = cv2.INTER_AREA if height <= have_h and width <= have_w else cv2.INTER_LINEAR
    made = cv2.resize(image, (width, height), dst=out, interpolation=method)
    if made is not out:  # OpenCV drops the axis of a single channel
        out[:] = made.reshape(out.shape)
