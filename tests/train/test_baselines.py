"""Five kinds of classifier against data whose answer is known, and what the command prints and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import InputError
from train.baselines import (
    KINDS,
    compare,
    feature_rows,
    held_out,
    pixel_rows,
    without_last_layer,
)
from train.card import card_path
from train.data import LabelledImages, load, pick

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def blobs(seed: int, n: int = 200, distance: float = 4.0) -> Labelled:
    """Two round clouds in the plane, `distance` standard deviations apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    centres = np.stack([labels * distance, np.zeros(n)], axis=1)
    return (centres + rng.normal(size=(n, 2))).astype(np.float32), labels


def rings(seed: int, n: int = 300) -> Labelled:
    """A disc within a ring: both classes have the same mean, and no line parts them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    angle, radius = rng.uniform(0, 2 * np.pi, n), 1 + 2 * labels + rng.normal(0, 0.2, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32), labels


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_parts_two_clouds_as_well_as_can_be(name: str) -> None:
    """Bayes' error of two unit Gaussians four apart is 2.3 %."""
    result = compare(name, blobs(0), blobs(1, 1000), np.arange(0, 200, 5))
    assert 95 < result.top1.per_cent < 99
    assert result.top1.n == 1000
    assert (result.fit_s > 0, result.predict_s > 0) == (True, True)


@pytest.mark.parametrize(("name", "parts"), [
    ("exemplar", True), ("prototype", False), ("linear", False), ("non-linear", True), ("generative", True),
])  # fmt: skip
def test_only_curved_borders_part_a_disc_from_its_ring(name: str, parts: bool) -> None:
    right = compare(name, rings(0), rings(1), np.arange(0, 300, 5)).top1.per_cent
    assert right > 95 if parts else 35 < right < 65


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_columns_that_say_nothing_new_do_not_lead_the_gaussians_astray(seed: int) -> None:
    """A network's features are often fewer than their number: constant ones, and sums of others."""
    mixed = np.random.default_rng(5).normal(size=(2, 30))

    def widened(data: Labelled) -> Labelled:
        return np.concatenate([data[0], data[0] @ mixed, 0 * data[0]], axis=1).astype(np.float32), data[1]

    plain, test = blobs(seed, 20, distance=8.0), blobs(seed + 1, 1000, distance=8.0)
    assert compare("generative", widened(plain), widened(test), np.arange(0, 20, 5)).top1.per_cent > 99.5


@pytest.mark.parametrize("upside_down", [False, True])
def test_the_knob_is_chosen_on_the_images_held_out_and_not_on_the_test(upside_down: bool) -> None:
    """Where a quarter of the labels is wrong one neighbour is no judge, and it is where classes alternate."""
    (rows, labels), test = blobs(0, 400), blobs(1)
    noisy = np.where(np.random.default_rng(7).random(400) < 0.25, 1 - labels, labels)
    asked = (test[0], 1 - test[1] if upside_down else test[1])
    judged = compare("exemplar", (rows, noisy), asked, np.arange(0, 400, 5))
    assert judged.chosen not in ("", "k = 1")
    place = np.arange(400) // 4  # Four images each, three of them to learn from.
    alternating = place[:, None].astype(np.float32), place % 2
    nearest = compare("exemplar", alternating, (asked[0][:, :1], asked[1]), np.arange(1, 400, 4))
    assert (nearest.chosen, nearest.edge) == ("k = 1", False)  # there is no k below


def test_the_chosen_one_learns_from_the_images_held_out_too() -> None:
    rows = np.array([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0]], np.float32)
    labels = np.array([0, 0, 1, 1, 0, 0])
    result = compare(
        "exemplar", (np.repeat(rows, 5, axis=0), np.repeat(labels, 5)), (rows, labels), np.arange(20, 30)
    )
    assert result.top1.right == 6  # Without the rows held out, those at 20 would be called 1.


def test_a_fifth_is_held_out_of_every_class_and_few_images_are_refused() -> None:
    data = load("digits", "train", 8, 8)
    counts = np.bincount(data.labels[held_out(data)], minlength=10)
    assert counts.sum() == len(data) // 5
    assert np.abs(counts - np.bincount(data.labels) / 5).max() <= 1
    rare = data.take(
        np.concatenate([np.flatnonzero(data.labels == 1), np.flatnonzero(data.labels == 0)[:12]]), ""
    )
    rare = LabelledImages(rare.images, rare.labels, ("0", "1"), "made")
    assert 1 <= (rare.labels[held_out(rare)] == 0).sum() <= 4
    few = data.take(pick(data, 60), "")
    with pytest.raises(InputError, match=r"has 6 images of .*at least 10 of each class.*--limit"):
        held_out(few)


def small_network() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
            keras.layers.Softmax(),
        ]
    )


def test_features_are_what_the_last_layer_sees() -> None:
    import keras

    data, model = load("digits", "train", 8, 8), small_network()
    features = feature_rows(without_last_layer(model), data)
    assert features.shape == (1437, 36)
    assert features.dtype == np.float32
    kernel, bias = model.layers[2].get_weights()
    pixels = pixel_rows(data).reshape(-1, 8, 8, 3)
    expected = keras.ops.convert_to_numpy(model(pixels[:9]))
    answers = keras.ops.convert_to_numpy(keras.ops.softmax(features[:9] @ kernel + bias))
    assert answers == pytest.approx(expected, abs=1e-5)


def test_a_network_without_weights_is_refused() -> None:
    import keras

    with pytest.raises(InputError, match="no last layer with weights"):
        without_last_layer(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]))


def test_pixels_are_normalised_rows() -> None:
    images = np.full((2, 4, 5, 3), 192, np.uint8)
    rows = pixel_rows(LabelledImages(images, np.array([0, 1]), ("a", "b"), "made"))
    assert rows.shape == (2, 60)
    assert (rows == 0.5).all()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for digits, with its card."""
    path = tmp_path_factory.mktemp("network") / "small.keras"
    small_network().save(path)
    card = {
        "name": "small [/x]",  # No style to rich.
        "labels": list("0123456789"),
        "input": {"height": 8, "width": 8, "resize": "crop"},
    }
    card_path(path).write_text(json.dumps(card))
    return path


def test_the_command_shows_five_kinds_on_pixels_and_on_features(
    network: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "b.json"
    ended = command("baselines", "--data", "digits", "--features", network, "--limit", "120", "--json", out)
    assert ended.code == 0, ended.err
    found = json.loads(out.read_text())
    assert found["n_train"] == 120
    assert [(row["on"], row["dimensions"], row["kind"]) for row in found["results"]] == [
        *(("pixels", 3072, kind) for kind in KINDS),
        *(("small [/x]", 36, kind) for kind in KINDS),
    ]
    for row in found["results"]:
        assert row["n"] == 360
        assert row["value"] > 50  # Even an untrained network keeps much of a digit.
        low, high = row["ci95"]
        assert f"{row['value']:.2f}   {low:.2f} to {high:.2f}" in ended.out
    assert len(re.findall(r"^  small \[/x\], 36 ", ended.out, re.M)) == 5
    assert "120 training images, 360 test images" in ended.out


def test_what_is_left_out_is_told_once_though_the_pictures_are_read_twice(
    network: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    for label in range(2):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for number in range(20):
            picture = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f"data/{label}/{number}.png"), picture)
    (tmp_path / "data/0/note.txt").touch()
    ended = command("baselines", "--data", tmp_path / "data", "--features", network)
    assert ended.code == 0, ended.err
    assert ended.err.count("data/train: left out 1 file named *.txt") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "nowhere"), "No data folder nowhere"),
        (("--data", "digits", "--features", "nowhere.keras"), "No model nowhere.keras"),
        (("--data", "digits", "--limit", "20"), "at least 10 of each class"),
    ],
)
def test_wrong_calls_end_with_2(options: tuple[str, ...], words: str, command: Callable[..., Any]) -> None:
    ended = command("baselines", *options)
    assert ended.code == 2
    assert words in ended.err
