"""What AdaRound learns from: windows of a layer's input, and what the layer makes of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from calibration.adaround import _apply, _as_matrix, _bias, _windows
from calibration.fold import fold
from calibration.graph import read
from calibration.walk import Stage, run


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(5, (3, 2), strides=2, padding="same", bias_initializer="normal", name="layer"),
        layers.Conv2D(5, 3, dilation_rate=2, use_bias=False, name="layer"),
        layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=2, bias_initializer="normal", name="layer"
        ),
        layers.DepthwiseConv2D(3, dilation_rate=2, name="layer"),
    ],
)
def test_windows_give_what_the_layer_gives_where_they_were_taken(layer: Any) -> None:
    pixels = keras.Input((9, 8, 3))
    node = fold(read(keras.Model(pixels, layer(pixels))))["layer"]
    exact, given = np.random.default_rng(0).normal(0, 1, (2, 4, 9, 8, 3)).astype(np.float32)
    windows = _windows(Stage(node, node, exact, given))
    found = _apply(windows.given, _as_matrix(node, node.weights[0])) + _bias(node)
    wanted, of_int8 = (run(node, [values]).reshape(-1, node.shape[-1]) for values in (exact, given))
    places = np.abs(windows.wanted[:256, None] - wanted).max(axis=2).argmin(axis=1)
    np.testing.assert_allclose(windows.wanted[:256], wanted[places], atol=1e-5)
    np.testing.assert_allclose(found[:256], of_int8[places], atol=1e-5)
