"""GoogLeNet's inception module (Szegedy et al. 2014, arXiv 1409.4842) in a network for small pictures.

A module looks at its input in four ways at once and puts the answers side by side: 1x1, 3x3, 5x5 and a 3x3
pool. Each dear one has a 1x1 convolution before it (after, for the pool) that makes the channels fewer. The
widths are the original's of modules 3a to 4b, halved; its stem, which shrinks 224 pixels by eight, is one 3x3
convolution here. Batch normalisation came with the second version (arXiv 1502.03167).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers


@dataclass(frozen=True)
class Widths:
    """Filters of a module's four ways; `before3` and `before5` are the 1x1 convolutions before the kernel."""

    one: int
    before3: int
    three: int
    before5: int
    five: int
    pool: int


STEM = 96
STAGES = (
    (Widths(32, 48, 64, 8, 16, 16), Widths(64, 64, 96, 16, 48, 32)),
    (Widths(96, 48, 104, 8, 24, 32), Widths(80, 56, 112, 12, 32, 32)),
)
"""Modules between two pools of stride 2: 3a and 3b, 4a and 4b."""


def inception(height: int, width: int, classes: int) -> keras.Model:
    """Float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes)."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = _conv(pixels, STEM, 3, "stem")
    for stage, modules in enumerate(STAGES, start=1):
        x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{stage}")(x)
        for index, widths in enumerate(modules, start=1):
            x = _module(x, widths, f"module{stage}_{index}")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="inception")


def _module(x: Any, widths: Widths, name: str) -> Any:
    """(N, H, W, C) to (N, H, W, the sum of the four ways' filters)."""
    pooled = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    ways = [
        _conv(x, widths.one, 1, f"{name}_1x1"),
        _conv(_conv(x, widths.before3, 1, f"{name}_before3"), widths.three, 3, f"{name}_3x3"),
        _conv(_conv(x, widths.before5, 1, f"{name}_before5"), widths.five, 5, f"{name}_5x5"),
        _conv(pooled, widths.pool, 1, f"{name}_after_pool"),
    ]
    return layers.Concatenate(name=name)(ways)


def _conv(x: Any, filters: int, kernel: int, name: str) -> Any:
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
