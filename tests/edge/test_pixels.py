"""Crop, resize, pad and normalise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pixels import PAD_VALUE, Placement, fit, normalise

sizes = st.integers(1, 70)


def test_normalise_is_exact_in_float16_too() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    values = normalise(pixels)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, (np.arange(256) - 128) / 128)
    np.testing.assert_array_equal(values.astype(np.float16), values)
    assert normalise(np.array([PAD_VALUE], np.uint8))[0] == 0


def test_normalise_writes_into_a_given_buffer() -> None:
    out = np.empty((1, 4, 4, 3), np.float32)
    assert normalise(np.zeros((1, 4, 4, 3), np.uint8), out=out) is out
    assert (out == -1).all()


@given(sizes, sizes, sizes, sizes, st.sampled_from(["crop", "stretch", "letterbox"]), st.integers(0, 255))
def test_a_plain_picture_stays_plain_at_any_size(
    have_h: int, have_w: int, height: int, width: int, rule: str, value: int
) -> None:
    fitted = fit(np.full((have_h, have_w, 3), value, np.uint8), height, width, rule)  # type: ignore[arg-type]
    assert fitted.shape == (height, width, 3)
    assert fitted.dtype == np.uint8
    assert set(np.unique(fitted)) <= ({value, PAD_VALUE} if rule == "letterbox" else {value})


def test_the_right_size_is_handed_on_uncopied() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    assert fit(picture, 8, 8, "crop") is picture


def test_crop_takes_the_middle() -> None:
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 200
    assert (fit(picture, 5, 5, "crop") == 200).all()


def test_letterbox_centres_and_pads_with_the_models_zero() -> None:
    fitted = fit(np.full((10, 20, 3), 9, np.uint8), 20, 20, "letterbox")
    assert (fitted[5:15] == 9).all()
    assert (fitted[:5] == PAD_VALUE).all()
    assert (fitted[15:] == PAD_VALUE).all()


def test_shrinking_averages_and_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert fit(stripes, 8, 8, "stretch") == pytest.approx(100, abs=1)


rules = st.sampled_from(["crop", "stretch", "letterbox"])
wide = st.integers(1, 3000)


@given(wide, wide, sizes, sizes, rules, st.lists(st.floats(-100, 3100, width=32), min_size=4, max_size=4))
def test_boxes_come_back_from_the_input(
    have_h: int, have_w: int, height: int, width: int, rule: str, box: list[float]
) -> None:
    placement = Placement.of(have_h, have_w, height, width, rule)  # type: ignore[arg-type]
    boxes = np.array([box], np.float32)
    shrinking = max(
        placement.source.width / placement.target.width, placement.source.height / placement.target.height
    )
    np.testing.assert_allclose(
        placement.to_source(placement.to_input(boxes)), boxes, atol=1e-3 * max(1, shrinking)
    )


@given(sizes, sizes, sizes, sizes, rules)
def test_the_windows_lie_inside_and_touch_both_edges_of_one_side(
    have_h: int, have_w: int, height: int, width: int, rule: str
) -> None:
    placement = Placement.of(have_h, have_w, height, width, rule)  # type: ignore[arg-type]
    for window, (in_h, in_w) in ((placement.source, (have_h, have_w)), (placement.target, (height, width))):
        assert 0 <= window.left < window.left + window.width <= in_w
        assert 0 <= window.top < window.top + window.height <= in_h
        assert window.width == in_w or window.height == in_h


@pytest.mark.parametrize("rule", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize(
    ("have", "size"), [((96, 160), (64, 64)), ((160, 96), (64, 64)), ((30, 50), (96, 64))]
)
def test_a_mark_is_where_its_box_says(rule: str, have: tuple[int, int], size: tuple[int, int]) -> None:
    picture = np.zeros((*have, 3), np.uint8)
    top, left = have[0] // 2 - 6, have[1] // 2 - 10
    picture[top : top + 12, left : left + 18] = 255
    placement = Placement.of(*have, *size, rule)  # type: ignore[arg-type]
    x0, y0, x1, y1 = placement.to_input(np.array([[left, top, left + 18, top + 12]], np.float32))[0]
    rows, columns = np.nonzero(fit(picture, *size, rule)[:, :, 0] > 140)  # type: ignore[arg-type]
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx((x0, y0, x1, y1), abs=1)
