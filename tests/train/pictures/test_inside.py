"""Filters and maps, against kernels set by hand and against what NumPy computes of them."""

from __future__ import annotations

from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from train.models.nano import nano
from train.pictures.inside import Maps, filters, maps
from train.pictures.raster import GAP_PX, MOST_TILES, filter_sheet, map_sheet, png


def difference(name: str = "edges", channels: int = 3) -> layers.Layer:
    """Channel 0: what is right of a pixel minus the pixel, of its first colour; channel 1: always -1."""
    layer = layers.Conv2D(2, (1, 2), name=name)
    layer.build((None, None, None, channels))
    kernel = np.zeros((1, 2, channels, 2), np.float32)
    kernel[0, :, 0, 0] = -1, 1
    layer.set_weights([kernel, np.array([0, -1], np.float32)])
    return layer


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def rising(picture: np.ndarray) -> np.ndarray:
    red = picture[..., 0].astype(np.float32) / 128
    return np.maximum(red[:, 1:] - red[:, :-1], 0)


def test_a_chain_shows_its_last_layer(picture: np.ndarray) -> None:
    parts = [
        keras.Input((4, 6, 3)),
        difference(),
        layers.BatchNormalization(epsilon=0),
        layers.ReLU(name="relu"),
    ]
    model = keras.Sequential([*parts, layers.MaxPooling2D(2, name="pool"), layers.Flatten(), layers.Dense(3)])
    after_relu, after_pool = maps(model, picture)
    assert [after_relu.layer, after_pool.layer] == ["relu", "pool"]
    assert after_relu.values.shape == (4, 5, 2)
    assert after_relu.values[..., 0] == pytest.approx(rising(picture), abs=1e-6)
    assert after_relu.silent == 1
    pooled = rising(picture)[:, :4].reshape(2, 2, 2, 2).max(axis=(1, 3))
    assert after_pool.values[..., 0] == pytest.approx(pooled, abs=1e-6)


def test_branches_and_sums_end_a_chain(picture: np.ndarray) -> None:
    pixels = keras.Input((4, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(pixels)
    y = layers.Conv2D(4, 3, padding="same", name="b")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="sum")([x, y]))
    model = keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    # `a` goes two ways, so what it gives is seen nowhere else; `b` is only added.
    assert [found.layer for found in maps(model, picture)] == ["a", "relu"]


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_nested_model_is_opened(factor: float, picture: np.ndarray) -> None:
    inner_pixels = keras.Input((4, 6, 3))
    inner = keras.Model(inner_pixels, layers.ReLU(name="inner_relu")(difference()(inner_pixels)), name="base")
    before = [layers.Rescaling(factor)] if factor != 1 else []
    ends = [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4, 6, 3)), *before, inner, *ends])
    (only,) = maps(model, picture)
    assert only.layer == "inner_relu"
    assert only.values[..., 0] == pytest.approx(factor * rising(picture), abs=1e-6)
    found = filters(model)
    assert found is not None
    assert (found.layer, found.kernels.shape) == ("edges", (1, 2, 3, 2))
    assert found.kernels[0, :, 0, 0].tolist() == [-1, 1]


def test_a_linear_classifier_has_templates() -> None:
    model = keras.Sequential([keras.Input((4, 6, 3)), layers.Flatten(), layers.Dense(5, name="templates")])
    weights = np.arange(4 * 6 * 3 * 5, dtype=np.float32).reshape(72, 5)
    model.layers[-1].set_weights([weights, np.zeros(5)])
    found = filters(model)
    assert found is not None
    assert found.kernels.shape == (4, 6, 3, 5)
    assert (found.kernels[1, 2, 0] == weights[(1 * 6 + 2) * 3]).all()


def test_what_has_nothing_to_show_shows_nothing(picture: np.ndarray) -> None:
    class Own(keras.Model):
        def call(self, inputs: Any) -> Any:
            return keras.ops.mean(inputs, axis=(1, 2))

    grey = keras.Sequential([keras.Input((4, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    assert filters(grey) is None
    assert maps(Own(), picture) == []


def test_a_recipes_own_first_layer_is_passed_over() -> None:
    first = layers.Conv2D(3, 1, name="inputs")
    model = keras.Sequential([keras.Input((4, 6, 3)), first, difference(), layers.Flatten(), layers.Dense(2)])
    found = filters(model)
    assert found is not None
    assert found.layer == "edges"


def test_the_shipped_architecture_shows_each_block() -> None:
    model = nano(32, 32, 10)
    found = maps(model, np.zeros((32, 32, 3), np.uint8))
    assert [m.layer for m in found][:3] == ["stem_relu", "block1a_relu", "block1_relu"]
    assert all(m.kind == "ReLU" for m in found)


# -- sheets ---------------------------------------------------------------------------------------


def test_a_filters_zero_is_grey_and_its_largest_weight_full() -> None:
    model = keras.Sequential([keras.Input((4, 6, 3)), difference(), layers.Flatten(), layers.Dense(2)])
    found = filters(model)
    assert found is not None
    sheet = filter_sheet(found)
    tile_height, tile_width = 24, 48
    assert sheet.shape == (tile_height, 2 * tile_width + GAP_PX, 4)
    assert sheet[0, 0].tolist() == [0, 128, 128, 255]
    assert sheet[0, tile_width - 1].tolist() == [255, 128, 128, 255]
    assert sheet[0, tile_width].tolist() == [0, 0, 0, 0]
    assert (sheet[:, tile_width + GAP_PX :, :3] == 128).all()


def test_a_sheet_is_png_pixel_for_pixel_and_has_at_most_so_many_tiles() -> None:
    values = np.zeros((2, 2, 50), np.float32)
    values[0, 0, 5] = 1
    sheet = map_sheet(Maps("layer", "ReLU", values))
    assert sheet.shape == (4 * 48 + 3 * GAP_PX, 8 * 48 + 7 * GAP_PX, 4)
    assert MOST_TILES == 4 * 8
    decoded = cv2.imdecode(np.frombuffer(png(sheet), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA) == sheet).all()
    brightness = sheet[..., :3].sum(axis=2)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert (row // (48 + GAP_PX), column // (48 + GAP_PX)) == (0, 5)
