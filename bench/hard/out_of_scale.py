"""A real small network for the digits, and how to bring its channels out of scale without changing what it does."""

from __future__ import annotations

from itertools import pairwise

import keras
import numpy as np
from keras import layers

from edge.pixels import normalise
from train.data import load

CHAIN = ("stem", "dw1", "pw1", "dw2", "pw2")


def trained(epochs: int) -> keras.Model:
    """A convolution, two depthwise and two 1x1 convolutions, each with norm and ReLU, and a head; from seed 0."""
    keras.utils.set_random_seed(0)
    train, model = load("digits", "train", 16, 16), _network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(normalise(train.images), train.labels, epochs=epochs, batch_size=64, verbose=0)
    return model


def sabotage(model: keras.Model, octaves: float) -> None:
    """Scale each channel before a ReLU by 2^-octaves to 2^octaves, and what reads it by the inverse."""
    rng = np.random.default_rng(0)
    for name, reader in pairwise(CHAIN):
        norm, kernel = model.get_layer(f"{name}_norm"), model.get_layer(reader).kernel
        scale = 2.0 ** rng.uniform(-octaves, octaves, norm.gamma.shape)
        norm.gamma.assign(norm.gamma * scale)
        norm.beta.assign(norm.beta * scale)
        kernel.assign(kernel / scale.reshape(1, 1, -1, 1))


def _network() -> keras.Model:
    x = pixels = keras.Input((16, 16, 3), name="pixels")
    for name in CHAIN:
        if name.startswith("dw"):
            x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=name)(x)
        elif name == "stem":
            x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name=name)(x)
        else:
            x = layers.Conv2D(24, 1, use_bias=False, name=name)(x)
        x = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.8, name=f"{name}_norm")(x))
    return keras.Model(pixels, layers.Dense(10, name="head")(layers.GlobalAveragePooling2D(name="mean")(x)))
