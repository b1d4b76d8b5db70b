"""The training loop: the same weights from the same seed, in one go or resumed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edge.errors import CheckFailed, InputError
from train.augment import steps_per_epoch
from train.card import weights_sha256
from train.classifier import ClassifierLesson, build, training_split
from train.data import LabelledImages, load
from train.evaluate import keras_top1
from train.fit import Trained, fit
from train.models.lenet import lenet5
from train.recipe import Recipe, load_recipe

RECIPE = replace(load_recipe("lenet_digits"), epochs=3, flip=True)


class Killed(BaseException):
    """Nothing that runs afterwards may save anything."""


class Recorder:
    """Remembers what it is told; at step `stop` it ends the training as a kill would."""

    def __init__(self, stop: int | None = None) -> None:
        self.steps: list[int] = []
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self._stop = stop

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)
        if step == self._stop:
            raise Killed

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        self.epochs.append((epoch, metrics))


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load("digits", "train", 32, 32)


@pytest.fixture(scope="module")
def unbroken(digits: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Recorder]:
    recorder = Recorder()
    path = tmp_path_factory.mktemp("unbroken") / "x.keras"
    return fit(ClassifierLesson(RECIPE, digits, None), path, recorder), recorder


def test_the_same_seed_gives_the_same_weights(
    digits: LabelledImages, unbroken: tuple[Trained, Recorder], tmp_path: Path
) -> None:
    again = fit(ClassifierLesson(RECIPE, digits, None), tmp_path / "x.keras", Recorder())
    assert weights_sha256(again.model) == weights_sha256(unbroken[0].model)
    other = fit(ClassifierLesson(replace(RECIPE, seed=1), digits, None), tmp_path / "x.keras", Recorder())
    assert weights_sha256(other.model) != weights_sha256(unbroken[0].model)


def test_ctrl_c_during_a_batch_waits_for_its_end(
    digits: LabelledImages, tmp_path: Path, interrupted: list[Any]
) -> None:
    recorder, before = Recorder(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(ClassifierLesson(RECIPE, digits, None), tmp_path / "x.keras", recorder)
    assert recorder.steps == [1]
    assert len(interrupted) == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("stop", [30, 44, 45, 131])
def test_a_resumed_training_gives_the_same_weights(
    stop: int, digits: LabelledImages, unbroken: tuple[Trained, Recorder], tmp_path: Path
) -> None:
    """44 batches an epoch: broken off within one, after its last, after its first, before the very last."""
    assert steps_per_epoch(digits, RECIPE) == 44
    checkpoint = tmp_path / "x.keras"
    with pytest.raises(Killed):
        fit(ClassifierLesson(RECIPE, digits, None), checkpoint, Recorder(stop), checkpoint_interval_s=0)
    recorder = Recorder()
    resumed = fit(ClassifierLesson(RECIPE, digits, None), checkpoint, recorder, resume=True)
    # The checkpoint was written before the step at which it was stopped.
    assert recorder.steps == list(range(stop, 3 * 44 + 1))
    for ours, theirs in zip(resumed.model.get_weights(), unbroken[0].model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert recorder.epochs == unbroken[1].epochs[-len(recorder.epochs) :]
    assert list(tmp_path.iterdir()) == [checkpoint]


class Interrupted(ClassifierLesson):
    """Ctrl-C in the last batch of the first epoch, or while it is validated, once."""

    def __init__(self, digits: LabelledImages, while_validating: bool) -> None:
        super().__init__(RECIPE, digits, None)
        self.while_validating, self.once = while_validating, True

    def batches(self, epoch: int, done: int) -> Iterator[tuple[Any, Any]]:
        yield from super().batches(epoch, done)
        self._press(not self.while_validating)

    def validate(self, model: keras.Model, epoch: int) -> dict[str, float]:
        self._press(self.while_validating)
        return super().validate(model, epoch)

    def _press(self, here: bool) -> None:
        if here and self.once:
            self.once = False
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("while_validating", [False, True])
def test_ctrl_c_at_the_end_of_an_epoch_loses_none_of_it(
    while_validating: bool,
    digits: LabelledImages,
    unbroken: tuple[Trained, Recorder],
    tmp_path: Path,
) -> None:
    lesson, checkpoint, first = Interrupted(digits, while_validating), tmp_path / "x.keras", Recorder()
    with pytest.raises(KeyboardInterrupt):
        fit(lesson, checkpoint, first, checkpoint_interval_s=0)
    assert (first.steps[-1], first.epochs) == (44, [])
    recorder = Recorder()
    resumed = fit(lesson, checkpoint, recorder, resume=True)
    assert recorder.steps == list(range(45, 3 * 44 + 1))
    assert recorder.epochs == unbroken[1].epochs
    assert resumed.history == unbroken[0].history
    assert weights_sha256(resumed.model) == weights_sha256(unbroken[0].model)


def test_dropout_and_adam_resume_to_the_same_weights(digits: LabelledImages, tmp_path: Path) -> None:
    """What is drawn at random in a layer, and what an optimiser remembers, are in the checkpoint too."""
    changes = {"dropout": 0.5, "optimiser": "adam", "learning_rate": 0.001, "schedule": "step", "l2": 0.001}
    recipe = replace(RECIPE, epochs=1, activation="elu", initialiser="lsuv", preprocess="whiten", **changes)
    few = digits.take(np.arange(320), " 320")
    whole = fit(ClassifierLesson(recipe, few, None), tmp_path / "x.keras", Recorder())
    checkpoint = tmp_path / "y.keras"
    with pytest.raises(Killed):
        fit(ClassifierLesson(recipe, few, None), checkpoint, Recorder(5), checkpoint_interval_s=0)
    resumed = fit(ClassifierLesson(recipe, few, None), checkpoint, Recorder(), resume=True)
    assert weights_sha256(resumed.model) == weights_sha256(whole.model)
    assert not any(isinstance(layer, layers.Dropout) for layer in whole.model.layers)


def test_a_training_whose_loss_climbs_is_stopped(digits: LabelledImages, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(CheckFailed, match="lower learning_rate, which is 3"):
        fit(
            ClassifierLesson(replace(RECIPE, learning_rate=3.0), digits, None), tmp_path / "x.keras", recorder
        )
    assert len(recorder.steps) < 100


class Broken(ClassifierLesson):
    """Its second batch cannot be made."""

    def batches(self, epoch: int, done: int) -> Iterator[tuple[Any, Any]]:
        yield next(super().batches(epoch, done))
        raise InputError("picture 7 is gone")


def test_what_goes_wrong_while_a_batch_is_made_ahead_ends_the_training(
    digits: LabelledImages, tmp_path: Path
) -> None:
    watcher = Recorder()
    with pytest.raises(InputError, match="picture 7 is gone"):
        fit(Broken(RECIPE, digits, None), tmp_path / "c.keras", watcher)
    assert watcher.steps == [1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_no_checkpoint_before_its_time(digits: LabelledImages, tmp_path: Path) -> None:
    fit(ClassifierLesson(replace(RECIPE, epochs=1), digits, None), tmp_path / "x.keras", Recorder())
    assert not list(tmp_path.iterdir())


def test_no_checkpoint_before_the_first_batch(digits: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(
            ClassifierLesson(RECIPE, digits, None), tmp_path / "x.keras", Recorder(1), checkpoint_interval_s=0
        )
    assert not list(tmp_path.iterdir())


def test_the_metrics_are_the_means_of_the_epoch(unbroken: tuple[Trained, Recorder]) -> None:
    trained, recorder = unbroken
    assert [epoch for epoch, _ in recorder.epochs] == [1, 2, 3]
    losses = [metrics["loss"] for _, metrics in recorder.epochs]
    assert losses[0] > losses[1] > losses[2] > 0
    # 44 batches of 32: a mean over the epoch is a multiple of 1/1408, that of one batch would be of 1/32.
    shares = [metrics["accuracy"] * 44 * 32 for _, metrics in recorder.epochs]
    assert shares == pytest.approx(np.rint(shares), abs=1e-3)
    assert any(round(share) % 44 for share in shares)
    assert trained.metrics == recorder.epochs[-1][1]


def test_images_held_out_are_measured_and_not_trained_on(digits: LabelledImages, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, hold_out=200)
    chosen, held_out = training_split(digits, recipe)
    assert held_out is not None
    assert (len(chosen), len(held_out)) == (1237, 200)
    parts = np.bincount(held_out.labels) / np.bincount(digits.labels)
    assert np.abs(parts - 200 / 1437).max() < 1 / 140
    together = np.concatenate([chosen.images, held_out.images])
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in digits.images)
    trained = fit(ClassifierLesson(recipe, chosen, held_out), tmp_path / "x.keras", Recorder())
    assert trained.metrics["validation_top1"] == keras_top1(trained.model, held_out).per_cent


def test_holding_out_everything_is_refused(digits: LabelledImages) -> None:
    with pytest.raises(InputError, match="leaves nothing of 1437"):
        training_split(digits, replace(RECIPE, hold_out=1437))


def test_a_diverging_training_is_stopped(digits: LabelledImages, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(CheckFailed, match="diverged"):
        fit(
            ClassifierLesson(replace(RECIPE, learning_rate=1e30), digits, None),
            tmp_path / "x.keras",
            recorder,
        )
    assert len(recorder.steps) < 44


def stopped(digits: LabelledImages, path: Path) -> None:
    with pytest.raises(Killed):
        fit(ClassifierLesson(RECIPE, digits, None), path, Recorder(2), checkpoint_interval_s=0)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 4}, {"learning_rate": 0.5}])
def test_a_checkpoint_of_another_recipe_is_refused(
    change: dict[str, Any], digits: LabelledImages, tmp_path: Path
) -> None:
    stopped(digits, tmp_path / "x.keras")
    with pytest.raises(InputError, match=f"another recipe: {next(iter(change))} was"):
        fit(
            ClassifierLesson(replace(RECIPE, **change), digits, None),
            tmp_path / "x.keras",
            Recorder(),
            resume=True,
        )


def test_a_checkpoint_of_other_images_is_refused(digits: LabelledImages, tmp_path: Path) -> None:
    stopped(digits, tmp_path / "x.keras")
    other = digits.take(np.arange(1, len(digits)), "")
    with pytest.raises(InputError, match="trained on other images"):
        fit(ClassifierLesson(RECIPE, other, None), tmp_path / "x.keras", Recorder(), resume=True)


def test_what_is_no_checkpoint_is_refused(digits: LabelledImages, tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with pytest.raises(InputError, match="Nothing to resume"):
        fit(ClassifierLesson(RECIPE, digits, None), path, Recorder(), resume=True)
    lenet5(32, 32, 10).save(path)
    with pytest.raises(InputError, match="no checkpoint of ours"):
        fit(ClassifierLesson(RECIPE, digits, None), path, Recorder(), resume=True)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="is damaged: remove it, and train anew"):
        fit(ClassifierLesson(RECIPE, digits, None), path, Recorder(), resume=True)


def with_softmax_over_rows(height: int, width: int, classes: int) -> keras.Model:
    """A network whose output is not one row of logits a picture."""
    pixels = keras.Input((height, width, 3))
    return keras.Model(pixels, layers.Dense(classes)(pixels))


@pytest.mark.parametrize(
    ("model", "height", "words"),
    [
        ("no.such.module:f", 32, "cannot be imported"),
        ("train.models.lenet:no_such", 32, "cannot be imported"),
        ("train.models.lenet", 32, "cannot be imported"),
        ("", 32, "cannot be imported"),
        ("train.models.lenet:lenet5", 5, "cannot be built for pictures of 5x32"),
        (f"{__name__}:with_softmax_over_rows", 32, "expected logits"),
    ],
)
def test_a_network_that_cannot_be_built(model: str, height: int, words: str, digits: LabelledImages) -> None:
    with pytest.raises(InputError, match=words):
        build(Recipe("own", model, "digits", epochs=1, height=height), 10, digits.images)
