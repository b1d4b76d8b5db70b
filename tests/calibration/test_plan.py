"""Ranges are what was seen, plans say where from, simulations round as planned."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from plans import make_plan

from calibration.fold import fold
from calibration.graph import Graph, build, infer, read
from calibration.kinds import WEIGHTED
from calibration.observers import measured, ranges
from calibration.plan import Plan, wide_enough
from calibration.simulate import simulate
from edge.errors import InputError
from edge.pixels import normalise


def _copying() -> Graph:
    """A 1x1 convolution whose output is twice its input, of which the ranges are known."""
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, layers.Conv2D(3, 1, use_bias=False, name="double")(pixels))
    model.layers[1].set_weights([2 * np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)])
    return fold(read(model))


def _ramp(count: int) -> np.ndarray:
    return np.linspace(0, 255, count * 8 * 8 * 3).astype(np.uint8).reshape(count, 8, 8, 3)


def test_min_max_sees_every_image() -> None:
    images = np.full((130, 8, 8, 3), 128, np.uint8)
    images[0, 0, 0, 0], images[129, 7, 7, 2] = 0, 255
    assert ranges(_copying(), images, "minmax") == {"double": (-2.0, 2 * 127 / 128)}


def test_a_percentile_cuts_that_share_of_each_tail() -> None:
    images, graph = _ramp(200), _copying()
    low, high = ranges(graph, images, "percentile:95")["double"]
    values = 2 * normalise(images)
    assert (values < low).mean() == pytest.approx(0.05, abs=0.006)
    assert (values > high).mean() == pytest.approx(0.05, abs=0.006)
    assert ranges(graph, images, "percentile:100") == ranges(graph, images, "minmax")


def test_nothing_is_measured_between_a_convolution_and_its_relu(network: Any) -> None:
    graph = fold(read(network))
    names = {node.name for node in measured(graph)}
    for node in graph.nodes:
        reader = graph.only_consumer(node.name)
        if reader is not None and reader.kind in ("ReLU", "Activation"):
            assert node.name not in names
            assert reader.name in names


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_the_simulation_stays_near_the_network(network: Any, pictures: Any, target: Any) -> None:
    graph = fold(read(network))
    plan = make_plan(graph, pictures, "made", "minmax")
    pixels = normalise(pictures)
    wanted, found = infer(network, pixels), infer(simulate(graph, plan, target), pixels)
    for head, values in wanted.items():
        assert 0 < np.abs(found[head] - values).max() < 0.12 * np.abs(values).max()


def test_the_simulation_for_tflite_speaks_in_output_steps(network: Any, pictures: Any) -> None:
    graph = fold(read(network))
    plan = make_plan(graph, pictures, "made")
    outputs = infer(simulate(graph, plan, "tflite"), normalise(pictures))
    for head, step in plan.output_steps(graph).items():
        steps = outputs[head] / step
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2)


def test_upsampling_keeps_the_scale_of_its_input() -> None:
    pixels = keras.Input((8, 8, 3))
    up = layers.UpSampling2D(2, name="up")(layers.Conv2D(3, 1, name="conv")(pixels))
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1)(up))))
    plan = make_plan(graph, _ramp(4), "made")
    assert "up" not in plan.ranges
    for target in ("tflite", "onnx"):
        assert plan.params(graph, graph["up"], target) == plan.params(graph, graph["conv"], target)


def test_upsampling_copies_each_pixel() -> None:
    pixels = keras.Input((2, 3, 1))
    model = keras.Model(pixels, layers.UpSampling2D((2, 3), name="up")(pixels))
    data = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(build(read(model))(data), data.repeat(2, axis=1).repeat(3, axis=2))


def test_large_pictures_are_watched_a_few_at_a_time_with_the_same_result() -> None:
    pixels = keras.Input((512, 512, 3))
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1, name="conv")(pixels))))
    images = np.random.default_rng(0).integers(0, 256, (9, 512, 512, 3), dtype=np.uint8)
    told: list[int] = []
    found = ranges(graph, images, "minmax", told.append)
    assert told == [4, 4, 1]
    outputs = infer(build(graph), normalise(images))["logits"]
    assert found["conv"] == pytest.approx((float(outputs.min()), float(outputs.max())))


def test_a_plan_survives_its_file(network: Any, pictures: Any, tmp_path: Path) -> None:
    plan = make_plan(fold(read(network)), pictures, "made")
    plan.write(tmp_path / "plan.json")
    assert Plan.model_validate_json((tmp_path / "plan.json").read_bytes()) == plan


def test_a_range_that_no_step_spans_is_refused(network: Any, pictures: Any, tmp_path: Path) -> None:
    """TensorFlow's converter would end the process."""
    plan = make_plan(fold(read(network)), pictures, "made")
    name = next(iter(plan.ranges))
    plan.model_copy(update={"ranges": {**plan.ranges, name: (-1e300, 1e300)}}).write(tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"plan\.json: The range.*which is what int8's steps can span"):
        Plan.read(tmp_path / "plan.json")


def _of_head(plan: Plan, **changes: Any) -> Plan:
    return plan.model_copy(update={name: change(getattr(plan, name)) for name, change in changes.items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranges": lambda ranges: dict(list(ranges.items())[1:])}, "range of layer"),
        (
            {"ranges": lambda ranges: {**ranges, "tail": (0.0, 1.0)}},
            "range of 'tail', which the network does",
        ),
        ({"kernel_scales": lambda scales: {**scales, "head": (0.1,)}}, "kernel scales of layer 'head'"),
        ({"kernel_scales": lambda scales: {**scales, "head": (0.0,) * 4}}, "kernel scales of layer 'head'"),
        ({"kernel_scales": lambda scales: {**scales, "head": (1e300,) * 4}}, "kernel scales of layer 'head'"),
        ({"kernel_scales": lambda scales: {**scales, "haed": (0.1,) * 4}}, "kernel scales of 'haed', which"),
        ({"equalised": lambda _: {"haed": (1.0,) * 4}}, "equalisation of 'haed', which"),
        ({"equalised": lambda _: {"head": (0.0,) * 4}}, "equalisation of layer 'head'"),
        ({"bias_shifts": lambda _: {"onnx": {"head": (math.nan,) * 4}}}, "bias correction of layer 'head'"),
        ({"equalised": lambda _: {"head": (1e-45,) * 4}}, "equalisation of layer 'head'"),
        ({"bias_shifts": lambda _: {"tflite": {"head": (1e30,) * 4}}}, "bias correction of layer 'head'"),
        ({"ranges": lambda ranges: {**ranges, "head": (0.0, 0.0)}}, "range of layer 'head'"),
        ({"ranges": lambda ranges: dict.fromkeys(ranges, (0.0, 0.0))}, "range of layer"),
        ({"bias_shifts": lambda _: {"onnx": {"haed": (0.0,) * 4}}}, "bias correction of 'haed', which"),
        ({"rounding": lambda _: {"head": "AA=="}}, "rounding of layer 'head'"),
        ({"rounding": lambda _: {"head": "no base64"}}, "rounding of layer 'head'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_by_the_layers_name(changes: dict[str, Any], words: str) -> None:
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(6, 3)(pixels))
    graph = fold(read(keras.Model(pixels, keras.layers.Conv2D(4, 1, name="head")(x))))
    plan = make_plan(graph, np.zeros((2, 8, 8, 3), np.uint8), "made", "minmax")
    plan.check_fits(graph)
    with pytest.raises(InputError, match=words):
        _of_head(plan, **changes).check_fits(graph)


def test_a_plan_names_its_images(pictures: Any) -> None:
    graph = _copying()
    first, again, other = (make_plan(graph, _ramp(n), "made", "minmax") for n in (9, 9, 10))
    assert first == again
    assert first.provenance.samples_sha256 != other.provenance.samples_sha256
    assert (first.samples, other.samples) == (9, 10)


def _widened(
    body: Callable[[Any], Any], kernel: float = 1.0, **ranges: tuple[float, float]
) -> dict[str, Any]:
    """The ranges, with those of nothing widened; of convolutions with that largest scale of a kernel."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    graph = fold(read(keras.Model(pixels, body(pixels))))
    scales = {node.name: (kernel / 2, kernel) for node in graph.nodes if node.kind in WEIGHTED}
    found = wide_enough(graph, ranges, scales)
    assert found.keys() == ranges.keys()
    return found


PIXEL_SPAN = 255 / 128
"""Of the input, in real units."""


def test_a_range_of_nothing_is_widened_to_a_share_of_what_its_layer_can_give() -> None:
    def body(pixels: Any) -> Any:
        x = layers.Conv2D(2, 1, name="a")(pixels)
        return layers.Conv2D(2, 1, name="c")(layers.Conv2D(2, 1, name="b")(x))

    nothing = (0.0, 0.0)
    found = _widened(body, 0.5, a=nothing, b=nothing, c=(-1.0, 1.0))
    first = 0.5 * PIXEL_SPAN / 128
    assert found["a"] == (0.0, pytest.approx(first))
    assert found["b"] == (0.0, pytest.approx(first * 0.5 / 128))
    assert found["c"] == (-1.0, 1.0)


@pytest.mark.parametrize("low", [-1e-3, 0.25])
def test_a_widened_range_keeps_its_lower_limit_and_spans_from_zero(low: float) -> None:
    found = _widened(lambda x: layers.Conv2D(2, 1, name="a")(x), 128.0, a=(low, low))
    assert found["a"] == (low, pytest.approx(min(low, 0) + PIXEL_SPAN))


def test_a_product_is_widened_by_the_product_of_both_and_a_sum_by_the_wider() -> None:
    def body(pixels: Any, join: type) -> Any:
        wide, narrow = (layers.Conv2D(2, 1, name=name)(pixels) for name in ("wide", "narrow"))
        return join(name="join")([narrow, wide])

    given = {"wide": (0.0, 1000.0), "narrow": (0.0, 10.0), "join": (0.0, 0.0)}
    product = _widened(lambda x: body(x, layers.Multiply), **given)["join"]
    assert product == (0.0, pytest.approx(10 * 1000 / 255 / 128))
    assert _widened(lambda x: body(x, layers.Add), **given)["join"] == (0.0, pytest.approx(1000 / 128))


def test_an_activation_with_a_fixed_range_keeps_it() -> None:
    body = lambda x: layers.Activation("sigmoid", name="s")(layers.Conv2D(2, 1, name="a")(x))  # noqa: E731
    assert _widened(body, a=(0.0, 1e4), s=(0.0, 255 / 256))["s"] == (0.0, 255 / 256)


@pytest.mark.parametrize("method", ["median", "percentile", "percentile:x", "percentile:40", "minmax:1"])
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(InputError, match=r"percentile"):
        make_plan(_copying(), _ramp(4), "made", method)


def test_images_of_another_size_are_refused(pictures: Any) -> None:
    with pytest.raises(InputError, match=r"\(8, 8, 3\).*\(32, 32, 3\)"):
        make_plan(_copying(), pictures, "made")
