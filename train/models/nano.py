"""A residual network (He et al. 2015, arXiv 1512.03385) of the size that MLPerf Tiny gives its image classifier.

A strided 5x5 convolution, two basic blocks at half the input's size, two at a quarter, the global average and a
linear layer: 96,750 parameters without batch normalisation's, 11.9 M MACs at 32x32 (MLPerf Tiny's ResNet-8: 12.5 M).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

NARROW, WIDE = 28, 44


def nano(height: int, width: int, classes: int) -> keras.Model:
    """Float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes)."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = _conv(pixels, NARROW, "stem", kernel=5, strides=2)
    x = _block(x, NARROW, "block1")
    x = _block(x, NARROW, "block2")
    x = _block(x, WIDE, "block3", strides=2)
    x = _block(x, WIDE, "block4")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="nano")


def _conv(x: Any, filters: int, name: str, kernel: int = 3, strides: int = 1, relu: bool = True) -> Any:
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    x = layers.Conv2D(filters, kernel, strides, name=name, **options)(x)
    x = layers.BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _block(x: Any, filters: int, name: str, strides: int = 1) -> Any:
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the block halves the map."""
    y = _conv(x, filters, f"{name}a", strides=strides)
    y = _conv(y, filters, f"{name}b", relu=False)
    if strides > 1:
        x = _conv(x, filters, f"{name}_short", kernel=1, strides=strides, relu=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
