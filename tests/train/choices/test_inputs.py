"""What the first layer does to the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edge.pixels import normalise
from train.choices.inputs import input_layer
from train.data import load


def through(preprocess: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    layer = input_layer(preprocess, images)
    assert layer is not None
    return np.asarray(layer(normalise(images)))


@pytest.fixture(scope="module")
def photographs() -> NDArray[np.uint8]:
    """Neighbours and colours that go together, as in pictures: noise, blurred and mixed."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(64, 34, 34, 3))
    blurred = sum(noise[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3)) / 3
    mixed = blurred @ np.array([[1, 0.8, 0.6], [0, 0.6, 0.5], [0, 0, 0.4]])
    return np.clip(128 + 30 * mixed + [20, 0, -20], 0, 255).astype(np.uint8)


def test_none_is_no_layer(photographs: NDArray[np.uint8]) -> None:
    assert input_layer("none", photographs) is None


def test_mean_takes_each_colours_mean_off(photographs: NDArray[np.uint8]) -> None:
    out = through("mean", photographs)
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 1, 2)), normalise(photographs).std(axis=(0, 1, 2)), rtol=1e-4)


def test_standardise_brings_each_colour_to_variance_one(photographs: NDArray[np.uint8]) -> None:
    out = through("standardise", photographs)
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 1, 2)), 1, rtol=1e-4)


def correlations(values: NDArray[Any]) -> NDArray[Any]:
    """Between the three colours of a pixel and of its right neighbour, without the diagonal."""
    pairs = np.concatenate([values[:, 1:-1, 1:-2], values[:, 1:-1, 2:-1]], axis=-1).reshape(-1, 6)
    return np.corrcoef(pairs.T)[~np.eye(6, dtype=bool)]


def test_whiten_makes_colours_and_neighbours_uncorrelated(photographs: NDArray[np.uint8]) -> None:
    before, after = correlations(normalise(photographs)), correlations(through("whiten", photographs))
    assert np.abs(before).max() > 0.8
    assert np.abs(after).max() < 0.3
    assert np.abs(after).mean() < np.abs(before).mean() / 4


def test_whiten_on_digits_is_finite() -> None:
    """Their colours are equal: six of nine directions do not occur at all."""
    out = through("whiten", load("digits", "train", 32, 32).images[:100])
    assert np.isfinite(out).all()
    assert 0.05 < out.std() < 20


@settings(max_examples=20)
@given(arrays.arrays(np.uint8, (2, 4, 4, 3)), st.sampled_from(["mean", "standardise", "whiten"]))
def test_any_pictures_give_numbers(images: NDArray[np.uint8], preprocess: str) -> None:
    assert np.isfinite(through(preprocess, images)).all()
