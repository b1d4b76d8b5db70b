"""Crop, resize, pad and normalise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pixels import PAD_VALUE, Fitter, Halves, Placement, ResizeRule, fit, normalise

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


@given(sizes, sizes, sizes, sizes)
def test_windows_keep_the_aspect_ratio_to_the_nearest_pixel(
    have_h: int, have_w: int, height: int, width: int
) -> None:
    cut = Placement.of(have_h, have_w, height, width, "crop").source
    kept = Placement.of(have_h, have_w, height, width, "letterbox").target
    scale = min(have_h / height, have_w / width)
    for found, exact in (
        (cut.width, width * scale), (cut.height, height * scale),
        (kept.width, have_w / max(have_h / height, have_w / width)),
        (kept.height, have_h / max(have_h / height, have_w / width)),
    ):  # fmt: skip
        assert abs(found - max(1.0, exact)) <= 0.5 + 1e-9


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


large = st.integers(1, 400)


@given(
    st.lists(st.tuples(large, large), min_size=1, max_size=3), st.integers(1, 40), st.integers(1, 40), rules
)
def test_a_fitter_gives_what_fit_gives_in_the_same_memory_shared_or_not(
    have: list[tuple[int, int]], height: int, width: int, rule: ResizeRule
) -> None:
    fitter, shared = Fitter(height, width, rule), Halves()
    random, memory = np.random.default_rng(0), None
    for size in have:
        picture = random.integers(0, 256, (*size, 3), np.uint8)
        wanted = fit(picture, height, width, rule)
        shared.begin(picture)
        for found in (fitter(picture, shared), fitter(picture)):
            np.testing.assert_array_equal(found, wanted)
            if size != (height, width):
                assert memory is None or found is memory
                memory = found


@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 2, 3, 4, 6, 8, 12]), st.integers(0, 2**32))
def test_shrinking_by_whole_numbers_is_the_mean_of_the_area(
    height: int, width: int, times: int, seed: int
) -> None:
    """Within half a step for each rounding: at most two halvings and the rest, or three halvings."""
    picture = np.random.default_rng(seed).integers(0, 256, (height * times, width * times, 3), np.uint8)
    means = picture.reshape(height, times, width, times, 3).mean(axis=(1, 3))
    assert np.abs(fit(picture, height, width, "stretch") - means).max() <= 1.5 + 1e-3


@given(st.integers(1, 24), st.integers(1, 24), st.floats(1, 20))
def test_shrinking_by_any_number_moves_nothing(height: int, width: int, times: float) -> None:
    """A ramp stays one, where it was: what is halved first lies no half pixel aside.

    What is shrunk by r at last are source pixels (r >= 1), or blocks of them that halving made (r >= 2). The one on the
    border between two pixels counts by its mean for either, which moves these by at most 1 / (8 r) of it: an eighth of
    a source pixel, or 1 / (8 r^2) <= 1/32 of a pixel that comes out. Rounding adds half a step up to four times.
    """
    have_h, have_w = round(height * times), round(width * times)
    ramp = np.linspace(0, 255, have_w)[None, :, None].repeat(have_h, axis=0).repeat(3, axis=2).round()
    found = fit(ramp.astype(np.uint8), height, width, "stretch")
    step = 255 / max(have_w - 1, 1)
    expected = ((np.arange(width) + 0.5) * have_w / width - 0.5) * step
    assert np.abs(found - expected[None, :, None]).max() <= 2 + max(step / 8, step * have_w / width / 32)


def test_models_of_one_frame_share_what_was_halved() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    shared = Halves()
    shared.begin(picture)
    Fitter(192, 320, "letterbox")(picture, shared)
    quarter = shared.at(2)
    assert quarter.shape == (180, 320, 3)
    quarter[:] = 7  # what the second one reads, if it does not halve by itself
    assert (Fitter(32, 32, "crop")(picture, shared) == 7).all()


def test_halves_leave_out_an_odd_last_row() -> None:
    halves = Halves()
    halves.begin(np.arange(5, dtype=np.uint8).reshape(5, 1, 1) * np.ones((1, 3, 3), np.uint8))
    assert halves.at(1)[:, 0, 0].tolist() == [1, 3]  # (0 + 1) / 2 and (2 + 3) / 2, rounded up
