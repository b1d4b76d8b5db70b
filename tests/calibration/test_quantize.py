"""The arithmetic that both targets rest on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.graph import Node
from calibration.quantize import (
    PIXELS,
    SMALLEST_SCALE,
    asymmetric,
    integer_kernel,
    kernel_scales,
    rounded_kernel,
    symmetric,
)

real = st.floats(-1e4, 1e4, width=32)


@given(real, real)
def test_asymmetric_covers_the_range_and_hits_zero(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    params = asymmetric(low, high)
    least, most = params.limits
    assert -128 <= params.zero_point <= 127
    assert least <= min(low, 0) + params.scale / 2 + 1e-6
    assert most >= max(high, 0) - params.scale / 2 - 1e-6
    spanned = max(high, 0) - min(low, 0)
    assert params.scale == SMALLEST_SCALE or 255 * params.scale <= spanned * (1 + 1e-9), "no step is wasted"


@given(real, real)
def test_symmetric_has_a_float16_scale_that_reaches_the_largest_value_but_an_eighth_of_a_step(
    a: float, b: float
) -> None:
    params = symmetric(min(a, b), max(a, b))
    assert params.zero_point == 0
    assert float(np.float16(params.scale)) == params.scale > 0
    assert 127.125 * params.scale >= max(abs(a), abs(b)) or params.scale < 2**-14
    assert params.scale == SMALLEST_SCALE or 127 * params.scale <= max(abs(a), abs(b)) * (1 + 1e-6), (
        "no step is wasted"
    )


def test_the_pixels_lose_nothing() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    integers = (pixels ^ 0x80).view(np.int8)
    np.testing.assert_array_equal(PIXELS.scale * integers, (pixels.astype(float) - 128) / 128)


def _convolution(kind: str, kernel: np.ndarray) -> Node:
    return Node("conv", kind, {}, (kernel.astype(np.float32),), (), (1, 1, 1))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["Conv2D", "DepthwiseConv2D"]))
def test_a_kernel_moves_by_half_a_step_at_most(seed: int, kind: str) -> None:
    kernel = np.random.default_rng(seed).normal(0, 0.1, (3, 3, 4, 2))
    node = _convolution(kind, kernel)
    scales = kernel_scales(node)
    assert scales.shape == ((2,) if kind == "Conv2D" else (8,))
    assert np.array_equal(scales.astype(np.float16), scales)
    step = scales if kind == "Conv2D" else scales.reshape(4, 2)
    assert np.all(np.abs(rounded_kernel(node, scales) - kernel) <= step * 0.501)


def test_each_channel_uses_its_whole_range() -> None:
    kernel = np.random.default_rng(0).normal(0, 1, (3, 3, 4, 6)) * 10.0 ** -np.arange(6)
    node = _convolution("Conv2D", kernel)
    largest = np.abs(integer_kernel(node, kernel_scales(node)).astype(int)).max(axis=(0, 1, 2))
    np.testing.assert_array_equal(largest, 127)


@pytest.mark.parametrize("up", [False, True])
def test_whichever_way_all_weights_round_they_stay_integers_that_both_targets_have(up: bool) -> None:
    """A largest weight below -127 steps, by what its scale lost as a float16, would round down to -128."""
    kernel = -np.abs(np.random.default_rng(0).normal(0, 1, (3, 3, 4, 16)))
    node = _convolution("Conv2D", kernel)
    scales = kernel_scales(node)
    integers = integer_kernel(node, scales, np.full(kernel.shape, up)).astype(int)
    assert integers.min() == -127
    assert np.abs(integers - kernel / scales).max() <= 1.126


def test_a_dead_channel_is_harmless() -> None:
    node = _convolution("Conv2D", np.zeros((1, 1, 2, 3)))
    assert not rounded_kernel(node, kernel_scales(node)).any()
    assert np.isfinite(asymmetric(0, 0).scale)
