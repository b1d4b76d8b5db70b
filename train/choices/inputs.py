"""What is done to the pixels, inside the graph: a frozen first layer computed from the training images.

So the edge hands every network the same pixels, (x - 128) / 128. A convolution does it, since every int8
target knows one; Keras's `Normalization` has no int8 form.
"""

from __future__ import annotations

import numpy as np
from keras import layers
from numpy.typing import NDArray

from edge.pixels import Image, normalise
from train.whiten import IMAGES, patches

PATCH = 3
NAME = "inputs"
SMALLEST = 1e-3
"""Added to each eigenvalue before whitening: what hardly occurs would be amplified to noise."""

Affine = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A kernel (height, width, 3, 3) and a bias (3,)."""


def input_layer(preprocess: str, images: Image) -> layers.Layer | None:
    """A frozen layer for uint8 training images (N, H, W, 3), to be called on normalised pixels.

    `mean` takes off each colour's mean, `standardise` divides by its standard deviation too, `whiten`
    makes each pixel's colours uncorrelated with each other and with the neighbours'. None for `none`.
    """
    if preprocess == "none":
        return None
    kernel, bias = _AFFINES[preprocess](normalise(images[:IMAGES]).astype(np.float64))
    layer = layers.Conv2D(3, kernel.shape[0], padding="same", trainable=False, name=NAME)
    layer.build((None, None, None, 3))
    layer.set_weights([kernel, bias])
    return layer


def _mean(pixels: NDArray[np.float64]) -> Affine:
    return _scaled(np.ones(3), pixels.mean(axis=(0, 1, 2)))


def _standardise(pixels: NDArray[np.float64]) -> Affine:
    # A colour that never changes stays as it is.
    deviation = pixels.std(axis=(0, 1, 2))
    return _scaled(1 / np.where(deviation > 0, deviation, 1), pixels.mean(axis=(0, 1, 2)))


def _scaled(gain: NDArray[np.float64], mean: NDArray[np.float64]) -> Affine:
    return np.diag(gain)[None, None].astype(np.float32), (-gain * mean).astype(np.float32)


def _whiten(pixels: NDArray[np.float64]) -> Affine:
    """Zero-phase whitening (Bell and Sejnowski 1997) of 3x3 patches: its rows for the patch's middle."""
    flat = patches(pixels, PATCH)
    mean = flat.mean(axis=0)
    values, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    matrix = (vectors / np.sqrt(values + SMALLEST)) @ vectors.T
    middle = 3 * (PATCH * PATCH // 2)
    rows = matrix[middle : middle + 3]
    kernel = rows.T.reshape(PATCH, PATCH, 3, 3)
    return kernel.astype(np.float32), (-rows @ mean).astype(np.float32)


_AFFINES = {"mean": _mean, "standardise": _standardise, "whiten": _whiten}
