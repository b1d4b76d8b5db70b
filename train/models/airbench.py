"""A plain CNN that learns CIFAR-10 in few epochs: the network of airbench (Jordan 2024, arXiv 2404.00498).

A frozen first convolution whitens 2x2 patches (`train.whiten` computes it from the training images), three groups
of three 3x3 convolutions follow, and a linear layer. As in airbench96 a group's first convolution is pooled, and what
it gives is added to what the third one gives. The convolutions begin as identities as far as their inputs go. Every
activation is a ReLU where the original has GELU: it fuses into the convolution on every int8 target. The widths, 96,
160 and 256 in place of 128, 384 and 512, keep the float file under ten megabytes: 2.34 M parameters and 140 M MACs.
At half those widths it is a teacher for a far smaller network.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from train.whiten import LAYER

WIDTHS = (96, 160, 256)
HALF_WIDTHS = (48, 80, 128)
FILTERS = 24
"""Of the first layer: two, one of each sign, for each of the 12 values of a 2x2 RGB patch."""

LAST_POOL = 3
LOGIT_SCALE = 9.0
"""The original divides its logits by nine; here the last layer's weights begin nine times smaller."""


def airbench(height: int, width: int, classes: int) -> keras.Model:
    """Float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes); H and W at least 25 pixels."""
    return _network(height, width, classes, WIDTHS)


def airbench_half(height: int, width: int, classes: int) -> keras.Model:
    """The same at half the widths: 0.59 M parameters, 40 M MACs at 32x32."""
    return _network(height, width, classes, HALF_WIDTHS)


def _network(height: int, width: int, classes: int, widths: tuple[int, ...]) -> keras.Model:
    pixels = keras.Input((height, width, 3), name="pixels")
    x = layers.Conv2D(FILTERS, 2, use_bias=False, trainable=False, name=LAYER)(pixels)
    x = layers.ReLU(name="whiten_relu")(x)
    for index, filters in enumerate(widths, start=1):
        x = _group(x, filters, f"group{index}")
    x = layers.MaxPooling2D(LAST_POOL, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    bound = 1 / (math.sqrt(x.shape[-1]) * LOGIT_SCALE)
    head = layers.Dense(classes, kernel_initializer=_uniform(bound), name="logits")
    return keras.Model(pixels, head(x), name="airbench")


def _group(x: Any, filters: int, name: str) -> Any:
    x = layers.ReLU(name=f"{name}a_relu")(_conv(x, filters, f"{name}a", pool=True))
    y = layers.ReLU(name=f"{name}b_relu")(_conv(x, filters, f"{name}b"))
    y = _conv(y, filters, f"{name}c")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def _conv(x: Any, filters: int, name: str, pool: bool = False) -> Any:
    bound = 1 / math.sqrt(9 * x.shape[-1])
    options = {"padding": "same", "use_bias": False, "kernel_initializer": _uniform(bound)}
    layer = layers.Conv2D(filters, 3, name=name, **options)
    x = layer(x)
    layer.kernel.assign(_passing_on(ops.convert_to_numpy(layer.kernel)))
    if pool:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-6, scale=False, name=f"{name}_norm")(x)


def _uniform(bound: float) -> keras.initializers.Initializer:
    """Within 1/sqrt(fan in), the default of PyTorch's layers."""
    return keras.initializers.RandomUniform(-bound, bound)


def _passing_on(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same kernel (3, 3, channels, filters), filter i handing channel i on as long as there are channels.

    Not an initialiser of its own: a saved network would need this file to be loaded.
    """
    height, width, channels, filters = kernel.shape
    passing = kernel.copy()
    for index in range(min(channels, filters)):
        passing[..., index] = 0
        passing[height // 2, width // 2, index, index] = 1
    return passing
