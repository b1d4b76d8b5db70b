"""ResNet for CIFAR-10 (He et al. 2015, arXiv 1512.03385, section 4.2): 6n + 2 layers, 16 to 64 filters.

Each pair of 3x3 convolutions learns what is to be added to its input. Where the map halves and the channels
double, the way around the pair is a 1x1 convolution of stride 2 (the paper's option B; its CIFAR networks pad
with zero channels, option A, which saves 2.7 k parameters and is no layer of Keras).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

FILTERS = (16, 32, 64)


def resnet20(height: int, width: int, classes: int) -> keras.Model:
    """Three pairs a stage: float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes)."""
    return resnet(height, width, classes, 3)


def resnet56(height: int, width: int, classes: int) -> keras.Model:
    """Nine pairs a stage."""
    return resnet(height, width, classes, 9)


def resnet(height: int, width: int, classes: int, pairs: int) -> keras.Model:
    """The network of 6 * `pairs` + 2 layers."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = _relu(_conv(pixels, FILTERS[0], "stem"), "stem")
    for stage, filters in enumerate(FILTERS, start=1):
        for index in range(1, pairs + 1):
            x = _pair(x, filters, 2 if stage > 1 and index == 1 else 1, f"pair{stage}_{index}")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name=f"resnet{6 * pairs + 2}")


def _pair(x: Any, filters: int, strides: int, name: str) -> Any:
    y = _relu(_conv(x, filters, f"{name}a", strides=strides), f"{name}a")
    y = _conv(y, filters, f"{name}b")
    if strides > 1:
        x = _conv(x, filters, f"{name}_around", kernel=1, strides=strides)
    return _relu(layers.Add(name=f"{name}_add")([x, y]), name)


def _conv(x: Any, filters: int, name: str, kernel: int = 3, strides: int = 1) -> Any:
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    x = layers.Conv2D(filters, kernel, strides, name=name, **options)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def _relu(x: Any, name: str) -> Any:
    return layers.ReLU(name=f"{name}_relu")(x)
