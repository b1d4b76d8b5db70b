"""Sabotaged layers are found, and what is measured alone is what the simulations compute."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers
from plans import make_plan

from calibration.__main__ import main
from calibration.fold import fold, fused_relu
from calibration.graph import Graph, build, infer, read
from calibration.kinds import WEIGHTED
from calibration.sensitivity import layer_errors, layer_rows, sensitivity
from edge.bundle import Format
from edge.pixels import normalise
from train.data import load
from train.weights import load_keras

SEEDS = 20
MODELS = Path(__file__).parents[2] / "models"


def _network(seed: int) -> Graph:
    """Five convolutions with ReLU, drawn at random, and a head."""
    keras.utils.set_random_seed(seed)
    x = pixels = keras.Input((16, 16, 3), name="pixels")
    for index in range(5):
        x = layers.Conv2D(12, 3, padding="same", kernel_initializer="he_normal", name=f"conv{index}")(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return fold(read(keras.Model(pixels, layers.Dense(10, name="head")(x))))


def _pictures(seed: int) -> np.ndarray:
    blobs = np.random.default_rng(seed).integers(0, 256, (32, 4, 4, 3), dtype=np.uint8)
    return blobs.repeat(4, axis=1).repeat(4, axis=2)


def _sabotaged(graph: Graph, seed: int) -> tuple[Graph, set[str]]:
    """Two layers with the weights of one output channel times 10."""
    rng = np.random.default_rng(seed)
    names = [node.name for node in graph.nodes if node.kind in WEIGHTED]
    chosen = set(map(str, rng.choice(names, 2, replace=False)))
    nodes = []
    for node in graph.nodes:
        if node.name in chosen:
            kernel = node.weights[0].copy()
            kernel[..., rng.integers(kernel.shape[-1])] *= 10
            node = replace(node, weights=(kernel, *node.weights[1:]))
        nodes.append(node)
    return Graph(tuple(nodes), graph.outputs), chosen


def test_two_sabotaged_layers_of_a_trained_network_come_first() -> None:
    """Of four layers. A channel that is dead or weak can be sabotaged without harm to int8, so that untrained and
    deeper networks hide some: this test does not speak of them. The aim is 19; with digits in place of the
    network's own data it was 18 of 20 when this was written, and may not fall below."""
    trained, found = fold(read(load_keras(MODELS / "cifar10-convnetjs.keras"))), 0
    images = load("digits", "train", 32, 32).images[:64]
    for seed in range(SEEDS):
        graph, wanted = _sabotaged(trained, seed)
        errors = layer_errors(graph, make_plan(graph, images, "digits", "minmax"), images)
        found += {error.name for error in errors[:2]} == wanted
    assert found >= 18, f"found in {found} of {SEEDS}"


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_errors_are_sorted_and_gather(target: Format) -> None:
    graph, images = _network(0), _pictures(0)
    errors = layer_errors(graph, make_plan(graph, images, "blobs", "minmax"), images, target)
    assert [error.own_db for error in errors] == sorted(error.own_db for error in errors)
    by_name = {error.name: error for error in errors}
    assert by_name["conv0"].own_db == pytest.approx(by_name["conv0"].accumulated_db, abs=0.1)
    assert by_name["conv4"].accumulated_db < by_name["conv4"].own_db - 1
    assert all(20 < error.own_db < 70 for error in errors)


def test_a_network_without_weights_has_no_layer_that_hurts() -> None:
    pixels = keras.Input((8, 8, 3))
    graph, images = (
        fold(read(keras.Model(pixels, layers.GlobalAveragePooling2D()(pixels)))),
        np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3),
    )
    assert layer_rows(graph, make_plan(graph, images, "made"), images) == []


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_layer_alone_errs_less_than_all_others(target: Format) -> None:
    graph, images = _network(0), _pictures(0)
    found = sensitivity(graph, make_plan(graph, images, "blobs", "minmax"), images, target=target)
    assert {layer.name for layer in found} == {*(f"conv{i}" for i in range(5)), "head"}
    alone = [layer.alone_error for layer in found]
    assert alone == sorted(alone, reverse=True)
    assert min(alone) > 0
    assert sum(alone) < sum(layer.rest_error for layer in found)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_corrected_bias_is_part_of_int8_and_not_of_what_it_is_measured_against(target: Format) -> None:
    graph, images = _network(0), _pictures(0)
    plan = make_plan(graph, images, "blobs", "minmax")
    far = plan.model_copy(update={"bias_shifts": {target: {"head": (9.0,) * 10}}})
    first, *others = sensitivity(graph, far, images, target=target)
    assert first.name == "head"
    assert first.alone_error > 1
    assert max(layer.alone_error for layer in others) < 0.1
    assert first.rest_error == pytest.approx(
        next(
            layer.rest_error
            for layer in sensitivity(graph, plan, images, target=target)
            if layer.name == "head"
        )
    )


def test_a_layer_that_spoils_answers_loses_them_alone_and_wins_them_back_in_float() -> None:
    graph, images = _network(0), _pictures(0)
    named = infer(build(graph), normalise(images))["logits"].argmax(axis=1)
    rare = int(np.bincount(named, minlength=10).argmin())
    shift = tuple(9.0 * (label == rare) for label in range(10))
    plan = make_plan(graph, images, "blobs", "minmax")
    first, *others = sensitivity(
        graph, plan.model_copy(update={"bias_shifts": {"tflite": {"head": shift}}}), images
    )
    assert first.name == "head"
    assert min(first.drop, first.gain) > 50
    assert max(max(layer.drop, layer.gain) for layer in others) < 25


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_layer_alone_is_rounded_with_its_own_output(target: Format) -> None:
    graph, images = _network(0), _pictures(0)
    plan = make_plan(graph, images, "blobs", "minmax")
    relu = fused_relu(graph, graph["conv2"])
    assert relu is not None
    low, high = plan.ranges[relu.name]
    coarse = plan.model_copy(update={"ranges": {**plan.ranges, relu.name: (30 * low, 30 * high)}})
    first, second, *_ = sensitivity(graph, coarse, images, target)
    assert first.name == "conv2"
    assert first.alone_error > 10 * second.alone_error
    assert first.rest_error < 0.1 * first.alone_error


def test_the_command_writes_both_measures(tmp_path: Path) -> None:
    pixels = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(
        layers.Conv2D(4, 3, activation="relu", name="the_first_convolution_of_the_first_block")(pixels)
    )
    model, out = tmp_path / "model.keras", tmp_path / "layers.json"
    keras.Model(pixels, layers.Dense(10, name="head")(x)).save(model)
    options = ["--data", "digits", "--samples", "32", "--sensitivity", str(out)]
    done = CliRunner().invoke(main, [str(model), *options])
    assert done.exit_code == 0, done.output
    assert "…" not in done.output  # figures are not cut where the terminal is narrow, or none
    rows = json.loads(out.read_text())["layers"]
    assert {row["name"] for row in rows} == {"the_first_convolution_of_the_first_block", "head"}
    assert rows[0]["own_db"] <= rows[1]["own_db"]
    assert all(row["alone_error"] > 0 for row in rows)


def test_a_detector_is_not_watched_on_classes() -> None:
    done = CliRunner().invoke(main, ["models/face.keras", "--data", "digits"])
    assert done.exit_code == 2
    assert "models/face.keras is for faces, and digits holds classes." in " ".join(done.output.split())


def test_a_plan_takes_no_models_place(tmp_path: Path) -> None:
    model = tmp_path / "model.keras"
    model.write_bytes(b"weights")
    done = CliRunner().invoke(main, [str(model), "--data", "digits", "--out", str(model)])
    assert done.exit_code == 2
    assert model.read_bytes() == b"weights"
    assert "--out: " in done.output
