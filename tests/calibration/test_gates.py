"""Equalisation through swish and hard-swish: the function stays, and channels out of scale cost int8 little."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import layerwise
import numpy as np
import pytest
from keras import layers

from calibration.calibrate import calibrate, work
from calibration.coverage import coverage
from calibration.equalise import equalised, equalising_factors, unequalised
from calibration.fold import fold
from calibration.gates import gates_apart, rescales
from calibration.graph import Graph, build, infer, read
from calibration.observers import reach
from calibration.samples import Samples
from calibration.sensitivity import layer_errors
from calibration.settings import Settings
from calibration.simulate import simulate
from edge.bundle import Format
from edge.pixels import normalise
from export import lint, onnx, tflite

Body = Callable[[Any], Any]
OCTAVES = 5
THROUGH = {"equalise": True, "through_swish": True, "bias_correction": True}


def _layer(x: Any, activation: str, name: str, filters: int = 12) -> Any:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return layers.Activation(activation, name=f"{name}_act")(
        layers.BatchNormalization(name=f"{name}_norm")(x)
    )


def _squeezed(x: Any) -> Any:
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(12, 1, activation="hard_sigmoid", name="up")(
        layers.Conv2D(4, 1, activation="relu", name="down")(s)
    )
    return layers.Multiply(name="excited")([x, s])


NETWORKS: dict[str, Body] = {
    "swish": lambda x: _layer(_layer(x, "swish", "a"), "swish", "b"),
    "hard-swish": lambda x: _layer(_layer(x, "hard_silu", "a"), "hard_silu", "b"),
    "hard-swish and squeeze-excite": lambda x: _layer(
        _squeezed(_layer(x, "hard_silu", "a")), "hard_silu", "b"
    ),
    "relu and squeeze-excite": lambda x: _layer(_squeezed(_layer(x, "relu", "a")), "relu", "b"),
}


def _network(body: Body) -> keras.Model:
    """Its channels differ by 2^-OCTAVES to 2^OCTAVES, what reads them makes up for it, and all else is random."""
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.Conv2D(10, 1, name="last")(body(pixels))
    model = keras.Model(pixels, layers.GlobalAveragePooling2D(name="mean")(x))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(rng.normal(0, 1 / np.sqrt(np.prod(weight.shape[:3])), weight.shape))
    for maker, reader in (("a", "b"), ("b", "last")):
        if maker in {layer.name for layer in model.layers}:
            gain, kernel = 2.0 ** rng.uniform(-OCTAVES, OCTAVES, 12), model.get_layer(reader).kernel
            model.get_layer(f"{maker}_norm").gamma.assign(gain)
            kernel.assign(kernel / gain.reshape(1, 1, -1, 1))
    return model


def _pictures() -> np.ndarray:
    blobs = np.random.default_rng(7).integers(0, 256, (32, 4, 4, 3), dtype=np.uint8)
    return blobs.repeat(4, axis=1).repeat(4, axis=2)


def _graph(name: str) -> Graph:
    return fold(read(_network(NETWORKS[name])))


def _logits(model: Any) -> np.ndarray:
    (values,) = infer(model, normalise(_pictures())).values()
    return values.reshape(len(values), -1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays(name: str) -> None:
    graph = _graph(name)
    apart = gates_apart(graph)
    assert sum(map(rescales, apart.nodes)) == (2 if "swish" in name else 0)
    assert (apart is graph) == ("swish" not in name)
    factors = equalising_factors(apart, reach(apart, _pictures()))
    assert {"a", "b"} <= set(factors)
    wanted = _logits(build(graph))
    for same in (apart, equalised(apart, factors)):
        np.testing.assert_allclose(_logits(build(same)), wanted, rtol=0, atol=3e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("target", ["tflite", "onnx"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if "swish" in name])
def test_channels_out_of_scale_are_repaired_and_the_files_compute_what_is_simulated(
    name: str, target: Format
) -> None:
    graph, samples = _graph(name), Samples(_pictures(), "made")
    exact = _logits(build(graph))
    plain = calibrate(graph, samples, Settings(method="minmax", equalise=True, bias_correction=True))
    plan = calibrate(graph, samples, Settings(method="minmax", **THROUGH))
    assert plan.method == "minmax, equalise, through swish, bias correction"
    found = _logits(simulate(graph, plan, target))
    before, after = (
        float(np.mean((values - exact) ** 2)) for values in (_logits(simulate(graph, plain, target)), found)
    )
    assert after < 0.1 * before
    if target == "tflite":
        run = layerwise.run_tflite(tflite.int8(graph, plan), _pictures())
    else:
        content = onnx.int8(graph, plan)
        assert lint.lint(content) == ()
        run = layerwise.run_onnx(content, _pictures())
    (step,) = plan.output_steps(graph).values()
    assert np.abs(run - found).max() <= 3 * step


def test_a_layer_that_has_the_name_of_a_gate_keeps_it() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(pixels)
    x = layers.Conv2D(4, 1, name="act_gate")(layers.Activation("hard_silu", name="act")(x))
    model = keras.Model(pixels, layers.Conv2D(2, 1, name="act_rescale")(x))
    apart = gates_apart(fold(read(model)))
    assert sum(rescales(node) for node in apart.nodes) == 1
    data = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(build(apart)(data), model(data), rtol=1e-4, atol=1e-5)


def test_the_progress_counts_the_layers_before_the_gates_too() -> None:
    graph, samples, settings = (
        _graph("swish"),
        Samples(_pictures(), "made"),
        Settings(method="minmax", **THROUGH),
    )
    done: list[int] = []
    calibrate(graph, samples, settings, progress=done.append)
    assert sum(done) == work(graph, len(samples.images), settings)


@pytest.mark.parametrize(
    ("product", "obstacle"),
    [
        (lambda x: layers.Multiply(name="square")([x, layers.MaxPooling2D(1)(x)]), "'square'"),
        (
            lambda x: layers.Multiply(name="attended")(
                [layers.ReLU()(layers.Conv2D(1, 1, name="one")(x)), x]
            ),
            "",
        ),
    ],
)
def test_a_scale_goes_through_a_product_once(product: Body, obstacle: str) -> None:
    """Not twice, and not from one channel to many: 'a' goes through the second product, 'one' does not."""
    graph = fold(read(_network(lambda x: _layer(product(_layer(x, "relu", "a")), "relu", "b"))))
    left = unequalised(graph)
    assert obstacle in left["a"] if obstacle else "a" not in left
    if not obstacle:
        assert "'attended'" in left["one"]


def test_a_product_scales_with_the_factor_that_has_its_channels() -> None:
    """Though the other one has more values."""
    pixels = keras.Input((16, 16, 3))
    place = layers.ReLU()(layers.Conv2D(1, 1, name="place")(pixels))
    channel = layers.ReLU()(
        layers.Conv2D(6, 1, name="channel")(layers.GlobalAveragePooling2D(keepdims=True)(pixels))
    )
    model = keras.Model(pixels, layers.Conv2D(2, 1)(layers.Multiply()([place, channel])))
    graph = fold(read(model))
    factors = equalising_factors(graph, reach(graph, _pictures()))
    assert {name: len(factor) for name, factor in factors.items()} == {"channel": 6}
    data = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(build(equalised(graph, factors))(data), model(data), rtol=1e-4, atol=1e-5)


def test_what_only_a_sigmoid_reads_reaches_no_further_than_it_tells_values_apart() -> None:
    """And neither held-out images that go further, nor the noise that this makes, are held against it."""
    graph = _graph("swish")
    plan = calibrate(graph, Samples(_pictures(), "made"), Settings(method="minmax", **THROUGH))
    ready = plan.prepared(graph, "tflite")
    names = [node.name for node in ready.nodes if rescales(node)]
    assert {plan.ranges[name] for name in names} == {(-6.3, 6.3)}
    gates = [node.inputs[0] for node in ready.nodes if node.config.get("activation") == "sigmoid"]
    assert set(gates) == set(names)
    covered = coverage(graph, plan, 255 - _pictures())
    assert {covered[name].outside for name in names} == {0.0}
    errors = {error.name: error.own_db for error in layer_errors(graph, plan, _pictures())}
    assert min(errors[name] for name in names) > 20


@pytest.mark.parametrize("bias", [9.0, -9.0])
def test_a_gate_that_is_always_open_or_shut_has_a_range(bias: float) -> None:
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="relu")(pixels)
    gate = layers.Conv2D(8, 1, bias_initializer=keras.initializers.Constant(bias), name="gate")(
        layers.GlobalAveragePooling2D(keepdims=True)(x)
    )
    x = layers.Multiply()([x, layers.Activation("sigmoid")(gate)])
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1)(x))))
    plan = calibrate(graph, Samples(_pictures(), "made"), Settings(method="minmax"))
    plan.check_fits(graph)
    assert plan.ranges["gate"] == (math.copysign(6.3, bias),) * 2
