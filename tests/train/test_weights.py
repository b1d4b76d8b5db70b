"""Reading `.keras` files: what a classifier ends in, and what is no model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from calibration.fold import fold
from calibration.graph import read
from edge.bundle import InputSpec
from train.card import Card, write_card
from train.data import load
from train.weights import load_network, without_softmax

SHAPE = (8, 8, 3)


def body() -> tuple[Any, Any]:
    pixels = keras.Input(SHAPE)
    return pixels, layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(pixels))


def ended(*end: Any) -> keras.Model:
    pixels, x = body()
    for layer in end:
        x = layer(x)
    return keras.Model(pixels, x, name="mine")


def nested() -> keras.Model:
    pixels = keras.Input(SHAPE)
    return keras.Model(pixels, ended(layers.Dense(10, activation="softmax"))(pixels), name="mine")


ENDS: dict[str, Callable[[], keras.Model]] = {
    "activation": lambda: ended(layers.Dense(10, activation="softmax")),
    "layer": lambda: ended(layers.Dense(10), layers.Softmax()),
    "Activation": lambda: ended(layers.Dense(10), layers.Activation("softmax")),
    "operation": lambda: ended(layers.Dense(10), keras.ops.softmax),
    "Sequential": lambda: keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(10, activation="softmax")], name="mine"
    ),
    "linear in float32": lambda: ended(
        layers.Dense(10, activation="softmax"), layers.Activation("linear", dtype="float32")
    ),
    "Identity and Dropout": lambda: ended(
        layers.Dense(10), layers.Softmax(), layers.Dropout(0.1), layers.Identity()
    ),
    "nested": nested,
    "Sequential with a layer": lambda: keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(10), layers.Softmax()], name="mine"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_classifier_is_read_to_the_logits_before_its_softmax(end: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)  # Logits of another draw may add up to nearly 1.
    model = ENDS[end]()
    model.save(tmp_path / "mine.keras")
    network = load_network(tmp_path / "mine.keras")
    pictures = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    logits = keras.ops.convert_to_numpy(network(pictures))
    assert network.name == "mine"
    assert abs(logits.sum(axis=1) - 1).min() > 1e-3, "these are shares still"
    shares = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(shares, keras.ops.convert_to_numpy(model(pictures)), atol=1e-6)
    if end != "operation":  # Keras's operations have no int8 form
        assert "softmax" not in str([(node.kind, node.config) for node in fold(read(network)).nodes]).lower()


class Mine(layers.Layer):
    def call(self, values: Any) -> Any:
        return 2 * values


def cut(path: Path) -> None:
    ended(layers.Dense(10)).save(path)
    path.write_bytes(path.read_bytes()[:-100])


def saved(path: Path, what: Any) -> None:
    keras.saving.save_model(what, path)


def saved_model(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (cut, "it is damaged or cut short"),
        (lambda path: path.write_bytes(b""), "it is damaged or cut short"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n..."), "it is an HDF5 file; name it .h5"),
        (saved_model, "is a SavedModel of TensorFlow"),
        (lambda path: ended(Mine()).save(path), "it holds 'Mine', which is no part of Keras"),
        (lambda path: saved(path, layers.Dense(10)), "holds a Dense without a recorded graph"),
        (
            lambda path: saved(path, keras.Sequential([layers.Dense(10)])),
            "holds a Sequential without a recorded graph",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built:UserWarning")
def test_what_is_no_model_is_told_by_every_command(
    make: Callable[[Path], Any], words: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.keras"
    make(path)
    for said in (
        command("export", path, "--data", "digits", "--out", tmp_path / "out"),
        command("evaluate", path, "--data", "digits"),
    ):
        assert said.code == 2
        assert words in said.err
        assert len(said.err) < 400


def test_a_file_of_another_kind_is_refused_before_keras_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# No model\n")
    code = f"import sys, sightline\ntry: sightline.cli(['describe', {str(path)!r}], standalone_mode=False)"
    code += "\nexcept Exception as error: print(error, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "README.md is not a Keras model that can be loaded: expected a .keras file. False" in done.stdout


def test_an_older_kind_of_file_is_measured_too(command: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    ended(layers.Dense(10)).save(path)
    spec = InputSpec(height=8, width=8, resize="crop")
    write_card(Card(name="mine", labels=tuple("0123456789"), input=spec), path)
    said = command("evaluate", path, "--data", "digits", "--limit", 20)
    assert said.code == 0, said.err


def test_what_ends_in_no_softmax_stays_the_same() -> None:
    over_rows = ended(layers.Dense(12), layers.Reshape((4, 3)), layers.Softmax(axis=2))
    handed_on = ended(layers.Dense(10), layers.Identity())
    for model in (handed_on, ended(layers.Dense(10)), ended(layers.Dense(10, activation="sigmoid"))):
        assert without_softmax(model) is model
    assert without_softmax(over_rows).output_shape == (None, 4, 3)


def test_the_scores_of_an_exported_softmax_are_its_own(command: Callable[..., Any], tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = ENDS["Sequential"]()
    model.layers[-1].set_weights([8 * w for w in model.layers[-1].get_weights()])
    path, bundle = tmp_path / "mine.keras", tmp_path / "mine"
    model.save(path)
    spec = InputSpec(height=8, width=8, resize="crop")
    write_card(Card(name="mine", labels=tuple("0123456789"), input=spec), path)
    options = ("--data", "digits", "--formats", "tflite", "--precisions", "fp32", "--limit", 20)
    made = command("export", path, "--out", bundle, *options)
    assert made.code == 0, made.err
    assert "ends in a softmax: the bundle gives the logits before it" in made.out
    digit = load("digits", "test", 8, 8).images[0]
    cv2.imwrite(str(tmp_path / "digit.png"), digit[..., ::-1])
    wanted = keras.ops.convert_to_numpy(model((digit[None].astype(np.float32) - 128) / 128))[0]
    assert command("predict", bundle, tmp_path / "digit.png", "--jsonl", tmp_path / "out.jsonl").code == 0
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    np.testing.assert_allclose(json.loads(line)["scores"], wanted, atol=2e-6)
