"""LeNet-5 (LeCun et al. 1998), with ReLU and max pooling where the original had tanh and averages."""

from __future__ import annotations

import keras
from keras import layers


def lenet5(height: int, width: int, classes: int) -> keras.Model:
    """62 k parameters at 32x32x3: conv 6, pool, conv 16, pool, dense 120, 84, classes."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = pixels
    for index, filters in enumerate((6, 16), start=1):
        x = layers.Conv2D(filters, 5, activation="relu", name=f"conv{index}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
    x = layers.Flatten(name="flatten")(x)
    for index, units in enumerate((120, 84), start=1):
        x = layers.Dense(units, activation="relu", name=f"dense{index}")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="lenet5")
