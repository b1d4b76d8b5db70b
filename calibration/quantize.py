"""int8 arithmetic: scales, zero points and rounding, as both targets define them.

real = scale * (integer - zero_point). TFLite's activations are asymmetric, TensorRT's symmetric
with zero point 0; kernels are symmetric by output channel for both, -127 to 127.
Sources: Jacob et al. 2018 (arXiv 1712.05877) and the TFLite 8-bit quantization specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.graph import Node

Up = NDArray[np.bool_]
"""By weight, whether it rounds up."""

SMALLEST_SCALE, LARGEST_SCALE = 2.0**-24, 65504.0
"""The smallest and the largest positive float16, which scales are in the graph that TensorRT reads."""


@dataclass(frozen=True)
class TensorParams:
    """How one tensor is rounded to int8.

    Attributes:
        scale: real units a step; zero_point: the integer that stands for 0.0.
    """

    scale: float
    zero_point: int

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest real value that int8 can express."""
        return self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point)

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nearest real values that int8 can express."""
        low, high = self.limits
        scale = np.float32(self.scale)
        real: NDArray[np.float32] = np.rint(values / scale) * scale
        return real.clip(np.float32(low), np.float32(high))


PIXELS = TensorParams(1 / 128, 0)
"""The input of every model: `(x - 128) / 128` is x XOR 0x80 as int8, without any loss."""


def asymmetric(low: float, high: float) -> TensorParams:
    """The range [low, high], widened to contain zero, over all 256 integers."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, SMALLEST_SCALE)
    return TensorParams(scale, round(-128 - low / scale))


def symmetric(low: float, high: float) -> TensorParams:
    """Zero point 0; the scale is a float16, because the graph that TensorRT reads is in float16."""
    largest = np.array([max(abs(low), abs(high)) / 127], np.float32)
    return TensorParams(float(_float16_below(largest)[0]), 0)


def kernel_scales(node: Node) -> NDArray[np.float32]:
    """One scale for each output channel: float32 (channels,), each exactly a float16.

    So the same integers serve TFLite, which stores float32 scales, and TensorRT, float16.
    """
    kernel = by_channel(node, node.weights[0])
    return _float16_below(np.abs(kernel).max(axis=0) / 127)


def integer_kernel(node: Node, scales: NDArray[np.float32], up: Up | None = None) -> NDArray[np.int8]:
    """The kernel in integers, -127 to 127, in the layer's own shape.

    Args:
        up: bool, of the kernel's shape: which weights go to the integer above; the others go to the one below.
            By default each goes to the nearest.
    """
    steps = by_channel(node, node.weights[0]) / scales
    whole = np.rint(steps) if up is None else np.floor(steps) + by_channel(node, up)
    integers: NDArray[np.int8] = np.clip(whole, -127, 127).astype(np.int8)
    return integers.reshape(node.weights[0].shape)


def rounded_kernel(node: Node, scales: NDArray[np.float32], up: Up | None = None) -> NDArray[np.float32]:
    """The real values that the integer kernel stands for."""
    integers = by_channel(node, integer_kernel(node, scales, up).astype(np.float32))
    return (integers * scales).reshape(node.weights[0].shape)


def by_channel(node: Node, kernel: NDArray[Any]) -> NDArray[Any]:
    """The kernel as (taps, output channels): a depthwise one has (h, w, in, multiplier)."""
    channels = kernel.shape[3] if node.kind == "Conv2D" else kernel.shape[2] * kernel.shape[3]
    return kernel.reshape(-1, channels)


def _float16_below(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest float16 that is not larger; never zero.

    Below, so that a kernel's largest value is always 127 steps: TFLite's converter takes the scale
    from there. What is cut off is an eighth of a step at most, unless the scale is a subnormal float16.
    """
    half = values.astype(np.float16)
    half = np.where(half.astype(np.float32) > values, np.nextafter(half, np.float16(0)), half)
    floored: NDArray[np.float32] = np.maximum(half.astype(np.float32), np.float32(SMALLEST_SCALE))
    return floored
