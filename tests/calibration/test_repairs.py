"""The float repairs, on a real small network whose channels were brought out of scale without changing what it does."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import Any

import keras
import layerwise
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from plans import make_plan

from bench.hard import out_of_scale
from calibration.calibrate import _clip, calibrate, work
from calibration.equalise import equalised, equalising_factors, unequalised
from calibration.fold import fold
from calibration.graph import Graph, Node, build, infer, read
from calibration.kinds import WEIGHTED
from calibration.observers import reach
from calibration.plan import Plan, packed
from calibration.quantize import by_channel, integer_kernel
from calibration.samples import Samples, labelled_samples
from calibration.settings import Settings
from calibration.simulate import simulate
from calibration.walk import Stage, walk
from edge.pixels import normalise
from export import onnx as to_onnx
from export import tflite as to_tflite
from train.data import load


class Case:
    """A trained and sabotaged network, and what it is tested with."""

    def __init__(self) -> None:
        train, test = load("digits", "train", 16, 16), load("digits", "test", 16, 16)
        model = out_of_scale.trained(epochs=8)
        self.healthy = infer(model, normalise(test.images))["logits"]
        out_of_scale.sabotage(model, octaves=4)
        self.model, self.test = model, test
        self.float = infer(model, normalise(test.images))["logits"]
        self.graph = fold(read(model))
        self.samples = labelled_samples(train, 128)
        self._plans: dict[Settings, Plan] = {}

    def plan(self, **settings: Any) -> Plan:
        wanted = Settings(method="minmax", **settings)
        if wanted not in self._plans:
            self._plans[wanted] = calibrate(self.graph, self.samples, wanted)
        return self._plans[wanted]

    def error(self, target: Any = "tflite", **settings: Any) -> float:
        """Mean squared error of the int8 network's logits."""
        return float(np.mean((self.logits(target, **settings) - self.float) ** 2))

    def top1(self, logits: np.ndarray) -> float:
        return 100 * float((logits.argmax(1) == self.test.labels).mean())

    def logits(self, target: Any = "tflite", **settings: Any) -> np.ndarray:
        simulation = simulate(self.graph, self.plan(**settings), target)
        return infer(simulation, normalise(self.test.images))["logits"]


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_the_sabotage_changes_nothing_in_float_and_ruins_int8(case: Case) -> None:
    np.testing.assert_allclose(case.float, case.healthy, atol=1e-4)
    assert case.top1(case.float) > 90
    for target in ("tflite", "onnx"):
        assert (
            case.top1(case.logits(target)) < case.top1(case.float) - 10
        )  # 17 to 40, by the processor that trained


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_equalisation_repairs_it(case: Case, target: str) -> None:
    assert case.top1(case.logits(target, equalise=True)) >= case.top1(case.float) - 1.5
    assert case.error(target, equalise=True) < 0.01 * case.error(target)


def test_bias_correction_wins_back_most_of_it_by_itself(case: Case) -> None:
    assert case.error(bias_correction=True) < 0.5 * case.error()
    lost = case.top1(case.float) - case.top1(case.logits())
    assert case.top1(case.logits(bias_correction=True)) > case.top1(case.logits()) + lost / 3


def test_adaround_takes_most_of_the_error_out_by_itself(case: Case) -> None:
    """Which is what it is made for; where channels are as far out of scale as here, top-1 may gain nothing."""
    assert case.error(adaround=True) < 0.5 * case.error()


def test_adaround_improves_even_what_is_equalised(case: Case) -> None:
    assert case.error(equalise=True, adaround=True) < 0.8 * case.error(equalise=True)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_bias_correction_takes_the_mean_error_out(case: Case, target: Any) -> None:
    def bias_of_head(plan: Plan) -> np.ndarray:
        exact = infer(case.model, normalise(case.samples.images[:]))["logits"]
        found = infer(simulate(case.graph, plan, target), normalise(case.samples.images[:]))["logits"]
        return np.abs((found - exact).mean(axis=0))

    before, after = bias_of_head(case.plan()), bias_of_head(case.plan(bias_correction=True))
    assert after.max() < 0.2 * before.max()


def test_equalised_channels_reach_equally_far_before_a_depthwise_layer(case: Case) -> None:
    """Its kernel has a scale for each channel; a convolution's weights have their say too."""
    before, after = (
        reach(case.plan(**kw).prepared(case.graph, "tflite"), case.samples.images)
        for kw in ({}, {"equalise": True})
    )
    for name, reader in pairwise(out_of_scale.CHAIN):
        was, now = (values[f"{name}_relu"][values[f"{name}_relu"] > 0] for values in (before, after))
        assert was.max() > 30 * was.min()
        assert now.max() < (1.001 if reader.startswith("dw") else 30) * now.min()


def test_equalisation_does_not_depend_on_how_channels_were_scaled(case: Case) -> None:
    factors = _factors(case.graph, case.samples.images)
    again = _factors(equalised(case.graph, factors), case.samples.images)
    for name, values in again.items():
        np.testing.assert_allclose(values, 1, rtol=1e-3, err_msg=name)


def test_equalisation_keeps_the_function(case: Case) -> None:
    graph = equalised(case.graph, _factors(case.graph, case.samples.images))
    found = infer(build(graph), normalise(case.test.images))["logits"]
    np.testing.assert_allclose(found, case.float, atol=1e-4)


def _factors(graph: Graph, images: Any = None) -> dict[str, tuple[float, ...]]:
    pictures = np.random.default_rng(2).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    return equalising_factors(graph, reach(graph, pictures if images is None else images))


def _chain(between: Any) -> Graph:
    pixels = keras.Input((8, 8, 3))
    x = between(layers.Conv2D(4, 1, name="a")(pixels))
    return fold(read(keras.Model(pixels, layers.Conv2D(2, 1, name="b")(x))))


@pytest.mark.parametrize(
    ("between", "obstacle"),
    [
        (layers.ReLU(6.0, name="bounded"), "ReLU 'bounded'"),
        (layers.Activation("relu6", name="bounded"), "Activation 'bounded'"),
        (layers.Activation("hard_silu", name="hs"), "HardSwish 'hs'"),
        (layers.Activation("swish", name="sw"), "'sw"),
    ],
)
def test_bounded_and_curved_activations_let_no_scale_through(between: Any, obstacle: str) -> None:
    graph = _chain(between)
    assert _factors(graph) == {}
    assert obstacle in unequalised(graph)["a"]
    assert unequalised(graph)["b"] == "it is an output"


def test_a_channel_that_is_joined_added_to_a_bounded_one_or_given_out_is_left_alone() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(4, 1, name="a")(pixels))
    y = layers.Concatenate(name="join")([x, layers.Conv2D(4, 1, name="b")(x)])
    z = layers.Add(name="sum")([layers.Conv2D(4, 1, name="c")(y), layers.ReLU(6.0, name="six")(x)])
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1, name="d")(z))))
    assert _factors(graph) == {}
    left = unequalised(graph)
    assert "read by Concatenate 'join'" in left["a"]
    assert "read by Concatenate 'join'" in left["b"]
    assert "added to ReLU 'six'" in left["c"]
    assert left["d"] == "it is an output"


def test_what_makes_a_sum_and_what_reads_it_or_a_term_share_one_scale() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(4, 1, name="a")(pixels))
    y = layers.ReLU()(layers.Conv2D(6, 1, name="b")(x))
    z = layers.Add()([x, layers.Conv2D(4, 3, padding="same", name="c")(y)])
    w = layers.Add()([z, layers.Conv2D(4, 1, name="d")(z)])
    model = keras.Model(pixels, layers.Conv2D(2, 1, name="e")(layers.ReLU()(w)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 10.0 ** rng.uniform(-2, 2, weight.shape[-1]))
    graph, data = fold(read(model)), rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    factors = _factors(graph)
    assert factors["a"] == factors["c"] == factors["d"]
    assert len(factors["b"]) == 6
    assert set(unequalised(graph)) == {"e"}
    wanted, found = model(data), build(equalised(graph, factors))(data)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_a_channel_with_two_readers_is_equalised_for_both() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.Conv2D(4, 1, name="a")(pixels)))
    model = keras.Model(pixels, [layers.Conv2D(2, 1, name="b")(x), layers.Conv2D(3, 3, name="c")(x)])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 10.0 ** rng.uniform(-2, 2, weight.shape[-1]))
    graph, data = fold(read(model)), rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    factors = _factors(graph)
    assert set(factors) == {"a"}
    wanted, found = infer(build(graph), data), infer(build(equalised(graph, factors)), data)
    for head, values in wanted.items():
        np.testing.assert_allclose(found[head], values, rtol=1e-4, atol=1e-5 * np.abs(values).max())


def test_a_depthwise_layer_does_not_lose_a_channel_that_is_large_only_in_the_sum() -> None:
    """As the first ones of MobileNet V3: the stem's output is read by a depthwise layer, and added to what follows."""
    pixels = keras.Input((8, 8, 3))
    x = layers.ReLU(name="x")(layers.Conv2D(4, 1, name="a")(pixels))
    y = layers.Conv2D(4, 1, name="b")(layers.DepthwiseConv2D(3, padding="same", name="dw")(x))
    model = keras.Model(pixels, layers.Conv2D(2, 1, name="c")(layers.Add(name="sum")([x, y])))
    far = np.ones(4, np.float32)
    near = far * [0.01, 1, 1, 1]
    first, *others = equalising_factors(fold(read(model)), {"x": near, "dw": far, "b": far, "sum": far})["a"]
    assert first < 0.5 * min(others)
    assert first > 0.01 * max(others)  # nor does the sum lose it


def test_a_dead_channel_is_not_scaled() -> None:
    graph = _chain(layers.ReLU())
    graph["a"].weights[0][..., 1] = 0
    graph["b"].weights[0][:, :, 2] = 0
    assert _factors(graph)["a"][1:3] == (1.0, 1.0)


def test_both_targets_carry_the_learnt_integers(case: Case) -> None:
    """AdaRound's integers are the plan's, TFLite's and ONNX's, weight by weight."""
    plan = case.plan(equalise=True, adaround=True)
    assert plan.rounding  # some layers learnt something
    ready = plan.prepared(case.graph, "tflite")
    wanted = {}
    for node in ready.nodes:
        if node.kind in WEIGHTED:
            scales = np.array(plan.kernel_scales[node.name], np.float32)
            nearest = integer_kernel(node, scales)
            wanted[node.name] = integer_kernel(node, scales, plan._up(node))
            if node.name in plan.rounding:
                assert (nearest != wanted[node.name]).any()
                assert np.abs(nearest.astype(int) - wanted[node.name]).max() == 1
    held = _tflite_kernels(to_tflite.int8(case.graph, plan)), _onnx_kernels(to_onnx.int8(case.graph, plan))
    for name, integers in wanted.items():
        node = ready[name]
        flat = by_channel(node, integers).T  # (out, taps) for both; one channel of a depthwise kernel a row
        for kernels in held:
            assert any(_same(kernel, flat) for kernel in kernels), name


def _same(kernel: np.ndarray, flat: np.ndarray) -> bool:
    return kernel.shape == flat.shape and np.array_equal(kernel, flat)


def _tflite_kernels(content: bytes) -> list[np.ndarray]:
    """(out, taps): a convolution is stored as (out, h, w, in), a depthwise one as (1, h, w, out)."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    constants = [
        (detail, interpreter.get_tensor(detail["index"]))
        for detail in interpreter.get_tensor_details()
        if len(detail["quantization_parameters"]["scales"]) > 1 and len(detail["shape"]) == 4
    ]
    axes = (detail["quantization_parameters"]["quantized_dimension"] for detail, _ in constants)
    return [
        np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        for axis, (_, values) in zip(axes, constants, strict=True)
    ]


def _onnx_kernels(content: bytes) -> list[np.ndarray]:
    """(out, taps) with the taps in TFLite's order: ONNX has (out, in, h, w)."""
    tensors = onnx.load(io.BytesIO(content)).graph.initializer
    arrays = (onnx.numpy_helper.to_array(tensor) for tensor in tensors)
    return [a.transpose(0, 2, 3, 1).reshape(len(a), -1) for a in arrays if a.ndim == 4 and a.dtype == np.int8]


@pytest.mark.parametrize(
    ("target", "write", "run"),
    [("tflite", to_tflite.int8, layerwise.run_tflite), ("onnx", to_onnx.int8, layerwise.run_onnx)],
)
def test_a_file_names_the_class_that_its_simulation_names(
    case: Case, target: str, write: Any, run: Any
) -> None:
    """End to end, all repairs made, as the runtimes run the files."""
    settings = {"equalise": True, "adaround": True}
    found = run(write(case.graph, case.plan(**settings)), case.test.images)
    wanted = case.logits(target, **settings)
    # Two classes in one step are no difference: the first of them is as good as the other.
    named = np.take_along_axis(wanted, found.argmax(1)[:, None], axis=1)[:, 0]
    step = case.plan(**settings).output_steps(case.graph)["logits"] if target == "tflite" else 0.0
    assert (named >= wanted.max(axis=1) - step / 2).mean() >= 0.99


def test_a_plan_with_all_repairs_survives_its_file(case: Case, tmp_path: Any) -> None:
    plan = case.plan(equalise=True, adaround=True)
    plan.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == plan
    pixels = normalise(case.test.images[:4])
    one, other = (infer(simulate(case.graph, p, "onnx"), pixels)["logits"] for p in (plan, again))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_walk_computes_what_both_networks_compute(case: Case, target: Any) -> None:
    stages = {}

    def keep(stage: Stage) -> Node:
        stages[stage.node.name] = stage
        return stage.rounded

    plan, images = case.plan(equalise=True), case.samples.images
    walk(case.graph, plan, images, target, keep)
    last, pixels = stages["head"], normalise(images[:])
    wanted = infer(case.model, pixels)["logits"]
    np.testing.assert_allclose(_dense(last.node, last.exact), wanted, atol=1e-3)
    simulated = infer(simulate(case.graph, plan, target), pixels)["logits"]
    step = plan.output_steps(case.graph)["logits"]
    assert (np.abs(_dense(last.rounded, last.given) - simulated) <= step).mean() > 0.99


def _dense(node: Node, values: np.ndarray) -> np.ndarray:
    kernel, bias = node.weights
    return values.reshape(len(values), -1) @ kernel.reshape(-1, len(bias)) + bias


def test_a_walk_takes_as_many_images_as_its_memory_is_meant_for(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def keep(stage: Stage) -> Node:
        sizes.append(len(stage.given))
        return stage.rounded

    # At the fullest moment an image holds 8 x 8 places with 16 channels twice, in two networks, 4 bytes each.
    monkeypatch.setattr("calibration.walk.MEMORY_BYTES", 10 * 2 * 4 * 2 * 8 * 8 * 24)
    walk(case.graph, case.plan(), case.samples.images, "tflite", keep)
    assert set(sizes) == {10}


def test_the_progress_reaches_its_total(case: Case) -> None:
    done: list[int] = []
    few = Samples(case.samples.images[:16], "some")
    settings = Settings(method="minmax", bias_correction=True)
    calibrate(case.graph, few, settings, progress=done.append)
    assert sum(done) == work(case.graph, 16, settings)


def test_a_layer_that_reads_a_tensor_twice_leaves_it_to_others() -> None:
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(pixels)
    x = keras.layers.Concatenate()([keras.layers.Add()([x, x]), x])
    graph = fold(read(keras.Model(pixels, keras.layers.Conv2D(2, 1)(x))))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    seen: list[str] = []

    def note(stage: Any) -> Node:
        seen.append(stage.node.name)
        return stage.node

    walk(graph, make_plan(graph, images, "made"), images, "tflite", note)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("between", "limits"),
    [
        (layers.ReLU(), (0, math.inf)),
        (layers.ReLU(6.0), (0, 6)),
        (layers.Activation("relu6"), (0, 6)),
        (layers.MaxPooling2D(2), (-math.inf, math.inf)),
    ],
)
def test_adaround_looks_at_what_the_activation_lets_through(
    between: Any, limits: tuple[float, float]
) -> None:
    graph = _chain(between)
    assert _clip(graph, graph["a"]) == limits


def test_rounding_is_packed_without_loss() -> None:
    graph = _chain(layers.ReLU())
    up = np.random.default_rng(0).random(graph["a"].weights[0].shape) > 0.5
    plan = calibrate(graph, Samples(np.zeros((2, 8, 8, 3), np.uint8), "black"), Settings(method="minmax"))
    held = plan.model_copy(update={"rounding": {"a": packed(up)}})
    np.testing.assert_array_equal(held._up(graph["a"]), up)
    assert held._up(graph["b"]) is None
