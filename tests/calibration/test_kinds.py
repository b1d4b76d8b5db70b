"""Every kind of layer that int8 knows: folded without a change, exported to both targets, and each file compared
with its own simulation, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import layerwise
import numpy as np
import pytest
from keras import layers
from plans import make_plan

from calibration.fold import fold
from calibration.graph import build, infer, read
from calibration.kinds import SUPPORTED
from calibration.simulate import simulate
from edge.bundle import FORMATS
from edge.errors import InputError
from edge.pixels import normalise
from export import lint, onnx, tflite
from train.weights import in_float32

Body = Callable[[Any], Any]

_convolution = layers.Conv2D
_norm = layers.BatchNormalization


def _squeeze_excite(gate: Body, reshape: bool = False) -> Body:
    def body(x: Any) -> Any:
        s = layers.GlobalAveragePooling2D(keepdims=not reshape)(x)
        s = layers.Reshape((1, 1, 8))(s) if reshape else s
        s = _convolution(8, 1)(_convolution(4, 1, activation="relu")(s))
        return layers.Multiply()([x, gate(s)])

    return body


def _dense_squeeze_excite(x: Any) -> Any:
    s = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return layers.Multiply()([x, layers.Dense(8, activation="sigmoid")(s)])


KINDS: dict[str, Body] = {
    "depthwise": lambda x: layers.ReLU(6.0)(
        _norm()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    ),
    "depthwise with a stride and a multiplier": lambda x: layers.ReLU()(
        _norm()(
            layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(
                layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
            )
        )
    ),
    "separable": lambda x: layers.ReLU()(_norm()(layers.SeparableConv2D(6, 3, padding="same")(x))),
    "swish": lambda x: layers.Activation("swish")(_norm()(_convolution(8, 1)(x))),
    "a layer's own swish": lambda x: _convolution(8, 1, activation="silu")(x),
    "hard-swish": lambda x: layers.Activation("hard_silu")(_norm()(_convolution(8, 1)(x))),
    "hard-sigmoid": lambda x: _convolution(8, 1, activation="hard_sigmoid")(x),
    "hard-sigmoid of a layer without a bias": lambda x: _convolution(
        8, 1, use_bias=False, activation="hard_sigmoid"
    )(x),
    "leaky ReLU": lambda x: layers.LeakyReLU(0.1)(_norm()(_convolution(8, 1)(x))),
    "leaky ReLU of a function": lambda x: _convolution(8, 1, activation="leaky_relu")(x),
    "leaky ReLU of a layer as activation": lambda x: _convolution(8, 1, activation=layers.LeakyReLU(0.4))(x),
    "a ReLU that leaks": lambda x: layers.ReLU(negative_slope=0.05)(_convolution(8, 1)(x)),
    "ELU": lambda x: layers.ELU()(_norm()(_convolution(8, 1)(x))),
    "ELU of a function": lambda x: _convolution(8, 1, activation="elu")(x),
    "GELU": lambda x: layers.Activation("gelu")(_norm()(_convolution(8, 1)(x))),
    "as many groups as channels": lambda x: _convolution(16, 3, groups=8, padding="same", activation="relu")(
        x
    ),
    "sigmoid": lambda x: _convolution(8, 1, activation="sigmoid")(x),
    "tanh": lambda x: _convolution(8, 1, activation="tanh")(x),
    "softmax": lambda x: layers.Softmax()(layers.Dense(4)(layers.Flatten()(x))),
    "squeeze-excite": _squeeze_excite(layers.Activation("sigmoid")),
    "squeeze-excite of a vector": _squeeze_excite(layers.Activation("sigmoid"), reshape=True),
    "squeeze-excite of dense layers": _dense_squeeze_excite,
    "squeeze-excite of bare operations": _squeeze_excite(lambda s: layers.ReLU(6.0)(s + 3.0) * (1 / 6)),
    "residual": lambda x: layers.ReLU()(layers.Add()([x, _norm()(_convolution(8, 3, padding="same")(x))])),
    "residual of a bare operation": lambda x: layers.ReLU()(x + _convolution(8, 3, padding="same")(x)),
    "concat": lambda x: layers.Concatenate()([x, _convolution(4, 3, padding="same", activation="relu")(x)]),
    "relu of a concat": lambda x: layers.ReLU()(
        layers.Concatenate()([x, _convolution(4, 3, padding="same")(x)])
    ),
    "mean pool": lambda x: _convolution(4, 1)(layers.AveragePooling2D(2)(x)),
    "relu of a mean pool": lambda x: layers.ReLU()(layers.AveragePooling2D(2)(_convolution(4, 1)(x))),
    "relu of a maximum": lambda x: layers.ReLU()(layers.MaxPooling2D(2)(_convolution(4, 1)(x))),
    "norm and relu of a maximum": lambda x: layers.ReLU()(
        _norm()(layers.MaxPooling2D(2)(_convolution(4, 1)(x)))
    ),
    "global maximum": lambda x: layers.GlobalMaxPooling2D()(_convolution(4, 1)(x)),
    "padding": lambda x: _convolution(4, 3, strides=2)(layers.ZeroPadding2D(1)(x)),
    "cropping": lambda x: layers.Add()(
        [layers.Cropping2D(((1, 0), (0, 1)))(layers.ZeroPadding2D(((0, 1), (1, 0)))(x)), x]
    ),
    "a norm of a vector": lambda x: layers.ReLU()(
        _norm()(layers.ReLU()(layers.Dense(8)(layers.GlobalAveragePooling2D()(x))))
    ),
    "rescaling": lambda x: _convolution(4, 1)(layers.Rescaling(2.0, offset=0.25)(x)),
    "a sum of two vectors": lambda x: layers.Add()(
        [layers.Dense(6)(layers.GlobalAveragePooling2D()(x)), layers.Dense(6)(layers.GlobalMaxPooling2D()(x))]
    ),
    "a sum of three": lambda x: layers.Add()(
        [x, _convolution(8, 1)(x), _convolution(8, 3, padding="same")(x)]
    ),
    "a product of three": lambda x: layers.Multiply()(
        [x, _convolution(8, 1)(x), _convolution(8, 3, padding="same")(x)]
    ),
    "a dense layer's vector added to a map": lambda x: layers.Add()(
        [x, layers.Dense(8)(layers.GlobalAveragePooling2D()(x))]
    ),
    "a vector added to a map": lambda x: layers.Add()(
        [_convolution(8, 3, padding="same")(x), layers.GlobalAveragePooling2D(keepdims=True)(x)]
    ),
    "vectors flattened and reshaped": lambda x: layers.Reshape((4,))(
        layers.Dense(4, activation="relu")(
            layers.Flatten()(layers.Reshape((8,))(layers.GlobalMaxPooling2D()(x)))
        )
    ),
    "a map reshaped to a vector": lambda x: layers.Dense(6)(layers.Reshape((-1,))(layers.MaxPooling2D(4)(x))),
    "a layer that has the name of one of ours": lambda x: layers.ReLU(name="c1_relu")(
        _convolution(8, 3, activation="swish", name="c1_relu_2")(
            _convolution(8, 3, activation="relu", name="c1")(x)
        )
    ),
    "a layer that feeds one and has the name of its part": lambda x: _convolution(
        8, 3, activation="relu", name="c2"
    )(layers.ReLU(name="c2_relu")(x)),
    "a layer that has the name of our last one": lambda x: layers.Flatten(name="head_flat")(
        _convolution(8, 4, strides=4, activation="relu")(x)
    ),
    "a model inside": lambda x: keras.Sequential(
        [keras.Input((16, 16, 8)), layers.Conv2D(4, 3, name="inner", activation="relu")], name="backbone"
    )(x),
    "a layer called twice": lambda x: (lambda layer: layer(layer(x)))(
        _convolution(8, 3, padding="same", activation="relu", name="shared")
    ),
}


VARIANTS = frozenset(
    {
        "depthwise with a stride and a multiplier",
        "a layer's own swish",
        "leaky ReLU of a function",
        "leaky ReLU of a layer as activation",
        "a ReLU that leaks",
        "ELU of a function",
        "as many groups as channels",
        "tanh",
        "squeeze-excite",
        "squeeze-excite of a vector",
        "squeeze-excite of dense layers",
        "residual of a bare operation",
        "relu of a concat",
        "mean pool",
        "norm and relu of a maximum",
        "padding",
        "rescaling",
        "a vector added to a map",
        "vectors flattened and reshaped",
        "a map reshaped to a vector",
        "a layer that has the name of one of ours",
        "a layer that feeds one and has the name of its part",
        "a layer that has the name of our last one",
        "a model inside",
        "a layer called twice",
    }
)
"""What folds to layers that another kind exports too: exported by the slow tests."""

EXPORTED = [
    pytest.param(kind, marks=pytest.mark.slow) if kind in VARIANTS else pytest.param(kind) for kind in KINDS
]


def _model(body: Body) -> keras.Model:
    """A convolution, what is tested, a head; weights drawn at random."""
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = _convolution(8, 3, padding="same", use_bias=False, name="stem")(pixels)
    x = body(layers.ReLU(name="stem_relu")(_norm(name="stem_norm")(x)))
    x = layers.GlobalAveragePooling2D(name="mean")(x) if len(x.shape) == 4 else x
    model = keras.Model(pixels, layers.Dense(5, name="head")(x))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        values = rng.normal(0, 0.2, weight.shape)
        positive = any(part in weight.path for part in ("variance", "gamma"))
        weight.assign(np.abs(values) + 0.5 if positive else values)
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    blobs = np.random.default_rng(7).integers(0, 256, (48, 4, 4, 3), dtype=np.uint8)
    return blobs.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_folded_without_a_change(kind: str, images: np.ndarray) -> None:
    model = _model(KINDS[kind])
    graph, pixels = fold(read(model)), normalise(images)
    assert {node.kind for node in graph.nodes} <= SUPPORTED
    wanted, found = infer(model, pixels)["logits"], infer(build(graph), pixels)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", EXPORTED)
@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_kind_is_exported_as_it_is_simulated(kind: str, target: str, images: np.ndarray) -> None:
    """At most one quantization step, on 99.99 % of each layer's outputs, given what the file gave before it."""
    graph = layerwise.named_plainly(fold(read(_model(KINDS[kind]))))
    steps = getattr(layerwise, f"{target}_steps")(
        graph, make_plan(graph, images, "made", "minmax"), images[:8]
    )
    assert len(steps) >= 3
    every = np.concatenate([values.ravel() for values in steps.values()])
    assert every.max() > 0  # something was rounded, and compared
    for name, values in steps.items():
        assert (values <= 1.01).mean() >= 0.9999, f"{name}: {values.max():.1f} steps"


def _dense_block(x: Any) -> Any:
    """Each join is read by the next one and, through a norm, by a convolution (DenseNet, arXiv 1608.06993)."""
    for _ in range(3):
        y = _convolution(4, 1)(layers.ReLU()(_norm()(x)))
        x = layers.Concatenate()([x, y])
    return layers.ReLU()(_norm()(x))


BY_HEADS: dict[str, Body] = {
    "joins of joins": _dense_block,
    "two pools joined": lambda x: layers.Concatenate()(
        [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    ),
    "flattened maps joined": lambda x: layers.Concatenate()(
        [
            layers.Flatten()(_convolution(3, 3, strides=4, activation="relu")(x)),
            layers.Flatten()(layers.MaxPooling2D(8)(x)),
            layers.GlobalAveragePooling2D()(x),
        ]
    ),
    "an activation of a flattened map": lambda x: layers.ReLU()(layers.Flatten()(_convolution(3, 3, 4)(x))),
    "a norm of a flattened map": lambda x: _norm()(
        layers.Flatten()(_convolution(3, 3, 4, activation="relu")(x))
    ),
}


@pytest.mark.parametrize("kind", BY_HEADS)
def test_what_is_joined_or_flattened_obeys_tensorrts_rules_and_computes_what_is_simulated(
    kind: str, images: np.ndarray
) -> None:
    """By the heads: both converters move roundings, as of layers that only a join reads to the join's own grid."""
    model, pixels = _model(BY_HEADS[kind]), normalise(images)
    graph = fold(read(model))
    exact = infer(model, pixels)["logits"]
    np.testing.assert_allclose(infer(build(graph), pixels)["logits"], exact, atol=2e-6 * np.abs(exact).max())
    plan = make_plan(graph, images, "made", "minmax")
    content = onnx.int8(graph, plan)
    assert lint.lint(content) == ()
    found = {"onnx": layerwise.run_onnx(content, images)}
    found["tflite"] = layerwise.run_tflite(tflite.int8(graph, plan), images)
    for target in FORMATS:
        wanted = infer(simulate(graph, plan, target), pixels)["logits"]
        assert np.abs(found[target] - wanted).max() <= 3 * plan.output_steps(graph)["logits"], target


@keras.saving.register_keras_serializable("tests")
class Doubling(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return 2 * inputs


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (lambda x: Doubling(name="twice")(x), "'twice' .custom layer Doubling, which"),
        (lambda x: layers.Conv2DTranspose(4, 3, name="up")(x), "'up' .Conv2DTranspose"),
        (lambda x: layers.PReLU(name="leak")(x), "'leak' .PReLU"),
        (lambda x: layers.Concatenate(axis=1, name="join")([x, x]), "'join' .Concatenate with axis=1"),
        (lambda x: keras.ops.sqrt(x), "operation Sqrt"),
        (lambda x: x / keras.ops.sum(x, axis=3, keepdims=True), "operation Sum"),
        (lambda x: layers.Subtract(name="less")([x, x]), "'less' .Subtract"),
        (lambda x: keras.ops.split(x, 2, axis=3)[0], r"'split' \(Split\) has 2 outputs"),
        (
            lambda x: layers.BatchNormalization(axis=1, name="rows")(x),
            "'rows' .BatchNormalization with axis=1",
        ),
        (
            lambda x: layers.Normalization(
                (1, 2, 3), mean=np.zeros((16, 16, 8)), variance=np.ones((16, 16, 8)), name="places"
            )(x),
            r"'places' \(Normalization with axis=\(1, 2, 3\)",
        ),
        (lambda x: layers.Dense(4, name="rows")(layers.Reshape((256, 8))(x)), r"'rows' reads \(256, 8\)"),
        (
            lambda x: layers.Dense(4)(
                layers.GlobalAveragePooling1D(name="mean")(
                    (lambda y: layers.MultiHeadAttention(2, 4, name="look")(y, y))(
                        layers.Reshape((256, 8))(x)
                    )
                )
            ),
            r"Layers 'look' \(MultiHeadAttention\), 'mean' \(GlobalAveragePooling1D\) have no int8 form",
        ),
        (
            lambda x: layers.Dense(4, activation="mish", name="soft")(layers.GlobalAveragePooling2D()(x)),
            r"'soft' \(Dense with activation mish\)",
        ),
    ],
)
def test_what_int8_does_not_know_is_refused_by_name(body: Body, named: str) -> None:
    with pytest.raises(InputError, match=named):
        fold(read(_model(body)))


def test_what_reads_no_map_is_refused_at_once_however_many_ways_lead_there() -> None:
    x = pixels = keras.Input((4, 4, 3))
    for _ in range(40):
        x = layers.Add()([x, x])
    with pytest.raises(InputError, match=r"'rows' reads \(16, 3\)"):
        fold(read(keras.Model(pixels, layers.Dense(2, name="rows")(layers.Reshape((16, 3))(x)))))


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_bare_operations_in_another_precision_become_float32(policy: str, images: np.ndarray) -> None:
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, dtype=policy)(pixels)
    model = in_float32(keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x * 2.0 + 1.0))))
    assert {layer.compute_dtype for layer in model.layers if isinstance(layer, layers.Layer)} == {"float32"}
    assert infer(model, normalise(images))["logits"].shape == (48, 2)


def test_a_network_in_mixed_precision_and_an_adapted_one_are_those_of_their_weights(
    images: np.ndarray,
) -> None:
    def body(x: Any) -> Any:
        convolution = layers.Conv2D(8, 3, padding="same", dtype="mixed_bfloat16")
        x = convolution(x)
        convolution.enable_lora(2)
        dense = layers.Dense(6, lora_rank=2, name="adapted", dtype="float32")
        return dense(layers.GlobalAveragePooling2D()(x))

    model = _model(body)
    assert all(node.config.get("dtype", "float32") == "float32" for node in fold(read(model)).nodes)
    graph = fold(read(in_float32(model)))
    wanted = infer(in_float32(model), normalise(images))["logits"]
    found = infer(build(graph), normalise(images))["logits"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    without = model.get_layer("adapted")._kernel.numpy()
    assert np.abs(model.get_layer("adapted").kernel.numpy() - without).max() > 0.01


def test_two_inputs_are_refused_by_name() -> None:
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    with pytest.raises(InputError, match=r"2 inputs \(left, right\)"):
        read(keras.Model([left, right], layers.Add()([left, right])))


def test_a_size_that_is_not_fixed_is_refused_by_name() -> None:
    pixels = keras.Input((None, None, 3), name="any_size")
    with pytest.raises(InputError, match=r"'any_size' takes \(None, None, 3\)"):
        read(keras.Model(pixels, layers.Conv2D(2, 1)(pixels)))


def test_the_normalisation_of_a_bought_network_becomes_one_affine_layer() -> None:
    pixels = keras.Input((8, 8, 3))
    known = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0], name="known")
    model = keras.Model(pixels, layers.Conv2D(2, 1)((known(pixels) - 0.5) / 2.0))
    graph, data = fold(read(model)), np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    assert [node.kind for node in graph.nodes].count("DepthwiseConv2D") >= 1
    np.testing.assert_allclose(build(graph)(data), model(data), rtol=1e-5, atol=1e-6)


def _settle(model: keras.Model, pixels: np.ndarray) -> None:
    """Give the norms the statistics of real inputs: in a network fresh from its start, signals fade to nothing."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(12):
        model(pixels, training=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0"])
def test_networks_of_keras_applications_are_exported_as_simulated(name: str, images: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    build_network = getattr(keras.applications, name)
    model = build_network(input_shape=(64, 64, 3), weights=None, classes=10)
    large = images.repeat(4, axis=1).repeat(4, axis=2)
    _settle(model, normalise(large))
    graph = layerwise.named_plainly(fold(read(model)))
    plan = make_plan(graph, large, "made", "minmax")
    for compared in (layerwise.tflite_steps, layerwise.onnx_steps):
        steps = compared(graph, plan, large[:2])
        for layer, values in steps.items():
            assert (values <= 1.01).mean() >= 0.9999, f"{layer}: {values.max():.1f} steps"
