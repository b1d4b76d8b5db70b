"""Biases that ONNX Runtime would spoil stand apart, and no others: 1.5 is 48,768 of the steps, 2.77 is 90,058."""

from __future__ import annotations

import keras
import layerwise
import numpy as np
import onnx
import pytest
from plans import make_plan

from calibration.fold import fold
from calibration.graph import infer, read
from calibration.simulate import simulate
from edge.pixels import normalise
from export import lint
from export import onnx as to_onnx


@pytest.mark.parametrize(
    ("weight", "bias", "apart"),
    [(0.5, 1.5, False), (0.5, 2.77, True), (1e-6, 2.77, True), (1e-6, 0.0, False)],
)
def test_a_bias_stands_apart_where_its_steps_are_beyond_float16(
    weight: float, bias: float, apart: bool
) -> None:
    pixels = keras.Input((8, 8, 3), name="pixels")
    conv = keras.layers.Conv2D(2, 1, name="conv")
    model = keras.Model(pixels, conv(pixels))
    kernel = np.full((1, 1, 3, 2), 0.5, np.float32)
    kernel[..., 0] = weight
    conv.set_weights([kernel, np.float32([bias, 1.0])])
    graph, images = fold(read(model)), np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    plan = make_plan(graph, images, "noise", "minmax")
    content = to_onnx.int8(graph, plan)
    assert lint.lint(content) == ()
    assert any(node.op_type == "Add" for node in onnx.load_from_string(content).graph.node) == apart
    wanted = infer(simulate(graph, plan, "onnx"), normalise(images))["logits"]
    np.testing.assert_allclose(layerwise.run_onnx(content, images), wanted, atol=0.01)
