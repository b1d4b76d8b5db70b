"""Training crops: boxes move with their pixels, and a batch is the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.detection.augment import (
    FACES_AN_IMAGE,
    SMALLEST_FACE_PX,
    Picture,
    Targets,
    crop,
    filmed,
    listed,
    rotation,
    view,
    warped,
)
from train.detection.background import MOST_VIEWS, TILE_PX, background_crop
from train.detection.loss import FACE, IGNORED
from train.detection.recipe import DetectorRecipe

PLAIN = DetectorRecipe("x", "m", epochs=1, size=128, rotate=0.0, dark=0.0, blur=0.0, jpeg=0.0, grey=0.0)


def spot(box: tuple[int, int, int, int], kind: float = FACE) -> Picture:
    """A bright elliptic face with the given box on a black ground."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[:200, :300] + 0.5
    inside = ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25
    pixels[inside] = 255
    return Picture(pixels, np.array([[*box, kind]], np.float32))


def lit_box(pixels: np.ndarray) -> np.ndarray:
    """The box around what is bright: far brighter than padding."""
    rows, columns = np.nonzero(pixels.max(axis=2) > 190)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.99]))
def test_a_face_and_its_box_move_together(seed: int, rotate: float) -> None:
    recipe = replace(PLAIN, rotate=rotate)
    pixels, targets = view(spot((100, 60, 160, 150)), 128, recipe, np.random.default_rng(seed))
    assert pixels.shape == (128, 128, 3)
    faces = targets[targets[:, 4] == FACE]
    if len(faces) == 0 or faces[0, :2].min() <= 0 or faces[0, 2:4].max() >= 128:
        return  # Cut at the edge: the bright part ends there too, but its ellipse is no longer whole.
    assert np.abs(lit_box(pixels) - faces[0, :4]).max() <= 2.5


@given(st.integers(0, 2**32 - 1))
def test_targets_lie_inside_and_nothing_tiny_is_a_face(seed: int) -> None:
    recipe = DetectorRecipe("x", "m", epochs=1, size=128)
    pictures = [spot((10, 10, 22, 22)), spot((0, 0, 250, 190)), spot((200, 20, 260, 90), IGNORED)]
    rng = np.random.default_rng(seed)
    for chosen in ([pictures[0]], [*pictures, pictures[0]]):
        pixels, targets = crop(chosen, 128, recipe, rng)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (128, 128, 3)
        assert (targets[:, :4] >= 0).all()
        assert (targets[:, :4] <= 128).all()
        assert (targets[:, 2:4] > targets[:, :2]).all()
        faces = targets[targets[:, 4] == FACE]
        assert ((faces[:, 2:4] - faces[:, :2]) >= SMALLEST_FACE_PX).all()
        assert set(targets[:, 4]) <= {FACE, IGNORED}


def test_an_ignored_place_stays_ignored() -> None:
    for seed in range(20):
        _, targets = crop([spot((100, 60, 160, 150), IGNORED)], 128, PLAIN, np.random.default_rng(seed))
        assert (targets[:, 4] == IGNORED).all()


def test_a_face_that_is_looked_at_is_in_the_picture_nine_times_of_ten() -> None:
    rng = np.random.default_rng(0)
    seen = [
        bool((crop([spot((20, 20, 60, 70))], 128, PLAIN, rng)[1][:, 4] == FACE).any()) for _ in range(300)
    ]
    assert np.mean(seen) > 0.85


@given(st.integers(0, 2**32 - 1))
def test_each_face_of_a_mosaic_lies_in_its_box(seed: int) -> None:
    pixels, targets = crop([spot((100, 20, 240, 190))] * 4, 128, PLAIN, np.random.default_rng(seed))
    bright = pixels.max(axis=2) > 140
    for x0, y0, x1, y1, _ in np.round(targets[targets[:, 4] == FACE]).astype(int):
        assert bright[y0:y1, x0:x1].mean() > 0.5


def test_a_view_is_mirrored_half_the_time_and_never_upside_down() -> None:
    picture = Picture(np.zeros((200, 200, 3), np.uint8), rows())
    picture.pixels[:100, :100] = 255
    recipe, rng = replace(PLAIN, smallest_crop=1.0, largest_crop=1.0), np.random.default_rng(0)
    lit = [np.argwhere(view(picture, 64, recipe, rng)[0][..., 0] > 250).mean(axis=0) for _ in range(200)]
    down, right = np.transpose(lit)
    assert down.max() < 32
    assert 0.4 < np.mean(right > 32) < 0.6


def test_a_face_becomes_wider_or_narrower_by_a_fifth_at_most() -> None:
    rng, face = np.random.default_rng(0), spot((120, 70, 180, 130))
    recipe = replace(PLAIN, smallest_crop=0.9)
    seen = np.concatenate([view(face, 128, recipe, rng)[1] for _ in range(300)])
    whole = seen[(seen[:, :4] > 0).all(axis=1) & (seen[:, :4] < 128).all(axis=1)]
    widths, heights = (whole[:, 2:4] - whole[:, :2]).T
    assert (widths / heights).min() == pytest.approx(0.81, abs=0.02)
    assert (widths / heights).max() == pytest.approx(1 / 0.81, abs=0.02)


def test_a_face_that_is_looked_at_does_not_fill_the_view() -> None:
    rng = np.random.default_rng(0)
    filled = [view(spot((5, 5, 295, 195)), 128, PLAIN, rng)[0].min() > 200 for _ in range(300)]
    assert np.mean(filled) < 0.1


def test_a_face_is_none_where_less_than_half_of_it_is_left_either_way() -> None:
    """Of 60 pixels at a scale of 0.64, less a tenth."""
    faces = rows(*[(left, 70, left + 60, 130, FACE) for left in (10, 120, 230)])
    picture = Picture(np.zeros((200, 300, 3), np.uint8), faces)
    recipe, rng = replace(PLAIN, smallest_crop=1.0, largest_crop=1.0), np.random.default_rng(0)
    seen = np.concatenate([view(picture, 128, recipe, rng)[1] for _ in range(200)])
    sides = seen[:, 2:4] - seen[:, :2]
    least = 0.9 * 0.64 * 60 / 2
    assert (sides[seen[:, 4] == FACE] > least - 0.01).all()
    assert (sides[seen[:, 4] == IGNORED].min(axis=1) < least * 1.3).all()


def test_a_rotation_turns_and_keeps_lengths() -> None:
    assert rotation(0.3) @ rotation(0.3).T == pytest.approx(np.eye(2))
    assert rotation(0.3) @ [1, 0] == pytest.approx([np.cos(0.3), np.sin(0.3)])


def test_other_light_is_on_average_as_bright() -> None:
    rng, pixels = np.random.default_rng(0), np.full((8, 8, 3), 120, np.uint8)
    assert np.mean([filmed(pixels, PLAIN, rng) for _ in range(500)]) == pytest.approx(120, abs=6)


def filmed_dots(**shares: float) -> np.ndarray:
    """200 times a picture whose pixels have one of two colours: (200, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    dots = np.uint8([[200, 90, 30], [20, 140, 220]])[rng.integers(2, size=(32, 32))]
    return np.stack([filmed(dots, replace(PLAIN, **shares), rng) for _ in range(200)])


def many_colours(crops: np.ndarray) -> float:
    return float(np.mean([len(np.unique(crop.reshape(-1, 3), axis=0)) > 2 for crop in crops]))


def test_shares_of_the_crops_are_grey_blurred_compressed_dark_and_a_tenth_noisy() -> None:
    plain = filmed_dots()
    assert 0.05 < many_colours(plain) < 0.15
    assert many_colours(filmed_dots(jpeg=0.3)) == pytest.approx(0.37, abs=0.08)
    assert many_colours(filmed_dots(blur=0.3)) == pytest.approx(0.37, abs=0.08)
    for share, crops in ((0, plain), (0.3, filmed_dots(grey=0.3))):
        assert (np.ptp(crops, axis=3).max(axis=(1, 2)) == 0).mean() == pytest.approx(share, abs=0.08)
    assert filmed_dots(dark=0.99).mean() < 0.6 * plain.mean()


def test_pixels_move_as_boxes_do_to_a_part_of_a_pixel() -> None:
    pixels = spot((100, 60, 160, 150)).pixels
    moved = warped(pixels, np.array([[0.8, 0, 3], [0, 1.6, -40]]), 256)
    y, x = np.argwhere(moved[..., 0] > 190).mean(axis=0) + 0.5
    assert (x, y) == pytest.approx((0.8 * 130 + 3, 1.6 * 105 - 40), abs=0.2)


def test_the_same_draw_gives_the_same_crop() -> None:
    recipe = DetectorRecipe("x", "m", epochs=1, size=128)
    first, second = (
        crop([spot((100, 60, 160, 150))], 128, recipe, np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def rows(*boxes: tuple[float, ...]) -> Targets:
    return np.array(boxes, np.float32).reshape(-1, 5)


def test_the_targets_of_a_batch_are_one_list() -> None:
    batch = listed([rows((0, 0, 4, 4, FACE)), rows(), rows((0, 0, 9, 9, IGNORED), (1, 1, 3, 3, FACE))])
    assert batch.shape == (3 * FACES_AN_IMAGE, 6)
    expected = [[0, 0, 9, 9, IGNORED, 2], [0, 0, 4, 4, FACE, 0], [1, 1, 3, 3, FACE, 2]]
    assert batch[:3].tolist() == expected
    assert not batch[3:].any()


def test_of_too_many_targets_the_smallest_go() -> None:
    crowd = rows(*[(0, 0, side, side, FACE) for side in range(1, FACES_AN_IMAGE + 4)])
    batch = listed([crowd])
    assert len(batch) == FACES_AN_IMAGE
    assert batch[:, 2].min() == 4


@pytest.mark.parametrize(("field", "value"), [("size", 100), ("mosaic", 1.5), ("smallest_crop", 0.0)])
def test_a_wrong_recipe_says_what_it_must_be(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} must be"):
        replace(PLAIN, **{field: value})


def grey_tiles(count: int) -> np.ndarray:
    return np.full((count, TILE_PX, TILE_PX, 3), 90, np.uint8)


@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 128, 256]))
def test_a_face_among_tiles_and_its_box_move_together(seed: int, size: int) -> None:
    face = spot((100, 20, 240, 190))
    pixels, targets = background_crop(grey_tiles(3), face, size, PLAIN, np.random.default_rng(seed))
    assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
    assert len(targets) <= MOST_VIEWS
    faces = targets[targets[:, 4] == FACE]
    bright = pixels.max(axis=2) > 140
    for x0, y0, x1, y1 in np.round(faces[:, :4]).astype(int):
        assert bright[y0:y1, x0:x1].mean() > 0.5  # An ellipse fills 79 % of its box.


@given(st.integers(0, 2**32 - 1))
def test_a_face_too_small_to_be_told_from_a_dog_is_ignored(seed: int) -> None:
    """Sixteen pixels of 200: eight of a tile's 32 where it shows most of them, enough for an ordinary crop."""
    targets = background_crop(
        grey_tiles(3), spot((100, 60, 116, 76)), 256, PLAIN, np.random.default_rng(seed)
    )[1]
    assert not (targets[:, 4] == FACE).any()


def test_most_tiles_are_without_faces() -> None:
    rng = np.random.default_rng(0)
    found = [
        background_crop(grey_tiles(3), spot((100, 20, 240, 190)), 256, PLAIN, rng)[1] for _ in range(200)
    ]
    assert 0.5 < np.mean([len(targets) for targets in found]) < 1.5
