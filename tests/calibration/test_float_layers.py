"""Layers that a plan leaves in float: simulated, exported and compared layer by layer, and named when unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import layerwise
import numpy as np
import pytest
from keras import layers
from plans import make_plan

from calibration.calibrate import calibrate
from calibration.fold import fold
from calibration.graph import Graph, infer, read
from calibration.plan import Plan
from calibration.rounding import rounded_inputs, rounded_nodes
from calibration.samples import Samples
from calibration.settings import Settings
from calibration.simulate import simulate
from edge.errors import InputError
from edge.pixels import normalise


def _network() -> keras.Model:
    """A shortcut, a depthwise convolution and a dense head; what `spoilt` reads first is always zero."""
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = shortcut = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(pixels)
    x = layers.Conv2D(8, 3, padding="same", name="spoilt")(x)
    x = layers.ReLU(name="joined")(layers.Add(name="add")([x, shortcut]))
    x = layers.DepthwiseConv2D(3, strides=2, activation="relu6", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(pixels, layers.Dense(5, name="head")(x))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.2, weight.shape))
    kernel, bias = model.get_layer("stem").get_weights()
    kernel[..., 0], bias[0] = 0, 0
    model.get_layer("stem").set_weights([kernel, bias])
    return model


def _sabotage(model: keras.Model) -> None:
    """Weights that meet zeros alone, so large that the others of their kernel round to nothing."""
    kernel, bias = model.get_layer("spoilt").get_weights()
    kernel[:, :, 0, :] = 300
    model.get_layer("spoilt").set_weights([kernel, bias])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    blobs = np.random.default_rng(7).integers(0, 256, (32, 4, 4, 3), dtype=np.uint8)
    return blobs.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return fold(read(_network()))


@pytest.fixture(scope="module")
def plan(graph: Graph, images: np.ndarray) -> Plan:
    return make_plan(graph, images, "made", "minmax")


def _with_floats(plan: Plan, *names: str) -> Plan:
    return plan.in_float(*names)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_one_sabotaged_layer_in_float_repairs_the_heads(images: np.ndarray, target: Any) -> None:
    model = _network()
    _sabotage(model)
    graph, pixels = fold(read(model)), normalise(images)
    plan, wanted = make_plan(graph, images, "made", "minmax"), infer(model, pixels)["logits"]

    def error(*names: str) -> float:
        found = infer(simulate(graph, _with_floats(plan, *names), target), pixels)["logits"]
        return float(np.mean((found - wanted) ** 2))

    assert error("spoilt") < 0.02 * error()
    assert error("stem") > 0.5 * error()


@pytest.mark.parametrize("floats", [("stem",), ("spoilt",), ("depthwise",), ("head",), ("stem", "spoilt")])
@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_file_computes_what_is_simulated(
    graph: Graph, plan: Plan, images: np.ndarray, target: str, floats: tuple[str, ...]
) -> None:
    """At most one quantization step, on 99.99 % of each layer's outputs, given what the file gave before it."""
    plain = layerwise.named_plainly(graph)
    names = dict(zip((n.name for n in graph.nodes), (n.name for n in plain.nodes), strict=True))
    mixed = _with_floats(make_plan(plain, images, "made", "minmax"), *(names[name] for name in floats))
    steps = getattr(layerwise, f"{target}_steps")(plain, mixed, images[:8])
    assert len(steps) >= 3
    for name, values in steps.items():
        assert (values <= 1.01).mean() >= 0.9999, f"{name}: {values.max():.1f} steps"


def test_tflite_rounds_what_a_float_layer_gives_to_others(graph: Graph) -> None:
    def rounded(*names: str) -> set[str]:
        return {node.name for node in rounded_nodes(graph, names)}

    (relu,) = (node.name for node in graph.consumers("depthwise"))
    assert rounded("stem") == rounded()  # its ReLU is read by `spoilt` and by the shortcut
    assert rounded("stem", "spoilt") == rounded()  # and the addition reads both in int8
    assert {relu, "head"} <= rounded("depthwise", "head")  # the mean reads it; a head is int8


def test_tensorrt_rounds_nothing_for_a_float_layer_nor_for_the_addition_fused_with_it(graph: Graph) -> None:
    assert rounded_inputs(graph, graph["spoilt"]) == (0,)
    assert rounded_inputs(graph, graph["add"]) == (1,)
    assert rounded_inputs(graph, graph["spoilt"], ("spoilt",)) == ()
    assert rounded_inputs(graph, graph["add"], ("spoilt",)) == ()
    assert rounded_inputs(graph, graph["add"], ("stem",)) == (1,)


def test_a_float_layer_keeps_its_own_kernel_and_bias(graph: Graph, plan: Plan) -> None:
    shifted = plan.model_copy(update={"bias_shifts": {"tflite": {"spoilt": (1.0,) * 8}}}).in_float("spoilt")
    for mine, its in zip(
        shifted.rounded(graph, "tflite")["spoilt"].weights, graph["spoilt"].weights, strict=True
    ):
        np.testing.assert_array_equal(mine, its)
    assert not np.array_equal(shifted.rounded(graph, "tflite")["stem"].weights[0], graph["stem"].weights[0])


def test_an_unknown_layer_is_refused_with_the_nearest_names(graph: Graph, plan: Plan) -> None:
    for name in ("spoiled", "joined"):  # misspelt; no convolution
        with pytest.raises(InputError, match=rf"'{name}' in float.*nearest: .*") as refused:
            simulate(graph, _with_floats(plan, name), "tflite")
    with pytest.raises(InputError, match="nearest: spoilt"):
        simulate(graph, _with_floats(plan, "spoiled"), "onnx")
    assert "joined" not in str(refused.value).split("nearest:")[1]


def test_a_calibration_repairs_what_is_rounded_alone(graph: Graph, images: np.ndarray) -> None:
    asked = Settings(method="minmax", bias_correction=True, float_layers=("spoilt",))
    made = calibrate(graph, Samples(images, "made"), asked)
    for shifts in (made.bias_shifts["tflite"], made.bias_shifts["onnx"]):
        assert set(shifts) == {"stem", "depthwise", "head"}
    assert made.float_layers == ("spoilt",)
    assert made.provenance.method == "minmax, bias correction, in float: spoilt"


def test_a_plan_with_float_layers_survives_its_file(graph: Graph, plan: Plan, tmp_path: Path) -> None:
    mixed = _with_floats(plan, "spoilt", "head")
    mixed.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == mixed
    assert again.float_layers == ("spoilt", "head")
