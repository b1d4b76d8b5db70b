"""Training with rounding, on a real small network whose channels were brought out of scale."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from plans import make_plan

from bench.hard import out_of_scale
from calibration import quantize
from calibration.fold import fold
from calibration.graph import Graph, Node, infer, read
from calibration.plan import Plan
from calibration.provenance import graph_sha256
from calibration.qat import QatLesson, Rounded, plain_network, rounded_kernel, rounding_network
from calibration.samples import labelled_samples
from calibration.simulate import simulate
from edge.bundle import Bundle
from edge.pixels import normalise
from export import tflite
from train.card import card_path, read_card
from train.classifier import ClassifierLesson
from train.data import load, pick
from train.evaluate import keras_top1
from train.fit import fit
from train.models.lenet import lenet5
from train.recipe import Recipe
from train.weights import load_keras

RECIPE = Recipe(
    name="hard",
    model="train.models.lenet:lenet5",
    data="digits",
    epochs=8,
    height=16,
    width=16,
    batch_size=64,
    learning_rate=2e-3,
    warmup_epochs=0,
    optimiser="adam",
)


class Quiet:
    """A watcher that breaks the training off after some epoch."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing to tell."""

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == self.last:
            raise KeyboardInterrupt


class Case:
    """A network that int8 ruins, and the same after quantization-aware training."""

    def __init__(self, folder: Path) -> None:
        self.train, self.test = load("digits", "train", 16, 16), load("digits", "test", 16, 16)
        self.model = out_of_scale.trained(epochs=8)
        self.healthy = fold(read(self.model))
        out_of_scale.sabotage(self.model, octaves=4)
        self.graph = fold(read(self.model))
        lesson = self.lesson(RECIPE)
        self.start = lesson.start
        self.trained = fit(lesson, folder / "checkpoint.keras", Quiet()).model
        self.plan = lesson.plan(self.trained)

    def lesson(self, recipe: Recipe, graph: Graph | None = None) -> QatLesson:
        lesson = ClassifierLesson(recipe, self.train, None, self.test)
        return QatLesson(lesson, graph or self.graph, labelled_samples(self.train, 128))

    def logits(self, model: keras.Model) -> np.ndarray:
        return infer(model, normalise(self.test.images))["logits"]

    def top1(self, logits: np.ndarray) -> float:
        return 100 * float((logits.argmax(1) == self.test.labels).mean())


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("qat"))


def test_training_wins_back_what_int8_lost(case: Case) -> None:
    exact = case.top1(case.logits(case.model))
    graph = fold(read(case.trained))
    assert exact > 90
    for target, least in (("tflite", exact - 10), ("onnx", exact - 40)):
        before = case.top1(case.logits(simulate(case.graph, case.start, target)))
        after = case.top1(case.logits(simulate(graph, case.plan, target)))
        lost = exact - before  # from 18 to more than 40 points, by the processor that trained
        assert lost > 10
        assert after > before + lost / 3
        assert after > least


def test_the_simulation_of_the_plan_computes_what_was_trained(case: Case) -> None:
    graph = fold(read(case.trained))
    trained = case.logits(rounding_network(graph, case.plan))
    simulated = case.logits(simulate(graph, case.plan, "tflite"))
    step = case.plan.output_steps(graph)["logits"]
    # A value between two steps may fall either way in float32.
    assert (np.abs(trained - simulated) < 0.01 * step).mean() > 0.99
    assert (trained.argmax(1) == simulated.argmax(1)).mean() >= 0.99


def test_the_file_of_the_plan_keeps_what_was_won(case: Case) -> None:
    """Many channels have a step or two, so that TFLite's own last bit changes some answers; not the accuracy."""
    graph = fold(read(case.trained))
    trained = case.logits(rounding_network(graph, case.plan))
    found = _run(tflite.int8(graph, case.plan), normalise(case.test.images))
    assert (found.argmax(1) == trained.argmax(1)).mean() >= 0.97
    assert case.top1(found) > case.top1(trained) - 2


def test_the_file_of_a_healthy_network_answers_as_it_was_trained(case: Case, tmp_path: Path) -> None:
    lesson = case.lesson(replace(RECIPE, epochs=1, learning_rate=1e-4), case.healthy)
    model = fit(lesson, tmp_path / "checkpoint.keras", Quiet()).model
    graph, plan = fold(read(model)), lesson.plan(model)
    trained = case.logits(rounding_network(graph, plan))
    found = _run(tflite.int8(graph, plan), normalise(case.test.images))
    assert (found.argmax(1) == trained.argmax(1)).mean() >= 0.99


def _run(content: bytes, pixels: np.ndarray) -> np.ndarray:
    """The integers that a TFLite file gives, int8 (N, classes)."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for picture in np.rint(pixels * 128).astype(np.int8):
        interpreter.set_tensor(given["index"], picture[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(found["index"])[0])
    return np.stack(rows)


def test_a_resumed_training_ends_with_the_same_weights(case: Case, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2)
    whole = fit(case.lesson(recipe), tmp_path / "whole.keras", Quiet()).model
    with pytest.raises(KeyboardInterrupt):
        fit(case.lesson(recipe), tmp_path / "part.keras", Quiet(last=1), checkpoint_interval_s=0)
    resumed = fit(case.lesson(recipe), tmp_path / "part.keras", Quiet(), resume=True).model
    for wanted, found in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(-9, 3), st.booleans())
def test_a_kernel_is_rounded_to_the_plans_integers(seed: int, size: float, depthwise: bool) -> None:
    kernel = (np.random.default_rng(seed).normal(0, 1, (3, 3, 4, 2)) * 10.0**size).astype(np.float32)
    node = Node("conv", "DepthwiseConv2D" if depthwise else "Conv2D", {}, (kernel,), (), (1, 1, 1))
    wanted = quantize.rounded_kernel(node, quantize.kernel_scales(node))
    found = keras.ops.convert_to_numpy(rounded_kernel(kernel, (0, 1) if depthwise else (0, 1, 2)))
    np.testing.assert_array_equal(found, wanted)


def test_the_gradient_goes_straight_through_the_rounding() -> None:
    values = tf.constant([-9.0, -1.04, 0.26, 0.9, 9.0])
    grid = quantize.asymmetric(-2, 3)
    kernel = tf.constant(np.random.default_rng(0).normal(0, 1, (3, 3, 2, 4)), tf.float32)
    weights = tf.constant(np.random.default_rng(1).normal(0, 1, kernel.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([values, kernel])
        rounded = Rounded(grid.scale, *grid.limits)(values)
        total = tf.reduce_sum(3 * rounded) + tf.reduce_sum(weights * rounded_kernel(kernel, (0, 1, 2)))
    np.testing.assert_array_equal(rounded, grid.rounded(values.numpy()))
    by_values, by_kernel = tape.gradient(total, [values, kernel])
    np.testing.assert_array_equal(by_values, [0, 3, 3, 3, 0])
    np.testing.assert_array_equal(by_kernel, weights)


@pytest.mark.parametrize(
    "window",
    [{"strides": 2, "padding": "same", "use_bias": False}, {"dilation_rate": 2, "depth_multiplier": 2}],
)
def test_a_depthwise_layer_is_trained_as_it_is_simulated(window: dict[str, Any]) -> None:
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.DepthwiseConv2D(3, bias_initializer="normal", **window)(pixels)
    graph = fold(read(keras.Model(pixels, layers.Conv2D(4, 1)(x))))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    plan = make_plan(graph, images, "noise")
    trained, simulated = (
        infer(model, normalise(images))["logits"]
        for model in (rounding_network(graph, plan), simulate(graph, plan, "tflite"))
    )
    step = plan.output_steps(graph)["logits"]
    assert (np.abs(trained - simulated) < 0.01 * step).mean() > 0.99


def test_a_folded_network_is_read_as_it_was_written(network: keras.Model, tmp_path: Path) -> None:
    graph = fold(read(network))
    plain_network(graph).save(tmp_path / "plain.keras")
    again = fold(read(load_keras(tmp_path / "plain.keras")))
    assert {node.name for node in again.nodes} == {node.name for node in graph.nodes}


def test_layers_that_converters_want_otherwise_are_written_as_keras_knows_them(tmp_path: Path) -> None:
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="hard_silu")(pixels)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(layers.UpSampling2D(2)(x)))
    model = keras.Model(pixels, layers.Dense(5)(x))
    plain_network(fold(read(model))).save(tmp_path / "plain.keras")
    values = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)
    written = load_keras(tmp_path / "plain.keras")
    np.testing.assert_allclose(infer(written, values)["logits"], infer(model, values)["logits"], atol=1e-5)


def test_the_command_writes_a_model_and_a_plan_that_an_export_follows(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    lenet5(32, 32, 10).save(tmp_path / "start.keras")
    how = ("epochs=1", "learning_rate=0.02", "--qat", "--from", tmp_path / "start.keras", "--out", tmp_path)
    ended = command("train", "lenet_digits", *how)
    assert ended.code == 0, ended.err
    model, path = tmp_path / "lenet-digits-qat.keras", tmp_path / "lenet-digits-qat.plan.json"
    assert not list(tmp_path.glob("*.checkpoint.keras"))
    assert "--qat --from" in (read_card(model).command or "")
    only = ("--formats", "tflite", "--precisions", "int8", "--limit", "50", "--max-drop", "100")
    ended = command("export", model, "--data", "digits", "--out", tmp_path / "out", "--plan", path, *only)
    assert ended.code == 0, ended.err
    plan = Plan.read(path)
    assert plan.provenance.model_sha256 == graph_sha256(fold(read(load_keras(model))))
    assert plan.provenance.method == plan.method
    assert "quantization-aware training" in plan.method
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.calibration is not None
    assert "quantization-aware training" in manifest.calibration.method
    assert manifest.compared_with is not None
    assert manifest.compared_with.kind == "origin"
    assert "Compared with start.keras" in ended.out
    metrics = manifest.artefacts[0].metrics
    assert metrics is not None
    assert metrics.n == 50
    test = load("digits", "test", 32, 32)
    test = test.take(pick(test, 50), "")
    assert metrics.reference == keras_top1(load_keras(tmp_path / "start.keras"), test).per_cent


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--qat",), "--qat needs --from"),
        (("--qat", "--from", "none.keras"), "No model none.keras to start from"),
        (("--qat", "--from", "MODEL", "height=28"), "has pictures of (28, 32, 3)"),
        (("--qat", "--from", "MODEL", "--resume"), "Nothing to resume"),
    ],
)
def test_a_wrong_call_ends_in_one_message(
    options: tuple[str, ...], words: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    lenet5(32, 32, 10).save(tmp_path / "start.keras")
    given = [str(tmp_path / "start.keras") if word == "MODEL" else word for word in options]
    ended = command("train", "lenet_digits", *given, "--out", tmp_path / "out")
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1


def test_a_model_of_as_many_other_classes_is_refused(command: Callable[..., Any], tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    lenet5(32, 32, 10).save(start)
    about = {
        "name": "letters",
        "labels": list("abcdefghij"),
        "input": {"height": 32, "width": 32, "resize": "crop"},
    }
    card_path(start).write_text(json.dumps(about))
    ended = command("train", "lenet_digits", "--qat", "--from", start, "--out", tmp_path / "out")
    assert ended.code == 2
    assert "knows the classes a, b, c, …; digits/train has 0, 1, 2, …. --qat trains on" in ended.err
