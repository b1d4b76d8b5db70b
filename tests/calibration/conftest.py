"""Small networks with every layer that int8 export knows, their weights drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from train.models.convnetjs import convnetjs
from train.models.lenet import lenet5


def residual(height: int, width: int, classes: int) -> keras.Model:
    """A shortcut, a depthwise convolution, ReLU6, norms that fold and one that cannot, a dense norm."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(pixels)
    x = shortcut = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(scale=False)(x))
    x = layers.BatchNormalization(center=False)(layers.Conv2D(8, 1)(x))
    x = layers.Dropout(0.3)(layers.Activation("relu")(layers.Add()([x, shortcut])))
    x = layers.BatchNormalization()(layers.MaxPooling2D(2)(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(12, use_bias=False)(x)))
    return keras.Model(pixels, layers.Activation("linear")(layers.Dense(classes)(x)))


def branches(height: int, width: int, classes: int) -> keras.Model:
    """Two branches joined along the channels, average pooling, and a head read after a flatten."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(pixels))
    left, right = layers.Conv2D(4, 1, activation="relu")(x), layers.Conv2D(4, 3, padding="same")(x)
    x = layers.AveragePooling2D(2)(layers.Concatenate()([left, right]))
    return keras.Model(pixels, layers.Dense(classes)(layers.Flatten()(x)))


def pyramid(height: int, width: int, classes: int) -> keras.Model:
    """Two levels with a head each, as a detector has them: dilation, upsampling, and a head that is read on."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(pixels)
    fine = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    coarse = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(fine)
    side = layers.Conv2D(8, 3, padding="same", dilation_rate=2, use_bias=False)(coarse)
    coarse = layers.ReLU()(layers.Add()([coarse, layers.BatchNormalization()(side)]))
    up = layers.UpSampling2D(2, interpolation="nearest", name="up")(layers.Conv2D(8, 1)(coarse))
    fine = layers.ReLU(name="merged")(layers.Add()([fine, up]))
    heads = [
        layers.BatchNormalization(name="fine")(layers.Conv2D(classes, 1, use_bias=False)(fine)),
        layers.Conv2D(4, 1, name="coarse")(coarse),
    ]
    read_on = layers.Conv2D(3, 1, name="read_on")(fine)
    return keras.Model(pixels, [*heads, read_on, layers.ReLU(name="last")(read_on)])


NETWORKS: dict[str, Callable[[int, int, int], keras.Model]] = {
    "convnetjs": convnetjs,
    "lenet5": lenet5,
    "residual": residual,
    "branches": branches,
    "pyramid": pyramid,
}


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> Any:
    """One of the networks at 32x32 with five classes, its statistics and weights away from their start."""
    return randomised(NETWORKS[request.param](32, 32, 5))


@pytest.fixture
def pictures() -> Any:
    """uint8 (64, 32, 32, 3): soft blobs, so that activations are not those of white noise."""
    rng = np.random.default_rng(7)
    blobs = rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    return blobs.repeat(4, axis=1).repeat(4, axis=2)


def randomised(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(3)
    for weight in model.weights:
        values = rng.normal(0, 0.2, weight.shape)
        positive = any(part in weight.path for part in ("variance", "gamma"))
        weight.assign(np.abs(values) + 0.5 if positive else values)
    return model
