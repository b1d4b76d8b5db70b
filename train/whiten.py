"""A first convolution whose outputs are uncorrelated over the training images' patches.

After Page (2019, "How to Train Your ResNet 8: Bag of Tricks") and Jordan (2024, arXiv 2404.00498, section 3.2):
the kernels are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue, with
both signs, since a ReLU follows.
"""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.pixels import Image, normalise

LAYER = "whiten"
IMAGES = 5000
"""So many of the training images decide."""
SMALLEST = 1.25e-4
"""Added to every eigenvalue: directions that hardly occur must not be amplified to noise. The original's 5e-4
is for pixels of unit variance; ours, (x - 128) / 128, have a quarter of that."""


def whitening_kernel(images: Image, size: int) -> NDArray[np.float32]:
    """Kernel float32 (size, size, C, 2 * size * size * C) from uint8 (N, H, W, C); the first 5,000 are enough."""
    pixels = normalise(images[:IMAGES])
    flat = patches(pixels, size)
    values, vectors = np.linalg.eigh(flat.T.astype(np.float64) @ flat / len(flat))
    rows = (vectors / np.sqrt(values + SMALLEST))[:, ::-1]
    kernel = np.concatenate([rows, -rows], axis=1)
    return kernel.reshape(size, size, pixels.shape[3], -1).astype(np.float32)


def patches(pixels: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """Every patch of (N, H, W, C) pixels as a row: (n, size * size * C), in the order of a kernel's values."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    return np.moveaxis(windows, 3, 5).reshape(-1, size * size * pixels.shape[3])


def whiten(model: keras.Model, images: Image) -> None:
    """Give the layer `whiten` its kernel. That the layer is not trainable is the architecture's to say.

    Raises:
        InputError: the model has no such layer, or one of another shape.
    """
    found = [layer for layer in model.layers if layer.name == LAYER]
    if not found:
        raise InputError(f"The recipe says whiten=true, but {model.name} has no layer named '{LAYER}'.")
    layer = found[0]
    kernel = whitening_kernel(images, layer.kernel_size[0])
    if layer.kernel.shape != kernel.shape:
        raise InputError(
            f"{model.name}: layer '{LAYER}' has a kernel of {tuple(layer.kernel.shape)}, "
            f"whitening needs {kernel.shape}."
        )
    layer.kernel.assign(kernel)
