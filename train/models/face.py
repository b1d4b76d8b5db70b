"""A small anchor-free face detector of dense 3x3 convolutions, which int8 runs fastest.

Two strided convolutions make a map at stride 4; three stages follow at strides 8, 16 and 32, each a
strided convolution and residual pairs. The coarser maps are carried down (1x1 convolution, nearest
upsampling, addition), and each level ends in two heads of its own, so that scores and boxes have int8
scales of their own:

    score_<stride>  (N, H/stride, W/stride, 1): the logit of a face whose centre is near the cell
    box_<stride>    (N, H/stride, W/stride, 4): dx, dy, log w, log h, see `edge.tasks.faces`

The form follows YuNet (Wu, Peng and Yu 2023, doi 10.1007/s11633-023-1423-y) and SCRFD (Guo et al.
2021, arXiv 2105.04714), without depthwise convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers

STRIDES = (8, 16, 32)
PRIOR = 0.01
"""The probability of a face that every cell starts with (Lin et al. 2017, arXiv 1708.02002)."""


@dataclass(frozen=True)
class Widths:
    """Channels and residual pairs.

    Attributes:
        stem: of the two strided convolutions; stage: of the stages, their necks and heads.
        pairs: how many residual pairs each stage has; inner: between the two convolutions of each of them.
        fine: between those of a pair at stride 4, which small faces need; 0 for no such pair.
    """

    stem: tuple[int, int]
    stage: int
    pairs: tuple[int, int, int]
    inner: tuple[int, int, int]
    fine: int = 0


FACE = Widths(stem=(16, 24), stage=32, pairs=(1, 1, 1), inner=(32, 32, 16), fine=24)
FACE_PLUS = replace(FACE, stage=64, inner=(64, 64, 32))
DILATION = {32: 2}
"""Of the residual pairs: the coarsest level sees 415 pixels so, enough for a face that fills the picture."""


def face(height: int | None, width: int | None) -> keras.Model:
    """The default detector, at most 100 k parameters: (N, H, W, 3) in [-1, 127/128] to six heads.

    Height and width are multiples of 32, or None for any.
    """
    return _detector(height, width, FACE)


def face_plus(height: int | None, width: int | None) -> keras.Model:
    """The larger one, 335 k parameters: the same network with stages, necks and heads twice as wide.

    It can grow out of a trained `face`, see `train.detection.lesson.grow`: the layers bear the same names.
    """
    return _detector(height, width, FACE_PLUS)


def _detector(height: int | None, width: int | None, widths: Widths) -> keras.Model:
    pixels = keras.Input((height, width, 3), name="pixels")
    x = pixels
    for index, filters in enumerate(widths.stem, start=1):
        x = _conv(x, filters, f"stem{index}", strides=2)
    if widths.fine:
        x = _residual(x, widths.fine, "res4_1")
    maps = {}
    for stride, pairs, inner in zip(STRIDES, widths.pairs, widths.inner, strict=True):
        x = _conv(x, widths.stage, f"down{stride}", strides=2)
        for index in range(1, pairs + 1):
            dilation = DILATION.get(stride, 1)
            x = _residual(x, inner, f"{'far' if dilation > 1 else 'res'}{stride}_{index}", dilation)
        maps[stride] = x
    heads: dict[str, Any] = {}
    carried = None
    for stride in reversed(STRIDES):
        here = maps[stride]
        if carried is not None:
            up = _conv(carried, widths.stage, f"lateral{stride}", kernel=1, relu=False)
            up = layers.UpSampling2D(2, interpolation="nearest", name=f"up{stride}")(up)
            here = layers.ReLU(name=f"merged{stride}")(layers.Add(name=f"add{stride}")([here, up]))
        if stride == STRIDES[0]:  # Most faces are small, and this map alone is fine enough for them.
            here = _conv(here, widths.stage, f"head{stride}")
        carried = here
        prior = keras.initializers.Constant(math.log(PRIOR / (1 - PRIOR)))
        heads[f"score_{stride}"] = layers.Conv2D(1, 1, bias_initializer=prior, name=f"score_{stride}")(here)
        heads[f"box_{stride}"] = layers.Conv2D(4, 1, name=f"box_{stride}")(here)
    ordered = [heads[f"{kind}_{stride}"] for stride in STRIDES for kind in ("score", "box")]
    return keras.Model(pixels, ordered, name="face")


def _conv(
    x: Any,
    filters: int,
    name: str,
    kernel: int = 3,
    strides: int = 1,
    dilation: int = 1,
    relu: bool = True,
    gamma: str = "ones",
) -> Any:
    options = {"padding": "same", "dilation_rate": dilation, "use_bias": False}
    x = layers.Conv2D(filters, kernel, strides, name=name, **options)(x)
    norm = {"momentum": 0.97, "epsilon": 1e-3, "gamma_initializer": gamma}
    x = layers.BatchNormalization(name=f"{name}_norm", **norm)(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _residual(x: Any, inner: int, name: str, dilation: int = 1) -> Any:
    """Two convolutions that begin as nothing: the gain of zero makes the pair an identity at first
    (Goyal et al. 2017, arXiv 1706.02677, section 5.1), so that a trained network can grow by pairs.
    """
    y = _conv(x, inner, f"{name}a", dilation=dilation)
    y = _conv(y, x.shape[-1], f"{name}b", dilation=dilation, relu=False, gamma="zeros")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
