"""Order and augmentation of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pixels import PAD_VALUE, normalise
from train.augment import batches, flipped, shifted, steps_per_epoch
from train.data import LabelledImages
from train.recipe import Recipe

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def random_images(size: tuple[int, int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@given(SIZES, st.integers(0, 5))
def test_flipped_mirrors_or_leaves_each_image(size: tuple[int, int, int], seed: int) -> None:
    images = random_images(size, seed)
    result = flipped(images, np.random.default_rng(seed))
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    for before, after in zip(images, result, strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


@given(SIZES, st.integers(1, 3), st.integers(0, 5))
def test_shifted_moves_each_image_and_fills_with_grey(
    size: tuple[int, int, int], limit: int, seed: int
) -> None:
    images = random_images(size, seed)
    result = shifted(images, limit, np.random.default_rng(seed))
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    span = range(-limit, limit + 1)
    for before, after in zip(images, result, strict=True):
        assert any(np.array_equal(after, moved(before, dy, dx)) for dy in span for dx in span)


def moved(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Pixel by pixel, so that it shares nothing with what it checks."""
    height, width = image.shape[:2]
    result = np.full_like(image, PAD_VALUE)
    for y in range(height):
        for x in range(width):
            if 0 <= y - dy < height and 0 <= x - dx < width:
                result[y, x] = image[y - dy, x - dx]
    return result


def test_all_shifts_and_both_mirrors_occur() -> None:
    images = np.tile(random_images((1, 5, 5), 3), (1000, 1, 1, 1))
    rng = np.random.default_rng(0)
    assert len({image.tobytes() for image in shifted(images, 2, rng)}) == 25
    share = np.mean([image.tobytes() == images[0].tobytes() for image in flipped(images, rng)])
    assert 0.4 < share < 0.6


def numbered(n: int) -> LabelledImages:
    """Image i is filled with i, and its label is i % 2."""
    images = np.zeros((n, 2, 2, 3), np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
    return LabelledImages(images, np.arange(n) % 2, ("even", "odd"), "made")


def recipe(**fields: object) -> Recipe:
    return Recipe(name="r", model="m:f", data="digits", epochs=2, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3])])
def test_an_epoch_takes_each_image_once(n: int, size: int, expected: list[int]) -> None:
    data, order = numbered(n), []
    for pixels, labels in batches(data, recipe(batch_size=size), epoch=0):
        numbers = np.rint(pixels[:, 0, 0, 0] * 128 + 128).astype(int)
        assert np.array_equal(pixels, normalise(data.images[numbers]))
        assert np.array_equal(labels, numbers % 2)
        order.append(numbers)
    assert [len(numbers) for numbers in order] == expected
    assert len(set(np.concatenate(order))) == sum(expected)
    assert steps_per_epoch(data, recipe(batch_size=size)) == len(expected)


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def pixels(seed: int, epoch: int) -> bytes:
        settings = recipe(batch_size=5, flip=True, shift_px=1, seed=seed)
        return b"".join(images.tobytes() for images, _ in batches(numbered(20), settings, epoch))

    assert pixels(0, 1) == pixels(0, 1)
    assert len({pixels(0, 0), pixels(0, 1), pixels(1, 0)}) == 3
