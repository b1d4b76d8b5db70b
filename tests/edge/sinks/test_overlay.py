"""What is drawn into a picture, and where."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from edge.results import Classification, Faces, FrameResult
from edge.sinks.overlay import ACCENT, TRACK, draw

AGE_MS = 12.3


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 120, np.uint8)


def classified(label: str, score: float = 0.75) -> FrameResult:
    return FrameResult({"pets": Classification(np.array([1 - score, score], np.float32), 1, label)})


def faces_at(*boxes: tuple[float, float, float, float], **fields: Any) -> FrameResult:
    scores = np.linspace(0.9, 0.6, len(boxes), dtype=np.float32)
    return FrameResult({"face": Faces(np.array(boxes, np.float32).reshape(-1, 4), scores, **fields)})


Texts = list[tuple[str, int, int, int]]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Texts:
    """What is written: the text, its left and right edge, and its height."""
    found: Texts = []
    put = cv2.putText

    def put_and_tell(image: Any, text: str, at: tuple[int, int], font: int, scale: float, *rest: Any) -> None:
        (width, height), _ = cv2.getTextSize(text, font, scale, rest[1])
        found.append((text, at[0], at[0] + width, height))
        put(image, text, at, font, scale, *rest)

    monkeypatch.setattr(cv2, "putText", put_and_tell)
    return found


def columns(picture: np.ndarray, color: tuple[int, int, int]) -> list[int]:
    found: list[int] = np.flatnonzero((picture == color).all(axis=2).any(axis=0)).tolist()
    return found


@pytest.mark.parametrize(("label", "narrowest"), [("ox", 220), ("a class of a long name", 280)])
def test_the_texts_of_the_bar_keep_their_distance_and_give_way_in_a_narrow_picture(
    label: str, narrowest: int, texts: Texts
) -> None:
    margin, title = 25 // 3, "face-320x192 + cifar10-base"
    shown = []
    for width in range(narrowest, 1000, 4):
        draw(grey(240, width), classified(label), AGE_MS, title)
        (_, begin, after_label, _), (_, after_gauge, end, _), (text, left, right, height) = texts
        assert begin == margin
        assert after_label < after_gauge
        assert right == width - margin
        assert left - end >= margin
        shown.append((text.startswith(title), height))
        texts.clear()
    assert len(set(shown)) == 3, "with the title, with the title in small letters, and without it"
    assert shown == sorted(shown), "the wider, the more"


def test_the_gauge_begins_at_one_place_and_is_as_long_as_the_score_says(texts: Texts) -> None:
    gauges = {}
    for label, score in (("cat", 0.75), ("ox", 0.25), ("a class of a long name", 0.75)):
        picture = grey(720, 1280)
        draw(picture, classified(label, score), AGE_MS)
        full, rest = columns(picture, ACCENT), columns(picture, TRACK)
        assert len(full) / (len(full) + len(rest)) == pytest.approx(score, abs=0.01)
        gauges[label] = full[0], texts[0][2]
        texts.clear()
    assert gauges["cat"][0] == gauges["ox"][0]
    begin, after_label = gauges["a class of a long name"]
    assert begin >= after_label + 76 // 3


def test_the_bar_of_a_small_picture_can_be_read_and_leaves_the_rest_alone() -> None:
    picture = grey(60, 160)
    draw(picture, faces_at(), AGE_MS)
    assert (picture[: 60 - 24] == 120).all()
    assert (picture[60 - 24] == round(120 * 0.32)).all()


def test_faces_are_counted_and_named(texts: Texts) -> None:
    draw(grey(720, 1280), faces_at(), AGE_MS)
    mask = Classification(np.array([0.25, 0.75], np.float32), 1, "mask")
    alone = faces_at((500, 300, 600, 400), tracks=np.array([7]), classes={"masks": (mask,)})
    draw(grey(720, 1280), alone, AGE_MS)
    draw(grey(720, 1280), faces_at((500, 300, 600, 400), (100, 300, 200, 400)), AGE_MS)
    words = [text for text, *_ in texts if "ms" not in text]
    assert words == ["0 faces", "#7  mask  90%", "1 face", "60%", "90%", "2 faces"]


def test_the_best_face_is_on_top() -> None:
    best, other = (500, 300, 600, 400), (510, 305, 610, 405)
    together, one_by_one = grey(720, 1280), grey(720, 1280)
    draw(together, faces_at(best, other), AGE_MS)
    for box, score in ((other, 0.6), (best, 0.9)):
        alone = Faces(np.array([box], np.float32), np.array([score], np.float32))
        draw(one_by_one, FrameResult({"face": alone}), AGE_MS)
    np.testing.assert_array_equal(together[:600], one_by_one[:600])


@pytest.mark.parametrize(
    ("x", "y", "left", "bottom"),
    [
        (500, 300, 500, 300 - 4),
        (1270, 300, None, 300 - 4),  # it ends with the picture
        (-30, 300, 0, 300 - 4),
        (500, 3, 500, 24),  # it begins with the picture
    ],
)
def test_the_tag_of_a_face_lies_above_it_and_wholly_in_the_picture(
    x: int, y: int, left: int | None, bottom: int
) -> None:
    far, there = grey(720, 1280), grey(720, 1280)
    draw(far, faces_at((100, 500, 300, 600)), AGE_MS)
    tag = far[500 - 4 - 24 : 500 - 4]
    dimmed = np.flatnonzero((tag != 120).any(axis=(0, 2)))
    tag = tag[:, dimmed[0] : dimmed[-1] + 1]
    assert dimmed[0] == 100
    draw(there, faces_at((x, y, x + 200, y + 300)), AGE_MS)
    left = 1280 - tag.shape[1] if left is None else left
    found = there[bottom - 24 : bottom, left : left + tag.shape[1]]
    if y > 24:
        np.testing.assert_array_equal(found, tag)
    assert (found != 120).all(axis=2).mean() > 0.9


@pytest.mark.parametrize(("height", "width"), [(24, 32), (120, 160), (720, 1280)])
def test_overlay_stays_in_its_bar_and_shows_the_score(height: int, width: int) -> None:
    low, high = (np.full((height, width, 3), 120, np.uint8) for _ in range(2))
    draw(low, FrameResult({"pets": Classification(np.array([0.9, 0.1], np.float32), 1, "cat")}), 12.3)
    draw(high, FrameResult({"pets": Classification(np.array([0.1, 0.9], np.float32), 1, "cat")}), 12.3)
    bar = max(24, round(height * 0.105))
    assert (low[: height - bar] == 120).all()
    if width >= 160:
        assert (low != high).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (24, 32), (120, 160), (720, 1280)])
def test_overlay_of_faces_at_any_size_and_at_the_edges(height: int, width: int) -> None:
    edges = np.array([[0, 0, 1, 1], [0.5, 0.2, 1, 0.9], [0.9, 0.9, 1, 1], [0.4, 0, 0.41, 0.01]], np.float32)
    faces = Faces(edges * [width, height, width, height], np.full(4, 0.5, np.float32))
    picture = np.full((height, width, 3), 120, np.uint8)
    draw(picture, FrameResult({"face": faces}), 12.3, "a long title of several models")
    assert (picture != 120).any()


def test_overlay_marks_the_corners_of_a_face_and_leaves_its_middle() -> None:
    picture = np.full((720, 1280, 3), 120, np.uint8)
    draw(
        picture,
        FrameResult(
            {"face": Faces(np.array([[400, 200, 600, 500]], np.float32), np.array([0.75], np.float32))}
        ),
        1.0,
    )
    for x, y in ((400, 200), (600, 200), (400, 500), (600, 500)):
        assert (np.abs(picture[y - 2 : y + 3, x - 2 : x + 3].astype(int) - ACCENT).sum(axis=2) < 60).any()
    assert (picture[260:440, 410:590] == 120).all()
    assert (picture[230, 395:405].max(axis=1) < 90).sum() == 2, "a shadow on both sides, for green walls"
