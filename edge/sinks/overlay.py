"""How a result looks on a picture: a dark translucent bar with the label, the score and the age."""

from __future__ import annotations

from edge.pixels import Image
from edge.results import Result

BAR_HEIGHT = 0.105
"""Of the picture's height."""

GAUGE_LEFT = 3.2
"""Where the gauge begins unless the label is long, in bar heights: it should not jump with every label."""

DIMMING = 0.32
WHITE = (255, 255, 255)
PALE = (200, 205, 212)
ACCENT = (64, 200, 120)
TRACK = (90, 96, 104)


def draw(picture: Image, result: Result, age_ms: float, title: str = "") -> None:
    """Draw into `picture`, uint8 (H, W, 3) RGB, in place; all sizes follow its height."""
    import cv2

    height, width = picture.shape[:2]
    bar = picture[height - max(24, round(height * BAR_HEIGHT)) :]
    cv2.convertScaleAbs(bar, dst=bar, alpha=DIMMING, beta=0)
    margin = bar.shape[0] // 3
    after_label = _text(bar, result.label, margin, 0.44, WHITE, bold=True)
    _score(bar, result.score, max(after_label + margin, round(bar.shape[0] * GAUGE_LEFT)))
    right = f"{title}   {age_ms:.1f} ms" if title else f"{age_ms:.1f} ms"
    _text(bar, right, width - margin, 0.30, PALE, align_right=True)


def _score(bar: Image, score: float, left: int) -> None:
    """A gauge filled to the score, and the score in per cent behind it."""
    import cv2

    height = bar.shape[0]
    length, thickness = round(height * 2.4), max(3, height // 9)
    top = (height - thickness) // 2
    cv2.rectangle(bar, (left, top), (left + length, top + thickness), TRACK, cv2.FILLED)
    cv2.rectangle(bar, (left, top), (left + round(length * score), top + thickness), ACCENT, cv2.FILLED)
    _text(bar, f"{score:.0%}", left + length + height // 4, 0.36, WHITE)


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

    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(bar.shape[0] * (0.04 if bold else 0.025)))
    scale = cv2.getFontScaleFromHeight(font, max(6, round(bar.shape[0] * part)), thickness)
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    left = x - width if align_right else x
    cv2.putText(
        bar, text, (left, (bar.shape[0] + height) // 2), font, scale, color, thickness, cv2.LINE_AA
    )  # fmt: skip
    return left + width
