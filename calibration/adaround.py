"""AdaRound: learn for each weight whether it rounds up or down, so that the layer's output changes least.

Rounding to the nearest is best for the weights, not for what the layer computes from them: errors of neighbouring
weights may cancel. Per layer, over rows of its real inputs, h in [0, 1] for each weight is learnt so that
act(W x + b) and act(W' x' + b) differ least, W' being scale * (floor(W / scale) + h), and a growing penalty drives
h to 0 or 1 (Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
arXiv 2004.10568, equations 21 to 25). x' comes from the int8 network before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.graph import Node
from calibration.quantize import Up, integer_kernel
from calibration.walk import Stage
from edge.native import logger_held_back

Rows = NDArray[np.float32]

ROWS = 8192
"""Windows of the input that a layer learns from, drawn over images and places, however many there are."""

ROW_BYTES = 96 * 2**20
"""Fewer of them where a window is large: so much memory for the float network's, and the same for int8's."""

STEPS, BATCH, RATE = 500, 512, 0.02
"""Adam's, in windows a step. The paper's 10,000 steps at 0.001 take minutes a layer; ours, seconds."""

SEED = 0
"""Of the windows and of their order: a plan that is made anew is the same."""

PENALTY = 0.1
"""Beside a reconstruction error that is 1 at the nearest rounding."""

WARM_UP = 0.2
"""The share of the steps before the penalty begins, as in the paper."""

SHARPNESS = (20.0, 2.0)
"""The penalty's exponent, at its beginning and at the end."""

STRETCH = (-0.1, 1.1)
"""The sigmoid's limits before it is cut to [0, 1]."""


@dataclass(frozen=True)
class Windows:
    """What a layer reads, and gives, at some places.

    Attributes:
        given: float32 (n, taps) of a convolution, (n, taps, channels) of a depthwise one: from the int8 network.
        wanted: float32 (n, channels out): what the float layer makes of the float network's, before its activation.
    """

    given: Rows
    wanted: Rows


def learn_rounding(stage: Stage, clip: tuple[float, float], scales: NDArray[np.float32]) -> Up | None:
    """Which weights of a convolution round up; None where learning found nothing better than the nearest.

    Args:
        clip: the limits of the activation that follows, in real units: (0, inf) for ReLU.
        scales: of the kernel, one a channel.
    """
    windows, weights = _windows(stage), stage.node.weights[0]
    kernel = _as_matrix(stage.node, weights)
    step = _as_matrix(stage.node, np.broadcast_to(scales.reshape(_scale_shape(stage.node)), weights.shape))
    bias = _bias(stage.node)
    learnt = _learn(windows, kernel, step, bias, clip)
    up = learnt.reshape(weights.shape)

    def error(choice: Up | None) -> float:
        integers = integer_kernel(stage.node, scales, choice).astype(np.float32)
        found = _apply(windows.given, _as_matrix(stage.node, integers) * step) + bias
        return float(np.mean((np.clip(found, *clip) - np.clip(windows.wanted, *clip)) ** 2))

    return up if error(up) < error(None) else None


def _learn(windows: Windows, kernel: Rows, step: Rows, bias: Rows, clip: tuple[float, float]) -> Up:
    """bool, of the kernel's shape."""
    import keras
    import tensorflow as tf

    below, target = np.floor(kernel / step), np.clip(windows.wanted, *clip)
    free = tf.Variable(_inverse(kernel / step))
    optimiser = keras.optimizers.Adam(RATE)
    optimiser.build([free])
    unit = _nearest_error(windows, target, kernel, step, bias, clip)
    order = np.random.default_rng(SEED).integers(0, len(target), (STEPS, BATCH), dtype=np.int32)
    given, wanted, places = tf.constant(windows.given), tf.constant(target), tf.constant(order)
    weights, sharpness = (tf.constant(values) for values in _schedule())

    def train() -> None:
        # One call for all steps: at this size, calling takes longer than computing.
        for index in tf.range(STEPS):
            with tf.GradientTape() as tape:
                h = _rectified(tf, free)
                rounded = tf.clip_by_value(below + h, -127.0, 127.0) * step
                found = _apply_tf(tf, tf.gather(given, places[index]), rounded) + bias
                errors = tf.clip_by_value(found, *clip) - tf.gather(wanted, places[index])
                loss = tf.reduce_mean(errors**2) / unit
                loss += weights[index] * tf.reduce_mean(1 - tf.abs(2 * h - 1) ** sharpness[index])
            optimiser.apply([tape.gradient(loss, free)], [free])

    # TensorFlow warns of functions that are made anew time and again. Each layer's is, and runs for seconds.
    with logger_held_back("tensorflow"):
        tf.function(train)()
    up: Up = np.asarray(_rectified(tf, free)) > 0.5
    return up


def _nearest_error(
    windows: Windows, target: Rows, kernel: Rows, step: Rows, bias: Rows, clip: tuple[float, float]
) -> float:
    """Of the nearest rounding; the unit in which errors are counted. Never zero."""
    nearest = _apply(windows.given, np.clip(np.rint(kernel / step), -127, 127) * step) + bias
    return float(np.mean((np.clip(nearest, *clip) - target) ** 2)) + 1e-20


def _schedule() -> tuple[Rows, Rows]:
    """By step, the weight of the penalty and its exponent, float32 (STEPS,)."""
    done = np.maximum(0, (np.arange(STEPS) / STEPS - WARM_UP) / (1 - WARM_UP))
    sharpness = SHARPNESS[1] + (SHARPNESS[0] - SHARPNESS[1]) * 0.5 * (1 + np.cos(np.pi * done))
    weights = np.where(np.arange(STEPS) < WARM_UP * STEPS, 0, PENALTY)
    return weights.astype(np.float32), sharpness.astype(np.float32)


def _rectified(tf: Any, free: Any) -> Any:
    low, high = STRETCH
    return tf.clip_by_value(tf.sigmoid(free) * (high - low) + low, 0.0, 1.0)


def _inverse(steps: Rows) -> Rows:
    """Where the rectified sigmoid gives the part after the decimal point: learning begins at the float weights."""
    low, high = STRETCH
    share = np.clip((steps - np.floor(steps) - low) / (high - low), 1e-3, 1 - 1e-3)
    logits: Rows = np.log(share / (1 - share)).astype(np.float32)
    return logits


# -- windows --------------------------------------------------------------------------------------


def _windows(stage: Stage) -> Windows:
    node, images = stage.node, len(stage.given)
    generator = np.random.default_rng(SEED)
    taps = int(np.prod(node.weights[0].shape[: 2 if _is_depthwise(node) else 3]))
    row_bytes = 4 * taps * (stage.given.shape[3] if _is_depthwise(node) else 1)
    rows = min(ROWS, max(BATCH, ROW_BYTES // row_bytes))
    each = -(-rows // images)
    given, wanted = [], []
    kernel, bias = _as_matrix(node, node.weights[0]), _bias(node)
    for index in range(images):
        one = slice(index, index + 1)
        both = [_patches(node, values[one]) for values in (stage.exact, stage.given)]
        places = generator.integers(0, len(both[0]), each)
        wanted.append(_apply(both[0][places], kernel) + bias)
        given.append(both[1][places])
    return Windows(np.concatenate(given), np.concatenate(wanted))


def _patches(node: Node, values: Rows) -> Rows:
    """All windows of one image that the convolution reads, in the order of its kernel's taps."""
    import tensorflow as tf

    config = node.config
    height, width = config["kernel_size"]
    strides, rates = config.get("strides", (1, 1)), config.get("dilation_rate", (1, 1))
    found = tf.image.extract_patches(
        values,
        sizes=(1, height, width, 1),
        strides=(1, *strides, 1),
        rates=(1, *rates, 1),
        padding=config.get("padding", "valid").upper(),
    )
    rows = np.asarray(found).reshape(-1, height * width * values.shape[3])
    return rows.reshape(len(rows), height * width, -1) if _is_depthwise(node) else rows


def _is_depthwise(node: Node) -> bool:
    return node.kind == "DepthwiseConv2D"


def _as_matrix(node: Node, kernel: NDArray[Any]) -> NDArray[Any]:
    """(taps, channels out) of a convolution, (taps, channels in, multiplier) of a depthwise one."""
    return kernel.reshape(-1, *kernel.shape[2 if _is_depthwise(node) else 3 :])


def _scale_shape(node: Node) -> tuple[int, ...]:
    return node.weights[0].shape[2:] if _is_depthwise(node) else node.weights[0].shape[3:]


def _bias(node: Node) -> Rows:
    channels = int(np.prod(_scale_shape(node)))
    return node.weights[1] if node.config["use_bias"] else np.zeros(channels, np.float32)


def _apply(rows: Rows, kernel: Rows) -> Rows:
    if kernel.ndim == 2:
        return rows @ kernel
    found: Rows = np.einsum("ntc,tcm->ncm", rows, kernel, optimize=True).reshape(len(rows), -1)
    return found


def _apply_tf(tf: Any, rows: Any, kernel: Any) -> Any:
    if len(kernel.shape) == 2:
        return rows @ kernel
    return tf.reshape(tf.einsum("ntc,tcm->ncm", rows, kernel), (-1, kernel.shape[1] * kernel.shape[2]))
