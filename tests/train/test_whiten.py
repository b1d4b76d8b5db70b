"""The whitening layer: what it does to patches it was not made from, and which models it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edge.errors import InputError
from edge.pixels import normalise
from train.models.airbench import airbench
from train.whiten import patches, whiten, whitening_kernel


def smooth_images(n: int, seed: int) -> np.ndarray:
    """Neighbouring pixels and colours are alike, as in photographs: strongly correlated patches."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(128, 50, (n, 8, 8, 1)) + rng.normal(0, 15, (n, 8, 8, 3))
    fine = np.repeat(np.repeat(coarse, 2, axis=1), 2, axis=2) + rng.normal(0, 6, (n, 16, 16, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


def test_outputs_are_uncorrelated_and_of_unit_power_on_images_of_the_same_kind() -> None:
    kernel = whitening_kernel(smooth_images(400, 0), 2)
    assert kernel.shape == (2, 2, 3, 24)
    pixels = normalise(smooth_images(400, 1))
    outputs = np.asarray(keras.ops.conv(pixels, kernel, padding="valid"))[..., :12].reshape(-1, 12)
    moments = outputs.T @ outputs / len(outputs)
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 0.05
    assert np.abs(np.diag(moments) - 1).max() < 0.15


def test_patches_are_in_the_order_of_a_kernels_values() -> None:
    pixels, kernel = (
        np.random.default_rng(0).random((2, 5, 6, 3)),
        np.random.default_rng(1).random((2, 2, 3, 4)),
    )
    outputs = np.asarray(keras.ops.conv(pixels, kernel, padding="valid"))
    assert patches(pixels, 2) @ kernel.reshape(12, 4) == pytest.approx(outputs.reshape(-1, 4), rel=1e-5)


def test_the_second_half_of_the_filters_is_the_first_one_negated() -> None:
    kernel = whitening_kernel(smooth_images(50, 0), 2)
    assert np.array_equal(kernel[..., :12], -kernel[..., 12:])


def test_whiten_sets_the_layer_and_training_leaves_it() -> None:
    model = airbench(32, 32, 10)
    images = np.kron(smooth_images(64, 0), np.ones((1, 2, 2, 1), np.uint8))
    whiten(model, images)
    assert np.array_equal(model.get_layer("whiten").kernel, whitening_kernel(images, 2))
    assert not any("whiten" in weight.path for weight in model.trainable_weights)


def test_a_model_without_the_layer_is_refused_by_name() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)], name="other")
    with pytest.raises(InputError, match="other has no layer named 'whiten'"):
        whiten(model, smooth_images(4, 0))


def test_a_layer_of_another_shape_is_refused() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 2, name="whiten")])
    with pytest.raises(InputError, match=r"\(2, 2, 3, 4\), whitening needs \(2, 2, 3, 24\)"):
        whiten(model, smooth_images(4, 0))
