"""Four small networks of families whose int8 is known to lose: float32 (N, H, W, 3) in [-1, 127/128] to logits.

`mobilenet_v3`: hard-swish and squeeze-excite, after table 2 of Howard et al. 2019 (arXiv 1905.02244).
`efficientnet`: swish and squeeze-excite, after Tan and Le 2019 (arXiv 1905.11946).
`depthwise`: a MobileNet (Howard et al. 2017, arXiv 1704.04861).
`depthwise_swish`: the same with swish, through which no scale goes.

Their norms start with gains of 1/8 to 8 by channel, those of the last two of 1/32 to 32. Training goes on from there,
so that the channels of one tensor end orders of magnitude apart, as those of networks do that were trained long
without weight decay (Nagel et al. 2019, arXiv 1906.04721, figure 2).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

FAR, FURTHER = 3.0, 5.0
"""Octaves of the gains that the norms start with: 2^-3 to 2^3, 2^-5 to 2^5."""


class Block(NamedTuple):
    """An inverted residual.

    Attributes:
        wide: channels within; out: channels of its output; kernel: of the depthwise convolution.
        squeeze: whether there is squeeze-excite; activation: Keras's name.
    """

    wide: int
    out: int
    kernel: int = 3
    strides: int = 1
    squeeze: bool = True
    activation: str = "swish"


MOBILENET_V3 = (
    Block(16, 16, 3, 1, True, "relu"),
    Block(48, 24, 3, 2, False, "relu"),
    Block(72, 24, 3, 1, False, "relu"),
    Block(96, 40, 5, 2, True, "hard_silu"),
    Block(120, 40, 5, 1, True, "hard_silu"),
    Block(120, 48, 5, 1, True, "hard_silu"),
)

EFFICIENTNET = (
    Block(16, 16, 3, 1),
    Block(64, 24, 3, 2),
    Block(96, 24, 3),
    Block(96, 40, 5, 2),
    Block(160, 40, 5),
)

DEPTHWISE = ((32, 1), (48, 2), (64, 1), (96, 2), (128, 1))
"""Channels and strides."""


def mobilenet_v3(height: int, width: int, classes: int) -> keras.Model:
    """Hard-swish and squeeze-excite with hard sigmoids."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = _conv(pixels, 16, 3, "stem", "hard_silu", strides=2)
    for index, block in enumerate(MOBILENET_V3, 1):
        x = _inverted(x, block, f"block{index}", gate="hard_sigmoid")
    x = _conv(x, 192, 1, "last", "hard_silu")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Activation("hard_silu", name="hidden_act")(layers.Dense(128, name="hidden")(x))
    return _spread(keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="mobilenet_v3"), FAR)


def efficientnet(height: int, width: int, classes: int) -> keras.Model:
    """Swish and squeeze-excite with sigmoids."""
    pixels = keras.Input((height, width, 3), name="pixels")
    x = _conv(pixels, 16, 3, "stem", "swish", strides=2)
    for index, block in enumerate(EFFICIENTNET, 1):
        x = _inverted(x, block, f"block{index}", gate="sigmoid")
    x = _conv(x, 192, 1, "last", "swish")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return _spread(keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="efficientnet"), FAR)


def depthwise(height: int, width: int, classes: int) -> keras.Model:
    """Depthwise and 1x1 convolutions with ReLU, no shortcuts."""
    return _chain(height, width, classes, "relu")


def depthwise_swish(height: int, width: int, classes: int) -> keras.Model:
    """The same with swish."""
    return _chain(height, width, classes, "swish")


def _chain(height: int, width: int, classes: int, activation: str) -> keras.Model:
    pixels = keras.Input((height, width, 3), name="pixels")
    x = _conv(pixels, 24, 3, "stem", activation, strides=2)
    for index, (channels, strides) in enumerate(DEPTHWISE, 1):
        x = layers.DepthwiseConv2D(3, strides, "same", use_bias=False, name=f"dw{index}")(x)
        x = layers.Activation(activation, name=f"dw{index}_act")(_norm(x, f"dw{index}"))
        x = _conv(x, channels, 1, f"pw{index}", activation)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(pixels, layers.Dense(classes, name="logits")(x), name=f"depthwise_{activation}")
    return _spread(model, FURTHER)


def _inverted(x: Any, block: Block, name: str, gate: str) -> Any:
    """Wide 1x1, depthwise, squeeze-excite, narrow 1x1, and a shortcut where the shapes are the same."""
    y = x if x.shape[-1] == block.wide else _conv(x, block.wide, 1, f"{name}_wide", block.activation)
    y = layers.DepthwiseConv2D(block.kernel, block.strides, "same", use_bias=False, name=f"{name}_dw")(y)
    y = layers.Activation(block.activation, name=f"{name}_dw_act")(_norm(y, f"{name}_dw"))
    y = _squeezed(y, f"{name}_se", gate) if block.squeeze else y
    y = _norm(layers.Conv2D(block.out, 1, use_bias=False, name=f"{name}_out")(y), f"{name}_out")
    same = block.strides == 1 and x.shape[-1] == block.out
    return layers.Add(name=f"{name}_add")([x, y]) if same else y


def _squeezed(x: Any, name: str, gate: str) -> Any:
    """Hu et al. 2017 (arXiv 1709.01507), a quarter of the channels within."""
    channels = x.shape[-1]
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = layers.Conv2D(max(8, channels // 4), 1, activation="relu", name=f"{name}_down")(y)
    y = layers.Conv2D(channels, 1, name=f"{name}_up")(y)
    return layers.Multiply(name=f"{name}_scale")([x, layers.Activation(gate, name=f"{name}_gate")(y)])


def _conv(x: Any, channels: int, kernel: int, name: str, activation: str, strides: int = 1) -> Any:
    x = _norm(layers.Conv2D(channels, kernel, strides, "same", use_bias=False, name=name)(x), name)
    return layers.Activation(activation, name=f"{name}_act")(x)


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.97, name=f"{name}_norm")(x)


def _spread(model: keras.Model, octaves: float) -> keras.Model:
    """Gains of 2^-octaves to 2^octaves, even in the exponent, in each batch normalisation."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(2.0 ** rng.uniform(-octaves, octaves, layer.gamma.shape))
    return model
