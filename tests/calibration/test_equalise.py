"""Through which layers a channel's scale goes, and what holds it back."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from calibration.equalise import equalised, equalising_factors, unequalised
from calibration.fold import fold
from calibration.graph import Graph, build, infer, read
from calibration.observers import reach


def _factors(graph: Graph) -> dict[str, tuple[float, ...]]:
    pictures = np.random.default_rng(2).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return equalising_factors(graph, reach(graph, pictures))


@pytest.mark.parametrize(
    "between",
    [
        layers.LeakyReLU(0.1),
        layers.ZeroPadding2D(1),
        layers.Cropping2D(1),
        layers.UpSampling2D(2),
        layers.AveragePooling2D(2),
    ],
)
def test_a_scale_goes_through_and_changes_nothing(between: Any) -> None:
    pixels = keras.Input((8, 8, 3))
    x = between(layers.Conv2D(4, 1, name="a")(pixels))
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1, name="b")(x))))
    factors = _factors(graph)
    assert set(factors) == {"a"}
    data = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    wanted, found = (infer(build(one), data)["logits"] for one in (graph, equalised(graph, factors)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_term_that_something_else_reads_holds_the_whole_sum_back() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="a")(pixels)
    y = layers.Conv2D(4, 1, name="b")(layers.Concatenate(name="join")([x, x]))
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1, name="c")(layers.Add()([x, y])))))
    assert _factors(graph) == {}
    left = unequalised(graph)
    assert left["a"] == left["b"] == "it is read by Concatenate 'join'"
