"""The network of the ConvNetJS CIFAR-10 demo (Karpathy 2014): three 5x5 conv-ReLU-pool stages.

Batch normalisation stands behind each convolution while training; export folds it away, so that
what runs on the device is exactly the demo's network: 22.5 k parameters, 3.9 M MACs at 32x32.
"""

from __future__ import annotations

import keras
from keras import layers


def convnetjs(height: int, width: int, classes: int) -> keras.Model:
    """Convolutions of 16, 20 and 20 filters, each followed by a 2x2 max pool; one dense layer."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = pixels
    for index, filters in enumerate((16, 20, 20), start=1):
        x = layers.Conv2D(filters, 5, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.BatchNormalization(name=f"norm{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="convnetjs")
