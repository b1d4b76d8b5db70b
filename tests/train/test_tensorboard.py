"""The logs for TensorBoard, read back with TensorFlow's own reader, and the history of a resumed training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from train.card import read_card
from train.classifier import ClassifierLesson
from train.data import LabelledImages, load
from train.fit import fit
from train.recipe import load_recipe

Logs = dict[tuple[str, int], float]


class Stopping:
    """A watcher that raises at step `stop`, as a kill would."""

    def __init__(self, stop: int | None = None) -> None:
        self._stop = stop

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        if step == self._stop:
            raise KeyboardInterrupt

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        """Nothing to do."""


def logged(folder: Path) -> tuple[Logs, set[str]]:
    """Every scalar by tag and step, and the plugins that TensorBoard would show them with."""
    values: Logs = {}
    plugins = set()
    for path in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                values[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
                plugins.add(value.metadata.plugin_data.plugin_name)
    return values, plugins


def test_the_log_holds_what_the_card_holds(tmp_path: Path, command: Callable[..., Any]) -> None:
    more = ("epochs=5", "hold_out=100", "--out", tmp_path / "out", "--tensorboard", tmp_path / "logs")
    ended = command("train", "lenet_digits", *more)
    assert ended.code == 0
    history = read_card(tmp_path / "out" / "lenet-digits.keras").history
    assert history is not None
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4, 5]
    names = {"loss": "train/loss", "accuracy": "train/accuracy", "validation_top1": "validation/top1"}
    values, plugins = logged(tmp_path / "logs" / "lenet-digits")
    expected = {(tag, i + 1): epoch[name] for i, epoch in enumerate(history) for name, tag in names.items()}
    assert values == pytest.approx(expected, abs=1e-4)
    assert plugins == {"scalars"}
    assert "\ncurves      " in ended.out


def test_a_folder_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "file").touch()
    ended = command("train", "lenet_digits", "--out", tmp_path, "--tensorboard", tmp_path / "file" / "logs")
    assert ended.code == 2
    assert "another with --tensorboard" in ended.err
    (tmp_path / "lenet-digits").write_text("a file of the training's own name")
    ended = command("train", "lenet_digits", "--out", tmp_path, "--tensorboard", tmp_path)
    assert "another with --tensorboard" in ended.err


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    digits = load("digits", "train", 32, 32)
    return digits.take(np.arange(320), " 320")


@pytest.mark.parametrize("stop", [5, 20, 21, 29])
def test_a_resumed_training_has_the_history_of_an_unbroken_one(
    stop: int, digits: LabelledImages, tmp_path: Path
) -> None:
    """10 batches an epoch: broken off in the first, at the end of the second, after it, in the last."""
    lesson = ClassifierLesson(replace(load_recipe("lenet_digits"), epochs=3), digits, None)
    assert lesson.steps == 10
    whole = fit(lesson, tmp_path / "whole.keras", Stopping())
    checkpoint = tmp_path / "x.keras"
    with pytest.raises(KeyboardInterrupt):
        fit(lesson, checkpoint, Stopping(stop), checkpoint_interval_s=0)
    resumed = fit(lesson, checkpoint, Stopping(), resume=True)
    assert resumed.history == whole.history
    assert [epoch["epoch"] for epoch in resumed.history] == [1, 2, 3]
    assert resumed.history[-1] == {"epoch": 3} | resumed.metrics
