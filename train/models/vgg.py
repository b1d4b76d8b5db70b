"""VGG (Simonyan and Zisserman 2014, arXiv 1409.1556) for small pictures: 3x3 convolutions alone, pooled by two.

Batch normalisation stands behind each convolution, without which 13 of them hardly begin to learn, and one
linear layer takes the place of the three dense ones, which held most of the original's 138 M parameters.
"""

from __future__ import annotations

import keras
from keras import layers

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Filters of the convolutions between two pools: the paper's configurations A and D."""


def vgg11(height: int, width: int, classes: int) -> keras.Model:
    """Float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes); H and W at least 32 pixels."""
    return _vgg(height, width, classes, VGG11, "vgg11")


def vgg16(height: int, width: int, classes: int) -> keras.Model:
    """As `vgg11` with 13 convolutions."""
    return _vgg(height, width, classes, VGG16, "vgg16")


def _vgg(
    height: int, width: int, classes: int, blocks: tuple[tuple[int, ...], ...], name: str
) -> keras.Model:
    pixels = keras.Input((height, width, 3), name="pixels")
    x = pixels
    for block, widths in enumerate(blocks, start=1):
        for index, filters in enumerate(widths, start=1):
            part = f"conv{block}_{index}"
            he = "he_normal"
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=he, name=part)(x)
            x = layers.BatchNormalization(name=f"{part}_norm")(x)
            x = layers.ReLU(name=f"{part}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name=name)
