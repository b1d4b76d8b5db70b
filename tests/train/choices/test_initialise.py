"""Initial weights by name: variances as published, the same for the same seed."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from train.choices import INITIALISERS
from train.choices.initialise import initialise, random_walk_gain
from train.models.convnetjs import convnetjs
from train.models.lenet import lenet5

PIXELS = np.random.default_rng(0).uniform(-1, 1, (32, 32, 32, 3)).astype(np.float32)


def kernel(model: keras.Model, name: str) -> Any:
    return np.asarray(model.get_layer(name).kernel)


def initialised(initialiser: str, seed: int = 0, model: keras.Model | None = None) -> keras.Model:
    model = model or lenet5(32, 32, 10)
    keras.utils.set_random_seed(seed)
    initialise(model, initialiser, PIXELS)
    return model


@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_the_same_seed_gives_the_same_weights(initialiser: str) -> None:
    first, again, other = (initialised(initialiser, seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert all(np.isfinite(values).all() for values in first)


@pytest.mark.parametrize(
    ("initialiser", "variance"),
    [
        ("glorot", 2 / (400 + 120)),
        ("he", 2 / 400),
        ("random_walk", 2 * math.exp(1.2 / (400 - 2.4)) ** 2 / 400),
        ("orthogonal", 1 / 400),
    ],
)
def test_the_variance_is_the_published_one(initialiser: str, variance: float) -> None:
    values = kernel(initialised(initialiser), "dense1")
    assert values.shape == (400, 120)
    assert values.var() == pytest.approx(variance, rel=0.03)
    assert abs(values.mean()) < 0.002


def test_orthogonal_columns_are_orthonormal() -> None:
    values = kernel(initialised("orthogonal"), "dense1")
    np.testing.assert_allclose(values.T @ values, np.eye(120), atol=1e-5)


@pytest.mark.parametrize(("activation", "gain"), [("relu", 1.4158), ("tanh", 1.0005), (None, 1.0005)])
def test_the_gain_of_a_random_walk_over_1000_inputs(activation: str | None, gain: float) -> None:
    """Sussillo and Abbott: slightly above the square root of two, and slightly above one."""
    assert random_walk_gain(activation, 1000) == pytest.approx(gain, abs=2e-4)


def test_a_random_walk_sees_the_activation_behind_normalisation_and_none_behind_the_next_kernel() -> None:
    pixels = keras.Input((400,))
    x = layers.Dense(400, use_bias=False, name="linear")(pixels)
    x = layers.BatchNormalization()(layers.Dense(400, use_bias=False, name="rectified")(x))
    model = initialised(
        "random_walk", model=keras.Model(pixels, layers.Dense(400, name="last")(layers.ReLU()(x)))
    )
    deviations = {name: kernel(model, name).std() * 20 for name in ("linear", "rectified", "last")}
    gains = {"linear": random_walk_gain(None, 400), "rectified": random_walk_gain("relu", 400)}
    assert deviations == pytest.approx(gains | {"last": gains["linear"]}, rel=0.02)


def before_activations(model: keras.Model) -> dict[str, Any]:
    """By layer with a kernel, its output without its activation."""
    found = {}
    for layer in model.layers:
        if getattr(layer, "kernel", None) is not None:
            activation, layer.activation = layer.activation, keras.activations.linear
            found[layer.name] = np.asarray(keras.Model(model.input, layer.output)(PIXELS))
            layer.activation = activation
    return found


def test_lsuv_gives_every_layer_variance_one() -> None:
    for name, values in before_activations(initialised("lsuv")).items():
        assert values.var() == pytest.approx(1, abs=0.1), name


def test_data_dependent_gives_every_channel_mean_zero_and_variance_one() -> None:
    for name, values in before_activations(initialised("data_dependent")).items():
        channels = values.reshape(-1, values.shape[-1])
        np.testing.assert_allclose(channels.mean(axis=0), 0, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(channels.std(axis=0), 1, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_depthwise_layers_and_those_without_bias(initialiser: str) -> None:
    pixels = keras.Input((32, 32, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")(pixels)
    model = keras.Model(pixels, layers.Conv2D(8, 1, use_bias=False, name="pointwise")(layers.ReLU()(x)))
    for values in before_activations(initialised(initialiser, model=model)).values():
        assert 0.05 < values.std() < 5


def test_what_is_frozen_stays() -> None:
    model = lenet5(32, 32, 10)
    model.get_layer("conv1").trainable = False
    before = kernel(model, "conv1").copy()
    initialised("lsuv", model=model)
    assert np.array_equal(kernel(model, "conv1"), before)


def test_batch_normalisation_is_left_alone() -> None:
    model = initialised("lsuv", model=convnetjs(32, 32, 10))
    assert np.array_equal(model.get_layer("norm1").gamma, np.ones(16))
    assert np.array_equal(model.get_layer("norm1").moving_variance, np.ones(16))


def test_biases_that_a_network_begins_with_go() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, bias_initializer="ones", name="dense")])
    initialise(model, "he", np.zeros((1, 4), np.float32))
    assert not np.asarray(model.get_layer("dense").bias).any()
