"""Training: one loop for every recipe, with checkpoints, on any Keras backend.

The same recipe on the same data gives the same weights, bit for bit, on the same machine with the
same number of threads, in one go or resumed: everything random is drawn from the recipe's seed. A teacher's
answers after a resumption are the exception, see `train.distil`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras

from edge.bundle import TaskName
from edge.interrupt import interrupt_noted
from train.card import DataCard, Origin
from train.checkpoint import State, load_checkpoint, save_checkpoint
from train.divergence import Alarm
from train.memory import memory_errors_told
from train.recipe import AnyRecipe

CHECKPOINT_INTERVAL_S = 120.0

Metrics = dict[str, float]


@dataclass(frozen=True)
class About:
    """What a model card says of a lesson.

    Attributes:
        task: what the network is for; labels: one name a class.
        data: what it was trained on; notes: what was mended there, in words.
        origin: the trained network that it began with, if any.
    """

    task: TaskName
    labels: tuple[str, ...]
    data: DataCard
    notes: tuple[str, ...] = ()
    origin: Origin | None = None


class Lesson(Protocol):
    """What is to be learnt: a recipe's network, data and measure. Everything but the loop itself.

    `RECIPE.lesson` names the class, which is made by its `of(recipe, data, out)`.

    Attributes:
        recipe: with `name`, `seed`, `epochs`, `learning_rate`, `input` and `as_dict()`.
        about: for the card.
        steps: batches an epoch.
    """

    recipe: AnyRecipe
    about: About
    steps: int

    def compiled(self) -> keras.Model:
        """A fresh network with optimiser and loss."""

    def batches(self, epoch: int, done: int) -> Iterator[tuple[Any, Any]]:
        """An epoch's batches of inputs and targets after the first `done`, the same ones every time."""

    def validate(self, model: keras.Model, epoch: int) -> Metrics:
        """What the network achieves on pictures held out, after `epoch` epochs; empty where not due."""

    def test(self, model: keras.Model) -> Metrics:
        """What the bare network achieves on the test split, for the card; called once, at the end."""

    def bare(self, model: keras.Model) -> keras.Model:
        """The trained network without what only training needs, which would treble the file."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: uncompiled, float32 (N, H, W, 3) in [-1, 127/128] to raw heads.
        metrics: of the last epoch: `loss`, what else the network reports of itself, and what
            `Lesson.validate` measured.
        seconds: of the whole training, the part before a `--resume` included.
        history: the metrics of every epoch, `epoch` among them, those before a `--resume` too.
    """

    model: keras.Model
    metrics: Metrics
    seconds: float
    history: tuple[Metrics, ...] = ()


class Watcher(Protocol):
    """Who is told how the training goes."""

    def step_done(self, step: int, metrics: Metrics) -> None:
        """After each batch: batches done in all, and the epoch's mean metrics so far."""

    def epoch_done(self, epoch: int, metrics: Metrics) -> None:
        """After each epoch, counted from 1."""


@dataclass
class _Run:
    """A training under way: `step` counts all batches done, `metrics` are this epoch's means."""

    lesson: Lesson
    model: keras.Model
    checkpoint: Path
    interval_s: float
    step: int = 0
    metrics: Metrics = field(default_factory=dict)
    alarm: Alarm = field(default_factory=Alarm)
    history: list[Metrics] = field(default_factory=list)
    seconds_before: float = 0.0
    begun_s: float = field(default_factory=time.monotonic)
    saved_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.begun_s

    def save_when_due(self) -> None:
        # Before the first batch there is nothing to keep, and of an optimiser without a step Keras loads nothing.
        if self.step and time.monotonic() - self.saved_s >= self.interval_s:
            self.save()

    def save(self) -> None:
        recipe, sha256 = self.lesson.recipe.as_dict(), self.lesson.about.data.sha256
        about = (self.metrics, self.seconds, self.alarm.first, tuple(self.history))
        state = State(recipe, sha256, self.step, *about)
        save_checkpoint(self.checkpoint, self.model, state)
        self.saved_s = time.monotonic()

    def resume(self) -> None:
        recipe, sha256 = self.lesson.recipe.as_dict(), self.lesson.about.data.sha256
        self.model, state = load_checkpoint(self.checkpoint, recipe, sha256)
        self.step, self.metrics, self.seconds_before = state.step, state.metrics, state.seconds
        self.alarm, self.history = Alarm(state.first_loss), list(state.history)


def fit(
    lesson: Lesson,
    checkpoint: Path,
    watcher: Watcher,
    resume: bool = False,
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
) -> Trained:
    """Train as the recipe says, leaving a checkpoint every `checkpoint_interval_s` seconds.

    Raises:
        InputError: the network cannot be built, or there is nothing to resume.
        CheckFailed: the loss is no longer a number, or three times what it was at the start.
    """
    keras.utils.set_random_seed(lesson.recipe.seed)
    run = _Run(lesson, lesson.compiled(), checkpoint, checkpoint_interval_s)
    if resume:
        run.resume()
    try:
        metrics = _train(run, watcher)
    except KeyboardInterrupt:  # Between two batches, or while validating: weights, step and history agree.
        if checkpoint.is_file():  # After the first minutes nothing is lost, before them nothing is left.
            run.save()
        raise
    return Trained(lesson.bare(run.model), metrics, run.seconds, tuple(run.history))


def cosine(recipe: AnyRecipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up to `learning_rate`, then half a cosine to zero at the last of `epochs * steps` batches."""
    warmup = max(1, round(recipe.warmup_epochs * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.learning_rate / warmup,
        decay_steps=max(1, recipe.epochs * steps - warmup),
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup,
    )


def _train(run: _Run, watcher: Watcher) -> Metrics:
    """The epochs that are not in the history yet; returns the last one's metrics."""
    metrics: Metrics = {}
    for epoch in range(len(run.history), run.lesson.recipe.epochs):
        _train_epoch(run, epoch, watcher)
        metrics = run.metrics | run.lesson.validate(run.model, epoch + 1)
        run.history.append({"epoch": epoch + 1} | metrics)
        watcher.epoch_done(epoch + 1, metrics)
    return metrics


def _train_epoch(run: _Run, epoch: int, watcher: Watcher) -> None:
    """The epoch's batches, from where a checkpoint broke it off; `run.metrics` end as its means.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; between two batches.
    """
    lesson = run.lesson
    done = run.step - epoch * lesson.steps
    with (
        interrupt_noted() as stopped,
        closing(lesson.batches(epoch, done)) as batches,
        closing(_one_ahead(batches)) as ready,
    ):
        for inputs, targets in ready:
            if stopped.is_set():
                break
            run.save_when_due()
            run.model.reset_metrics()  # Not every version of Keras starts anew with each batch.
            with memory_errors_told(len(inputs)):
                logs = run.model.train_on_batch(inputs, targets, return_dict=True)
            run.metrics = _means(run.metrics if done else {}, done, logs)
            run.step, done = run.step + 1, done + 1
            run.alarm.hear(float(logs["loss"]), epoch + 1, lesson.recipe, run.model, inputs)
            watcher.step_done(run.step, run.metrics)


def _one_ahead(batches: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The same batches, the next one made in a thread while the network learns from this one."""
    with ThreadPoolExecutor(1, "batches") as maker:
        upcoming = maker.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = maker.submit(next, batches, None)
            yield batch


def _means(before: Metrics, done: int, logs: dict[str, Any]) -> Metrics:
    """Means over `done` batches and one more."""
    return {name: (before.get(name, 0.0) * done + float(value)) / (done + 1) for name, value in logs.items()}
