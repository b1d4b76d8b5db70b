"""How a network's kernels begin, by name. What Keras has is Keras's; the rest is written here.

    glorot          uniform, variance 2 / (fan in + fan out): Glorot and Bengio 2010
    he              normal, variance 2 / fan in: He et al. 2015, arXiv 1502.01852
    orthogonal      Saxe et al. 2013, arXiv 1312.6120
    random_walk     normal, variance g^2 / fan in, so that the logarithm of the gradient's norm walks without
                    drift: Sussillo and Abbott 2014, arXiv 1412.6558
    data_dependent  normal, then each channel scaled and shifted to mean 0 and variance 1 over training images,
                    layer by layer: Krahenbuhl et al. 2015, arXiv 1511.06856, algorithm 1 (within a layer)
    lsuv            orthogonal, then each layer scaled to variance 1: Mishkin and Matas 2015, arXiv 1511.06422

Biases begin at zero except with `data_dependent`. Batch normalisation is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from train.choices.structure import hidden_activation

SMALLEST = 1e-6
"""A deviation below counts as none: the channel is left as it is."""

_KERNELS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def initialise(model: keras.Model, initialiser: str, pixels: NDArray[np.float32]) -> None:
    """Draw every trainable kernel anew, by Keras's global seed.

    Args:
        model: a functional model.
        initialiser: one of `train.choices.INITIALISERS`.
        pixels: normalised training images (N, H, W, 3), which `data_dependent` and `lsuv` look at.
    """
    found = [layer for layer in model.layers if isinstance(layer, _KERNELS) and layer.trainable]
    for layer in found:
        layer.kernel.assign(_drawn(layer, initialiser))
        if layer.bias is not None:
            layer.bias.assign(np.zeros(layer.bias.shape))
    scale = _SCALES.get(initialiser)
    if scale is not None:
        for layer in found:  # In the graph's order: each sees what those before it have become.
            scale(layer, _before_activation(model, layer, pixels))


def _drawn(layer: Any, initialiser: str) -> Any:
    shape = layer.kernel.shape
    if initialiser == "random_walk":
        deviation = random_walk_gain(hidden_activation(layer) or _next_activation(layer), _fan_in(layer))
        return keras.initializers.RandomNormal(stddev=deviation / math.sqrt(_fan_in(layer)))(shape)
    if initialiser in ("orthogonal", "lsuv"):
        return keras.initializers.Orthogonal()(shape)
    if isinstance(layer, layers.DepthwiseConv2D):  # Keras would count the other channels as inputs.
        return keras.initializers.RandomNormal(stddev=math.sqrt(2 / _fan_in(layer)))(shape)
    return keras.initializers.GlorotUniform()(shape) if initialiser == "glorot" else _he()(shape)


def _he() -> keras.initializers.Initializer:
    return keras.initializers.HeNormal()


def random_walk_gain(activation: str | None, fan_in: int) -> float:
    """The paper's g for N inputs: of ReLUs sqrt(2) exp(1.2 / (max(N, 6) - 2.4)), of linear units exp(1 / 2N).

    It gives none for other activations; those get that of linear units, which they are near zero.
    """
    if activation in ("relu", "relu6", "leaky_relu"):
        return math.sqrt(2) * math.exp(1.2 / (max(fan_in, 6) - 2.4))
    return math.exp(1 / (2 * fan_in))


def _fan_in(layer: Any) -> int:
    *window, channels, _ = (int(size) for size in layer.kernel.shape)
    return math.prod(window) * (1 if isinstance(layer, layers.DepthwiseConv2D) else channels)


def _next_activation(layer: Any) -> str | None:
    """The activation that follows, behind normalisation or a pool."""
    while layer._outbound_nodes:
        layer = layer._outbound_nodes[0].operation
        if isinstance(layer, _KERNELS):
            return None
        if hidden_activation(layer):
            return hidden_activation(layer)
    return None


def _before_activation(model: keras.Model, layer: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the layer computes before its own activation: float32 (positions, channels)."""
    with _linear(layer):
        values = keras.Model(model.input, layer.output)(pixels, training=False)
    out: NDArray[np.float32] = np.asarray(keras.ops.convert_to_numpy(values))
    return out.reshape(-1, out.shape[-1])


@contextmanager
def _linear(layer: Any) -> Iterator[None]:
    before, layer.activation = layer.activation, keras.activations.linear
    try:
        yield
    finally:
        layer.activation = before


def _whole_layer(layer: Any, values: NDArray[np.float32]) -> None:
    """Variance 1 in one step: the outputs are linear in the kernel, the bias is zero."""
    deviation = float(values.std())
    if deviation > SMALLEST:
        layer.kernel.assign(keras.ops.convert_to_numpy(layer.kernel) / deviation)


def _each_channel(layer: Any, values: NDArray[np.float32]) -> None:
    deviation = values.std(axis=0)
    gain = 1 / np.where(deviation > SMALLEST, deviation, 1)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    layer.kernel.assign(kernel * gain.reshape(kernel.shape[2:] if _is_depthwise(layer) else -1))
    if layer.bias is not None:
        layer.bias.assign(-values.mean(axis=0) * gain)


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, layers.DepthwiseConv2D)


_SCALES: dict[str, Callable[[Any, NDArray[np.float32]], None]] = {
    "lsuv": _whole_layer,
    "data_dependent": _each_channel,
}
