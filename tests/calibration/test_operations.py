"""Operations of `keras.ops` in a functional model: taken for the layers that compute the same, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from calibration.fold import fold
from calibration.graph import build, infer, read
from calibration.kinds import SUPPORTED
from edge.errors import InputError

Body = Callable[[Any], Any]

OPERATIONS: dict[str, Body] = {
    "relu": keras.ops.relu,
    "relu with a layer's parameters": lambda x: keras.activations.relu(x, max_value=6),
    "relu6": keras.ops.relu6,
    "clip": lambda x: keras.ops.clip(x, 0, 6),
    "leaky": lambda x: keras.ops.leaky_relu(x, 0.3),
    "elu": keras.ops.elu,
    "gelu": lambda x: keras.ops.gelu(x, approximate=False),
    "silu": keras.ops.silu,
    "hard-silu": keras.ops.hard_silu,
    "sigmoid": keras.ops.sigmoid,
    "hard-sigmoid": keras.ops.hard_sigmoid,
    "tanh": keras.ops.tanh,
    "softmax": keras.ops.softmax,
    "reshape": lambda x: keras.ops.reshape(x, (-1, 8, 32, 8)),
    "mean": lambda x: keras.ops.mean(x, axis=(1, 2), keepdims=True),
    "mean, counted from the end": lambda x: keras.ops.mean(x, axis=[-2, -3]),
    "max": lambda x: keras.ops.max(x, axis=(1, 2)),
    "concatenate": lambda x: keras.ops.concatenate([x, 2.0 * x], axis=3),
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_bare_operation_is_the_layer_that_computes_the_same(kind: str) -> None:
    model = _model(OPERATIONS[kind])
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    graph = fold(read(model))
    assert {node.kind for node in graph.nodes} <= SUPPORTED
    wanted, found = infer(model, pixels)["logits"], infer(build(graph), pixels)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (lambda x: x[:, 1:, 1:], r"operation GetItem, of which layers\.Cropping2D may do the same"),
        (lambda x: keras.ops.clip(x, -1, 1), r"\(operation Clip\)"),
        (lambda x: keras.ops.mean(x, axis=2), "operation Mean, of which layers.GlobalAveragePooling2D"),
        (keras.ops.gelu, r"operation Gelu, of which layers\.Activation\(.gelu.\)"),
        (lambda x: x - keras.ops.mean(x, axis=(1, 2), keepdims=True), r"\(operation Subtract\)"),
    ],
)
def test_another_one_is_refused_with_the_layer_that_comes_nearest(body: Body, told: str) -> None:
    with pytest.raises(InputError, match=told):
        fold(read(_model(body)))


def _model(body: Body) -> keras.Model:
    pixels = keras.Input((16, 16, 3))
    x = body(
        layers.Conv2D(
            8, 3, padding="same", kernel_initializer=keras.initializers.RandomNormal(0, 1.0, seed=0)
        )(pixels)
    )
    x = layers.GlobalMaxPooling2D()(x) if len(x.shape) == 4 else x
    return keras.Model(pixels, layers.Dense(5)(x))
