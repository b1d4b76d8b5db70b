"""AlexNet (Krizhevsky et al. 2012) for small pictures: half of the original's width, kernels that suit 32x32.

The original stands in two halves on two graphics cards, which meet after the second convolution and in the dense
layers; this is one of them. It sees 224 pixels and begins with 11x11 at a stride of 4; here the first convolution is
5x5 at a stride of 1. Local response normalisation is left out, as later work found it of no use (Simonyan and
Zisserman 2014, arXiv 1409.1556, section 4.1), and the dense layers have 512 units in place of 4,096. The
overlapping pools are the original's. Its dropout of one half stands in the recipe.
"""

from __future__ import annotations

import keras
from keras import layers

CONVOLUTIONS = ((48, 5, True), (128, 5, True), (192, 3, False), (192, 3, False), (128, 3, True))
"""Filters, kernel, and whether a 3x3 pool of stride 2 follows."""

UNITS = (512, 512)


def alexnet(height: int, width: int, classes: int) -> keras.Model:
    """Float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes); H and W at least 15 pixels."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = pixels
    for index, (filters, kernel, pool) in enumerate(CONVOLUTIONS, start=1):
        x = layers.Conv2D(filters, kernel, padding="same", activation="relu", name=f"conv{index}")(x)
        if pool:
            x = layers.MaxPooling2D(3, 2, name=f"pool{index}")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate(UNITS, start=1):
        x = layers.Dense(units, activation="relu", name=f"dense{index}")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="alexnet")
