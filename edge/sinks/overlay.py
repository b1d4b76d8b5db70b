"""How a result looks on a picture: faces in corner marks, and a dark bar with the class and the age."""

from __future__ import annotations

import numpy as np

from edge.pixels import Image, Placement
from edge.results import Face, FrameResult

BAR_HEIGHT = 0.105
"""Of the picture's height."""

GAUGE_LEFT = 3.2
"""Where the gauge begins unless the label is long, in bar heights: it should not jump with every label."""

TAG_HEIGHT = 0.034
"""Of a face's tag, of the picture's height."""

DIMMING = 0.32
WHITE = (255, 255, 255)
PALE = (200, 205, 212)
ACCENT = (64, 200, 120)
TRACK = (90, 96, 104)
SHADOW = (24, 26, 30)


def draw(
    picture: Image, result: FrameResult, age_ms: float, title: str = "", shown: Placement | None = None
) -> None:
    """Draw into `picture`, uint8 (H, W, 3) RGB, in place; all sizes follow its height.

    Args:
        age_ms: of the result; title: the models' names, left out where there is no room.
        shown: where the frame lies in the picture, if it was resized.
    """
    for face in reversed(result.faces):  # the best one last, on top
        _face(picture, face, shown)
    height, width = picture.shape[:2]
    bar = picture[height - max(24, round(height * BAR_HEIGHT)) :]
    _dim(bar)
    margin = bar.shape[0] // 3
    left = _finding(bar, result, margin) + margin
    age = f"{age_ms:.1f} ms"
    for text, part in ((f"{title}   {age}", 0.30), (f"{title}   {age}", 0.20), (age, 0.30)):
        if left + _size(bar, text, part)[0] + margin <= width or text == age:
            _text(bar, text, width - margin, part, PALE, align_right=True)
            break


def _finding(bar: Image, result: FrameResult, margin: int) -> int:
    """The best class and its gauge, or without a classifier the number of faces; returns its right edge."""
    best = result.classification
    if best is None:
        count = len(result.faces)
        return _text(bar, f"{count} face{'' if count == 1 else 's'}", margin, 0.44, WHITE, bold=True)
    after_label = _text(bar, best.label, margin, 0.44, WHITE, bold=True)
    return _score(bar, best.score, max(after_label + margin, round(bar.shape[0] * GAUGE_LEFT)))


def _score(bar: Image, score: float, left: int) -> int:
    """A gauge filled to the score, and the score in per cent behind it; returns its right edge."""
    import cv2

    height = bar.shape[0]
    length, thickness = round(height * 2.4), height // 9
    top = (height - thickness) // 2
    cv2.rectangle(bar, (left, top), (left + length, top + thickness), TRACK, cv2.FILLED)
    cv2.rectangle(bar, (left, top), (left + round(length * score), top + thickness), ACCENT, cv2.FILLED)
    return _text(bar, f"{score:.0%}", left + length + height // 4, 0.36, WHITE)


def _face(picture: Image, face: Face, shown: Placement | None) -> None:
    """Four corners on a dark shadow, so that they can be seen on any picture, and a tag above them."""
    box = np.array([face.box], np.float32)
    left, top, right, bottom = (shown.to_input(box) if shown else box)[0].round().astype(int).tolist()
    line = max(1, round(picture.shape[0] / 360))
    _corners(picture, left, top, right, bottom, SHADOW, line + 2)
    _corners(picture, left, top, right, bottom, ACCENT, line)
    words = [f"#{face.track}"] if face.track else []
    words += [found.label for found in face.classes.values()]
    _tag(picture, "  ".join([*words, f"{face.score:.0%}"]), left, top - 2 * line)


def _corners(
    picture: Image, left: int, top: int, right: int, bottom: int, color: tuple[int, int, int], line: int
) -> None:
    import cv2

    length = max(2, min(right - left, bottom - top) // 4)
    for x, inward in ((left, length), (right, -length)):
        for y, downward in ((top, length), (bottom, -length)):
            points = np.array([[x, y + downward], [x, y], [x + inward, y]], np.int32)
            cv2.polylines(picture, [points], False, color, line, cv2.LINE_AA)


def _tag(picture: Image, text: str, left: int, bottom: int) -> None:
    """Text on a dark plate that ends at `bottom`, or begins at the picture's edge where it would leave it."""
    height = max(13, round(picture.shape[0] * TAG_HEIGHT))
    top = min(max(0, bottom - height), max(0, picture.shape[0] - height))
    width = _size(picture[top : top + height], text, 0.5)[0] + height
    left = max(0, min(left, picture.shape[1] - width))
    plate = picture[top : top + height, left : left + width]
    _dim(plate)
    _text(plate, text, height // 2, 0.5, WHITE)


def _dim(part: Image) -> None:
    import cv2

    cv2.convertScaleAbs(part, dst=part, alpha=DIMMING, beta=0)


def _font(bar: Image, part: float, bold: bool = False) -> tuple[int, float, int]:
    """Font, scale and thickness of text whose capitals are `part` of the bar high."""
    import cv2

    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(bar.shape[0] * (0.04 if bold else 0.025)))
    return font, cv2.getFontScaleFromHeight(font, max(6, round(bar.shape[0] * part)), thickness), thickness


def _size(bar: Image, text: str, part: float, bold: bool = False) -> tuple[int, int]:
    """Width and height of text, in pixels."""
    import cv2

    (width, height), _ = cv2.getTextSize(text, *_font(bar, part, bold))
    return width, height


def _text(
    bar: Image,
    text: str,
    x: int,
    part: float,
    color: tuple[int, int, int],
    bold: bool = False,
    align_right: bool = False,
) -> int:
    """Write `text`, its capitals `part` of the bar high, centred vertically; returns its right edge."""
    import cv2

    font, scale, thickness = _font(bar, part, bold)
    width, height = _size(bar, text, part, bold)
    left = x - width if align_right else x
    cv2.putText(
        bar, text, (left, (bar.shape[0] + height) // 2), font, scale, color, thickness, cv2.LINE_AA
    )  # fmt: skip
    return left + width
