"""Folding changes what the network is made of, never what it computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from calibration.fold import fold, fused_relu
from calibration.graph import Graph, build, heads, infer, read
from calibration.kinds import SUPPORTED, WEIGHTED
from edge.errors import InputError
from edge.pixels import normalise
from tests.calibration.conftest import randomised


def test_folding_keeps_the_function(network: Any, pictures: Any) -> None:
    pixels = normalise(pictures)
    wanted, found = infer(network, pixels), infer(build(fold(read(network))), pixels)
    assert list(found) == list(wanted) == list(heads(network))
    for head, values in wanted.items():
        np.testing.assert_allclose(found[head], values, rtol=0, atol=1e-5 * np.abs(values).max())


def test_folding_leaves_only_what_int8_knows(network: Any) -> None:
    kinds = {node.kind for node in fold(read(network)).nodes}
    assert kinds <= SUPPORTED
    assert not kinds & {"BatchNormalization", "Dense", "Dropout"}


def test_a_sequential_model_is_read_too() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    assert [node.kind for node in fold(read(model)).nodes] == ["InputLayer", "Conv2D", "Conv2D", "Reshape"]


def test_a_norm_with_a_second_reader_is_not_folded_into_the_convolution() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="conv")(pixels)
    model = keras.Model(pixels, layers.Add()([layers.BatchNormalization(name="norm")(x), x]))
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    graph = fold(read(model))
    assert graph["norm"].kind == "DepthwiseConv2D"
    data = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(build(graph)(data), model(data), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pool", "gain", "folds"),
    [
        (layers.MaxPooling2D(2), 0.5, True),
        (layers.MaxPooling2D(2), 0.0, True),
        (layers.MaxPooling2D(2), -0.5, False),
        (layers.MaxPooling2D(3, 2, "same"), 0.5, True),
        (layers.GlobalMaxPooling2D(keepdims=True), 0.5, True),
        (layers.UpSampling2D(2), -0.5, True),
        (layers.ZeroPadding2D(1), 0.5, False),
    ],
)
def test_a_norm_folds_through_a_pool_that_lets_its_gain_through(pool: Any, gain: float, folds: bool) -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(pool(layers.Conv2D(3, 3, name="conv")(pixels)))
    model = keras.Model(pixels, layers.ReLU()(x))
    randomised(model)
    model.get_layer("norm").gamma.assign([0.7, gain, 1.3])
    graph = fold(read(model))
    assert [node.name for node in graph.nodes if node.kind in WEIGHTED] == ["conv", "norm"][: 2 - folds]
    built = build(graph)
    for node in graph.nodes:
        assert built.get_layer(node.name).output.shape[1:] == node.shape, node.name
    data = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(built(data), model(data), rtol=1e-5, atol=1e-5)


def test_a_norm_that_could_not_fold_either_stays_behind_the_pool_where_the_map_is_small() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, name="conv")(pixels)
    pooled = layers.BatchNormalization(name="norm")(layers.MaxPooling2D(2)(x))
    graph = fold(read(keras.Model(pixels, [pooled, layers.Conv2D(2, 1, name="other")(x)])))
    assert graph["norm"].shape == (3, 3, 3)


@pytest.mark.parametrize(
    "between",
    [
        layers.MaxPooling2D(2),
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.UpSampling2D(2),
        layers.ZeroPadding2D(1),
        layers.Cropping2D(1),
    ],
)
def test_a_relu_comes_to_the_convolution_that_it_fuses_into(between: Any) -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.ReLU()(between(layers.Conv2D(3, 3, name="conv")(pixels)))
    graph = fold(read(keras.Model(pixels, x)))
    assert fused_relu(graph, graph["conv"]) is not None


def test_several_heads_keep_their_names_when_their_layers_are_folded() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(pixels)
    a = layers.BatchNormalization(name="a")(layers.Conv2D(2, 1, name="before_a")(x))
    b = layers.Activation("linear", name="b")(layers.Conv2D(2, 1, name="before_b")(x))
    c = layers.Dense(5, name="c")(layers.GlobalAveragePooling2D()(x))
    d = layers.ReLU(name="d")(c)
    graph = fold(read(keras.Model(pixels, [a, b, c, d])))
    assert dict(graph.outputs) == {"a": "before_a", "b": "before_b", "c": "c_flat", "d": "d_flat"}
    assert {graph["c_flat"].shape, graph["d_flat"].shape} == {(5,)}


def test_the_heads_of_a_dictionary_have_its_keys() -> None:
    pixels = keras.Input((8, 8, 3))
    outputs = {"small": layers.Conv2D(1, 1)(pixels), "large": layers.Conv2D(4, 1)(pixels)}
    model = keras.Model(pixels, outputs)
    assert set(read(model).outputs) == {"small", "large"}
    shapes = {head: values.shape for head, values in infer(model, np.zeros((2, 8, 8, 3), np.float32)).items()}
    assert shapes == {"small": (2, 8, 8, 1), "large": (2, 8, 8, 4)}


def test_two_heads_of_one_name_are_refused() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(1, 1, name="head")(pixels)
    with pytest.raises(InputError, match="head, head; each needs a name of its own"):
        read(keras.Model(pixels, [x, x]))


def test_a_graph_knows_its_outputs() -> None:
    nodes = read(_with(layers.ReLU())).nodes
    with pytest.raises(ValueError, match="not all nodes"):
        Graph(nodes, {"logits": "nowhere"})


def _with(layer: Any) -> keras.Model:
    pixels = keras.Input((8, 8, 3))
    x = layer(layers.Conv2D(4, 3)(pixels))
    return keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.LayerNormalization(), "LayerNormalization"),
        (layers.Activation("selu"), "selu"),
        (layers.ReLU(negative_slope=0.1, max_value=6.0), "ReLU with max_value=6.0, negative_slope=0.1"),
        (layers.ELU(alpha=0.5), "ELU with alpha=0.5"),
        (layers.Conv2D(4, 1, activation="softplus"), "softplus"),
        (layers.Conv2D(4, 1, groups=2), "groups=2"),
        (layers.UpSampling2D(interpolation="bilinear"), "UpSampling2D with interpolation=bilinear"),
    ],
)
def test_an_unsupported_layer_is_named_with_the_way_out(layer: Any, named: str) -> None:
    with pytest.raises(InputError, match=f"{named}.*--precisions fp32,fp16"):
        fold(read(_with(layer)))


def test_a_layer_called_twice_becomes_two_with_the_same_weights() -> None:
    pixels = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    graph = read(keras.Model(pixels, shared(shared(pixels))))
    assert [node.name for node in graph.nodes[1:]] == ["shared", "shared_2"]
    np.testing.assert_array_equal(graph["shared"].weights[0], graph["shared_2"].weights[0])


def test_models_inside_models_are_taken_apart() -> None:
    innermost = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 1, name="conv")], name="innermost")
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, name="conv"), innermost], name="inner"
    )
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, layers.Conv2D(2, 1, name="head")(inner(pixels)))
    graph = read(model)
    assert [node.name for node in graph.nodes[1:]] == ["conv", "conv_2", "head"]
    data = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(build(graph)(data), model(data), rtol=1e-5, atol=1e-6)


def test_a_model_inside_with_several_outputs_is_taken_apart_too() -> None:
    inside = keras.Input((8, 8, 3))
    one, two = layers.Conv2D(2, 1, name="one")(inside), layers.Conv2D(2, 1, name="two")(inside)
    backbone = keras.Model(inside, [one, two], name="backbone")
    pixels = keras.Input((8, 8, 3))
    first, second = backbone(pixels)
    model = keras.Model(pixels, layers.Add()([layers.ReLU()(first), second]))
    data = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(build(fold(read(model)))(data), model(data), rtol=1e-5, atol=1e-6)


class Subclassed(keras.Model):
    def call(self, inputs: Any) -> Any:
        return inputs


def test_a_model_without_a_recorded_graph_is_refused_by_name() -> None:
    pixels = keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="'opaque' is a Subclassed without a recorded graph"):
        read(keras.Model(pixels, Subclassed(name="opaque")(pixels)))
