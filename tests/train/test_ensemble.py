"""Several classifiers as one, against probabilities worked by hand and against the members' own figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.card import card_path
from train.ensemble import Member, joined

LABELS = list("0123456789")


def member(name: str, *rows: tuple[float, ...]) -> Member:
    return Member(name, np.array(rows, np.float32), np.array([0, 1, 1]))


def test_probabilities_are_averaged() -> None:
    sure = member("sure", (0.9, 0.1), (0.8, 0.2), (0.1, 0.9))
    unsure = member("unsure", (0.4, 0.6), (0.45, 0.55), (0.4, 0.6))
    together = joined([sure, unsure])
    assert together.probabilities == pytest.approx(np.array([[0.65, 0.35], [0.625, 0.375], [0.25, 0.75]]))
    assert [m.top1.right for m in (sure, unsure, together)] == [2, 2, 2]
    assert together.against(unsure) == (1, 1)
    assert together.against(sure) == (0, 0)


@given(st.integers(1, 30), st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_an_ensemble_is_a_classifier_whose_gains_add_up(n: int, classes: int, copies: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    members = [
        Member(str(i), rng.dirichlet(np.ones(classes), n).astype(np.float32), labels) for i in range(copies)
    ]
    together = joined(members)
    assert together.probabilities.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-5)
    gained, lost = together.against(members[0])
    assert together.top1.right == members[0].top1.right + gained - lost
    if copies == 1:
        assert (gained, lost) == (0, 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A linear map fitted to half of the digits' columns, and one fitted to the other half."""
    import keras

    from train.data import load

    data = load("digits", "train", 8, 8)
    pixels = (data.images.reshape(len(data), -1).astype(np.float32) - 128) / 128
    paths = []
    for half in range(2):
        seen = np.zeros((8, 8, 3), np.bool_)
        seen[:, half * 4 : half * 4 + 4, 0] = True
        used = np.c_[pixels * seen.ravel(), np.ones(len(pixels))]
        weights = np.linalg.lstsq(used, np.eye(10)[data.labels], rcond=1e-6)[0]
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
        model.set_weights([8 * weights[:-1], 8 * weights[-1]])
        paths.append(tmp_path_factory.mktemp("models") / f"half{half}.keras")
        model.save(paths[-1])
        size = {"height": 8, "width": 8, "resize": "crop"}
        card = {"name": f"half{half}", "labels": LABELS, "input": size}
        card_path(paths[-1]).write_text(json.dumps(card))
    return paths


def test_two_halves_know_more_than_each_and_members_are_measured_as_by_evaluate(
    models: list[Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "ensemble.json"
    ended = command("ensemble", *models, "--data", "digits", "--json", out)
    assert ended.code == 0, ended.err
    found = json.loads(out.read_text())
    for path, row in zip(models, found["members"], strict=True):
        assert command("evaluate", path, "--data", "digits", "--json", tmp_path / "one.json").code == 0
        assert row["value"] == json.loads((tmp_path / "one.json").read_text())["value"]
    assert found["value"] > max(row["value"] for row in found["members"]) + 3
    assert found["n"] == 360
    assert f"{found['value']:.2f}" in ended.out
    assert " put right, " in ended.out


def test_bundles_are_members_too(command: Callable[..., Any], tmp_path: Path) -> None:
    """The same network twice answers as once."""
    import cv2

    from edge.bundle import Bundle

    name, rng = "cifar10-convnetjs", np.random.default_rng(0)
    for label in Bundle.open(name).manifest.labels:
        (tmp_path / label).mkdir()
        for index in range(8):
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            cv2.imwrite(str(tmp_path / label / f"{index}.png"), picture)
    out = tmp_path / "e.json"
    ended = command("ensemble", name, name, "--data", tmp_path, "--split", "train", "--json", out)
    assert ended.code == 0, ended.err
    found = json.loads(out.read_text())
    assert {row["value"] for row in found["members"]} == {found["value"]}
    assert "images 0 put right, 0 wrong" in ended.out


def test_wrong_calls_end_with_2(models: list[Path], command: Callable[..., Any]) -> None:
    for arguments, words in (
        ((models[0],), "at least two members"),
        ((models[0], "nowhere.keras"), "nowhere.keras"),
        ((models[0], "face-320"), "face-320 is a model for faces"),
        ((models[0], "cifar10-convnetjs"), "disagree on class 0"),
    ):
        ended = command("ensemble", *arguments, "--data", "digits")
        assert ended.code == 2, arguments
        assert words in ended.err


def test_a_target_that_cannot_be_written_is_told_before_the_work(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.baselines_command.images_of", Mock(side_effect=AssertionError("work")))
    for words in (("ensemble", "cifar10-nano", "cifar10-nano"), ("baselines",)):
        ended = command(*words, "--data", "digits", "--json", tmp_path)
        assert (ended.code, "it is a folder" in ended.err) == (2, True), ended.err
