"""Where networks are cut: at the end of the stage before the last, and never inside a block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from edge.errors import InputError
from train.architecture import architecture
from train.transfer.source import Source, parts
from train.transfer.stages import GRID, cuts, features
from train.weights import without_softmax


@pytest.mark.parametrize(
    ("model", "size", "last", "earlier"),
    [
        ("nano:nano", 32, "average", "block2_relu"),
        ("resnet:resnet20", 32, "mean", "pair2_3_relu"),
        ("lenet:lenet5", 32, "dense2", "conv2"),
        ("convnetjs:convnetjs", 32, "flatten", "pool2"),  # Behind conv3 nothing but the last layer learns.
        ("imagenet:mobilenet_v2", 64, "global_average_pooling2d", "block_13_expand_relu"),
    ],
)
def test_our_networks(model: str, size: int, last: str, earlier: str) -> None:
    keras.backend.clear_session()
    found = cuts(architecture(f"train.models.{model}", size, size, 10))
    assert (found.last, found.earlier) == (last, earlier)


def _network(*body: Any, shape: tuple[int, ...] = (16, 16, 3)) -> keras.Model:
    pixels = keras.Input(shape)
    x = pixels
    for layer in body:
        x = layer(x)
    return keras.Model(pixels, layers.Dense(3, activation="softmax")(x), name="made")


def test_a_block_with_a_way_around_is_not_cut() -> None:
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(pixels)
    inside = layers.Conv2D(4, 3, padding="same", name="inside")(x)
    x = layers.Conv2D(4, 3, padding="same", name="behind")(layers.Add(name="joined")([x, inside]))
    # From here two paths go on at half the size: what joins them sees both.
    x = layers.Add()([layers.MaxPooling2D()(x), layers.Conv2D(4, 3, 2, padding="same")(pixels)])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    assert cuts(keras.Model(pixels, layers.Dense(2)(x))).earlier is None
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, 2, name="half")(inside))
    assert cuts(keras.Model(pixels, layers.Dense(2)(x))).earlier == "inside"


def test_a_network_of_one_size_has_no_earlier_stage() -> None:
    same = _network(layers.Conv2D(4, 3, padding="same"), layers.GlobalAveragePooling2D())
    assert cuts(same).earlier is None
    assert cuts(_network(layers.Flatten(), layers.Dense(8, name="hidden"))).last == "hidden"


def test_bare_operations_may_stand_anywhere_and_end_a_stage() -> None:
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same")(pixels * 2.0)
    x = x + layers.Conv2D(4, 3, padding="same")(x)
    half = layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(4, 3, 2)(x))
    model = keras.Model(pixels, layers.Dense(2)(half))
    found = cuts(model)
    assert (found.last, found.earlier) == ("mean", x._keras_history.operation.name)
    made = parts(Source(Path("bare.keras"), model, None, found), "finetune-few", 3)
    assert made.frozen is not None
    assert made.frozen.output_shape == (None, 16, 16, 4)


def test_a_softmax_that_is_taken_off_changes_no_cut() -> None:
    ends = _network(
        layers.Conv2D(4, 3, name="large"), layers.Conv2D(4, 3, 2), layers.GlobalAveragePooling2D(name="mean")
    )
    found = cuts(without_softmax(ends))
    assert (found.last, found.earlier) == ("mean", "large")


def test_a_model_inside_that_ends_the_network_is_its_last_layer() -> None:
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, 2, name="half")(layers.Conv2D(4, 3, name="large")(pixels))
    maps = keras.Input(x.shape[1:])
    head = keras.Model(maps, layers.Dense(3)(layers.Dense(8)(layers.GlobalAveragePooling2D()(maps))))
    found = cuts(keras.Model(pixels, head(x)))
    assert (found.last, found.earlier) == ("half", "large")


def test_what_has_no_layer_to_start_from_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to start from"):
        cuts(_network(layers.Flatten()))
    pixels = keras.Input((4, 4, 3))
    with pytest.raises(InputError, match="no last layer with weights"):
        cuts(keras.Model(pixels, layers.GlobalAveragePooling2D()(pixels)))


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_map_becomes_a_row_of_about_the_grid(height: int, width: int) -> None:
    row = features(keras.KerasTensor((None, height, width, 5)), GRID)
    places = row.shape[1] / 5
    assert min(height, GRID) * min(width, GRID) <= places < (2 * GRID) ** 2


def test_the_last_features_are_a_mean() -> None:
    pixels = keras.Input((6, 4, 2))
    values = np.random.default_rng(0).normal(0, 1, (3, 6, 4, 2)).astype(np.float32)
    found = keras.Model(pixels, features(pixels, 1))(values)
    np.testing.assert_allclose(found, values.mean(axis=(1, 2)), atol=1e-6)
    rows = keras.Input((7,))
    assert features(rows, GRID) is rows
