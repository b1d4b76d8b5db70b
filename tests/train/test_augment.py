"""Order and augmentation of an epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pixels import PAD_VALUE
from train.augment import Patches, View, as_seen, cut_out, mirrored, moved, steps_per_epoch, viewed
from train.data import LabelledImages
from train.recipe import Recipe

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def random_images(size: tuple[int, int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@given(SIZES, st.integers(0, 5))
def test_mirrored_turns_the_named_images_and_no_others(size: tuple[int, int, int], seed: int) -> None:
    images = random_images(size, seed)
    which = np.random.default_rng(seed).random(len(images)) < 0.5
    for before, after, turned in zip(images, mirrored(images, which), which, strict=True):
        assert np.array_equal(after, before[:, ::-1] if turned else before)


@given(SIZES, st.integers(0, 3), st.integers(0, 5))
def test_moved_shifts_each_window_and_fills_with_grey(
    size: tuple[int, int, int], limit: int, seed: int
) -> None:
    images = random_images(size, seed)
    shift = np.random.default_rng(seed).integers(-limit, limit + 1, (2, len(images)))
    result = moved(images, shift)
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    for before, after, rows, columns in zip(images, result, *shift, strict=True):
        assert np.array_equal(after, by_pixel(before, int(rows), int(columns)))


def by_pixel(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Pixel by pixel, so that it shares nothing with what it checks."""
    height, width = image.shape[:2]
    result = np.full_like(image, PAD_VALUE)
    for y in range(height):
        for x in range(width):
            if 0 <= y + rows < height and 0 <= x + columns < width:
                result[y, x] = image[y + rows, x + columns]
    return result


def test_all_shifts_and_both_mirrors_occur() -> None:
    view, _ = next(viewed(numbered(1000), recipe(batch_size=1000, flip=True, shift_px=2), epoch=0))
    assert set(view.shift[0]) == set(view.shift[1]) == {-2, -1, 0, 1, 2}
    assert len(set(zip(*view.shift, strict=True))) == 25
    assert 0.4 < view.mirror.mean() < 0.6


def numbered(n: int) -> LabelledImages:
    """Image i is filled with i, and its label is i % 2."""
    images = np.zeros((n, 2, 2, 3), np.uint8) + (np.arange(n) % 256).astype(np.uint8)[:, None, None, None]
    return LabelledImages(images, np.arange(n) % 2, ("even", "odd"), "made")


def recipe(**fields: object) -> Recipe:
    return Recipe(name="r", model="m:f", data="digits", epochs=2, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3])])
def test_an_epoch_takes_each_image_once(n: int, size: int, expected: list[int]) -> None:
    data, order = numbered(n), []
    for view, images in viewed(data, recipe(batch_size=size), epoch=0):
        numbers = images[:, 0, 0, 0].astype(int)
        assert np.array_equal(images, data.images[numbers])
        assert np.array_equal(data.labels[view.chosen], numbers % 2)
        order.append(numbers)
    assert [len(numbers) for numbers in order] == expected
    assert len(set(np.concatenate(order))) == sum(expected)
    assert steps_per_epoch(data, recipe(batch_size=size)) == len(expected)


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def pixels(seed: int, epoch: int) -> bytes:
        settings = recipe(batch_size=5, flip=True, shift_px=1, seed=seed)
        return b"".join(images.tobytes() for _, images in viewed(numbered(20), settings, epoch))

    assert pixels(0, 1) == pixels(0, 1)
    assert len({pixels(0, 0), pixels(0, 1), pixels(1, 0)}) == 3


def test_alternate_shows_every_image_both_ways_in_any_two_epochs() -> None:
    """One image is mirrored in even epochs, another in odd ones; which, the seed says."""
    images = random_images((64, 4, 4), 1)
    data = LabelledImages(images, np.arange(64), tuple(map(str, range(64))), "made")
    recipe = Recipe(name="r", model="m:f", data="digits", epochs=3, batch_size=64, alternate=True)
    epochs = [by_position(next(viewed(data, recipe, epoch))) for epoch in range(3)]
    mirrored_first = 0
    for number, pixels in enumerate(images):
        seen = [epoch[number] for epoch in epochs]
        assert np.array_equal(seen[1], seen[0][:, ::-1])
        assert np.array_equal(seen[2], seen[0])
        mirrored_first += int(not np.array_equal(seen[0], pixels))
    assert 16 < mirrored_first < 48


def by_position(batch: tuple[View, np.ndarray]) -> dict[int, np.ndarray]:
    view, images = batch
    return {int(number): image for number, image in zip(view.chosen, images, strict=True)}


def test_compressed_changes_a_share_of_the_images_a_little_and_keeps_the_colour_order() -> None:
    images = np.tile(np.uint8([200, 90, 30]), (400, 16, 16, 1))
    images[:, 4:9, 4:9] = [20, 40, 220]
    before = images.copy()
    result = as_seen(images, recipe(jpeg=0.5), np.random.default_rng(0))
    changed = (result != images).any(axis=(1, 2, 3))
    assert 0.4 < changed.mean() < 0.6
    assert np.abs(result[:, 0, 0].mean(axis=0) - [200, 90, 30]).max() < 10
    assert np.array_equal(images, before)


@pytest.mark.parametrize("kind", ["noise", "blur"])
def test_noise_and_blur_change_a_share_of_the_images_and_keep_their_brightness(kind: str) -> None:
    images = np.tile(np.uint8([200, 90, 30]), (400, 16, 16, 1))
    images[:, 4:9, 4:9] = [20, 140, 220]
    result = as_seen(images, recipe(**{kind: 0.5}), np.random.default_rng(0))
    changed = (result != images).any(axis=(1, 2, 3))
    assert 0.4 < changed.mean() < 0.6
    assert np.abs(result[changed].mean(axis=(0, 1, 2)) - images.mean(axis=(0, 1, 2))).max() < 1.5


@given(SIZES, st.integers(1, 8), st.integers(0, 5))
def test_cut_out_greys_one_square_and_nothing_else(size: tuple[int, int, int], side: int, seed: int) -> None:
    images = np.where(random_images(size, seed) == PAD_VALUE, np.uint8(0), random_images(size, seed))
    result = cut_out(images, side, np.random.default_rng(seed))
    for before, after in zip(images, result, strict=True):
        cut = (after == PAD_VALUE).all(axis=-1)
        rows, columns = np.flatnonzero(cut.any(axis=1)), np.flatnonzero(cut.any(axis=0))
        assert cut.sum() == len(rows) * len(columns) > 0
        assert all(np.ptp(places) + 1 == len(places) <= side for places in (rows, columns))
        assert np.array_equal(after[~cut], before[~cut])


def test_the_recipes_cutout_has_its_centre_anywhere_in_the_image_alike() -> None:
    images = np.zeros((4000, 12, 12, 3), np.uint8)
    cut = as_seen(images, recipe(cutout=5), np.random.default_rng(0))[..., 0] == PAD_VALUE
    for rows in (cut.any(axis=1), cut.any(axis=2)):
        # An edge is reached by centres on it and on the two places beside it.
        assert rows.mean(axis=0)[[0, -1]] == pytest.approx([3 / 12, 3 / 12], abs=0.03)


@given(SIZES, st.integers(0, 5))
def test_patches_come_from_the_same_place_of_another_image_and_bring_their_share_of_its_label(
    size: tuple[int, int, int], seed: int
) -> None:
    images, rng = random_images(size, seed), np.random.default_rng(seed)
    other, inside = rng.permutation(len(images)), rng.random(size) < 0.3
    view = View(np.arange(len(images)), np.zeros(len(images), np.bool_), np.zeros((2, len(images)), np.int64))
    patched = replace(view, patches=Patches(other, inside))
    for index, (after, mask) in enumerate(zip(patched.of(images), inside, strict=True)):
        assert np.array_equal(after[mask], images[other[index]][mask])
        assert np.array_equal(after[~mask], images[index][~mask])
    targets = patched.targets(np.eye(len(images), dtype=np.float32))
    for index, target in enumerate(targets):
        expected = {index: 0.0} | {int(other[index]): float(inside[index].mean())}
        expected[index] += 1 - inside[index].mean()
        assert {place: target[place] for place in expected} == pytest.approx(expected, abs=1e-6)
        assert target.sum() == pytest.approx(1)


def test_a_share_of_the_images_gets_rectangles_of_all_sizes() -> None:
    images = random_images((2000, 16, 12), 1)
    data = LabelledImages(images, np.arange(2000) % 2, ("a", "b"), "made")
    view, seen = next(viewed(data, recipe(batch_size=2000, patch=0.4), epoch=0))
    assert view.patches is not None
    patched = view.patches.inside[view.patched]
    assert 0.35 < len(patched) / 2000 < 0.45
    for inside in patched:
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert inside.sum() == len(rows) * len(columns)
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()
    shares = patched.mean(axis=(1, 2))
    assert shares.min() < 0.05
    assert shares.max() > 0.9
    # Sides of the share s = root(u), cut at the edges to s - s^2/4 on average: the mean of its square.
    assert shares.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.03)
    assert patched.mean(axis=0).min() > 0.1  # no part of the picture is spared
    assert np.array_equal(seen, view.of(images))
