"""`sightline train --from` from the outside: the card's provenance, an export, and one message for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edge.bundle import Bundle, InputSpec
from edge.files import sha256
from train.card import Card, DataCard, read_card, write_card
from train.models.imagenet import mobilenet_v2
from train.weights import load_keras

SIZE = 16
DIGITS = ("lenet_digits", f"height={SIZE}", f"width={SIZE}")


def network(size: int = SIZE) -> keras.Model:
    """Batch normalisation with statistics of its own, two sizes of map, five classes."""
    pixels = keras.Input((size, size, 3), name="pixels")
    x = pixels
    for index, (filters, strides) in enumerate(((6, 1), (10, 2)), start=1):
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(layers.BatchNormalization(name=f"norm{index}")(x))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="conv3")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(pixels, layers.Dense(5, name="logits")(x), name="small")


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """The network as `sightline train` would have left it."""
    keras.utils.set_random_seed(0)
    model, path = network(), tmp_path / "small.keras"
    rng = np.random.default_rng(0)
    for name in ("norm1", "norm2"):
        layer = model.get_layer(name)
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    model.save(path)
    spec = InputSpec(height=SIZE, width=SIZE, resize="crop")
    data = DataCard(source="made/train", n=100, sha256="0" * 64)
    write_card(
        Card(name="small", labels=tuple("abcde"), input=spec, terms="For research only.", data=data), path
    )
    return path


def test_the_card_says_where_the_network_comes_from_and_an_export_follows(
    start: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    ended = command("train", *DIGITS, "epochs=1", "--from", start, "--out", out)
    assert ended.code == 0, ended.err
    path = out / "lenet-digits-transfer.keras"
    assert sorted(out.iterdir()) == [path.with_suffix(".card.json"), path]
    card, model = read_card(path), load_keras(path)
    assert card.origin is not None
    assert (card.origin.model, card.origin.model_sha256) == ("small.keras", sha256(start))
    assert (card.origin.labels, card.origin.data) == (tuple("abcde"), read_card(start).data)
    assert card.origin.terms == card.terms == "For research only."
    assert card.origin.reason in ended.out
    assert f"Strategy {card.origin.strategy}" in ended.out
    assert card.recipe is not None
    assert card.recipe["strategy"] == card.origin.strategy
    assert card.labels == tuple("0123456789")
    assert f"--from {start}" in (card.command or "")
    assert not model.compiled or model.optimizer is None

    only = ("--formats", "tflite", "--precisions", "int8", "--limit", "50", "--max-drop", "100")
    bundle = tmp_path / "bundle"
    ended = command("export", path, "--data", "digits", "--out", bundle, *only)
    assert ended.code == 0, ended.err
    metrics = Bundle.open(bundle).manifest.artefacts[0].metrics
    assert metrics is not None
    assert metrics.n == 50


def test_a_network_without_a_card_will_do_and_a_strategy_may_be_chosen(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    keras.utils.set_random_seed(0)
    network().save(tmp_path / "bare.keras")
    how = (
        "epochs=1",
        "name=mine",
        "--from",
        tmp_path / "bare.keras",
        "--strategy",
        "linear",
        "--out",
        tmp_path,
    )
    ended = command("train", *DIGITS, *how)
    assert ended.code == 0, ended.err
    card = read_card(tmp_path / "mine.keras")
    assert card.origin is not None
    assert (card.origin.strategy, card.origin.cut, card.terms) == ("linear", "average", None)
    assert "--strategy linear" in (card.command or "")
    assert "As --strategy says" in ended.out
    assert "no card" in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("lenet_digits", "--from", "START"), "Add height=16 width=16"),
        ((*DIGITS, "--strategy", "linear"), "--strategy goes with --from"),
        ((*DIGITS, "--qat", "--from", "START", "--strategy", "linear"), "--strategy goes with --from"),
        ((*DIGITS, "--from", "none.keras"), "No model none.keras to start from"),
        ((*DIGITS, "--from", "START", "activation=elu"), "activation=… has no part"),
        ((*DIGITS, "--from", "START", "--resume"), "Nothing to resume"),
        (("face", "--from", "START", "--data", "DIR"), "trains classifiers"),
    ],
)
def test_a_wrong_call_ends_in_one_message(
    options: tuple[str, ...], words: str, start: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    given = [str(start) if word == "START" else word for word in options]
    ended = command("train", *given, "--out", tmp_path / "out")
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1


def _flat() -> keras.Model:
    pixels = keras.Input((SIZE, SIZE, 3))
    return keras.Model(pixels, layers.Dense(3)(layers.Flatten()(pixels)), name="flat")


def _one_size() -> keras.Model:
    pixels = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(pixels))
    return keras.Model(pixels, layers.Dense(3)(x), name="one_size")


def _detector() -> keras.Model:
    pixels = keras.Input((SIZE, SIZE, 3))
    return keras.Model(pixels, [layers.Conv2D(1, 1)(pixels), layers.Conv2D(4, 1)(pixels)], name="detector")


def _any_size() -> keras.Model:
    pixels = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(pixels))
    return keras.Model(pixels, layers.Dense(3)(x), name="any_size")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_flat, "nothing to start from"),
        (_one_size, "has no earlier stage"),
        (_detector, "starts from a classifier"),
        (_any_size, "Save it with a fixed input"),
    ],
)
def test_a_network_that_will_not_do_is_refused_in_one_message(
    make: Callable[[], keras.Model], words: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    make().save(tmp_path / "start.keras")
    ended = command("train", *DIGITS, "--from", tmp_path / "start.keras", "--out", tmp_path / "out")
    assert ended.code == 2
    assert words in ended.err
    assert len([line for line in ended.err.splitlines() if "no card" not in line]) == 1


def test_a_result_does_not_take_the_place_of_what_it_was_begun_from(
    start: Path, command: Callable[..., Any]
) -> None:
    before = sha256(start)
    ended = command("train", *DIGITS, "name=small", "--from", start, "--out", start.parent)
    assert (ended.code, f"would replace {start}" in " ".join(ended.err.split())) == (2, True), ended.err
    assert sha256(start) == before


def test_a_detector_is_told_by_its_card(start: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    write_card(read_card(start).model_copy(update={"task": "faces", "labels": ("face",)}), start)
    ended = command("train", *DIGITS, "--from", start, "--out", tmp_path / "out")
    assert ended.code == 2
    assert "is for faces" in ended.err


@pytest.mark.slow
def test_a_network_of_keras_applications_goes_the_whole_way(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    start = tmp_path / "mobilenet.keras"
    mobilenet_v2(64, 64, 1000).save(start)
    how = ("height=64", "width=64", "shift_px=0", "epochs=1", "batch_size=128", "--strategy", "finetune-few")
    ended = command("train", "lenet_digits", *how, "--from", start, "--out", tmp_path)
    assert ended.code == 0, ended.err
    path = tmp_path / "lenet-digits-transfer.keras"
    before, after = load_keras(start), load_keras(path)
    card = read_card(path)
    assert card.origin is not None
    assert card.origin.cut == "block_13_expand_relu"
    for layer in before.layers[: before.layers.index(before.get_layer(card.origin.cut)) + 1]:
        for wanted, found in zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(found, wanted)
    only = ("--formats", "tflite", "--precisions", "int8", "--limit", "20", "--max-drop", "100")
    ended = command("export", path, "--data", "digits", "--out", tmp_path / "bundle", *only)
    assert ended.code == 0, ended.err
