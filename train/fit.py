"""Training: one loop for every recipe, with checkpoints, on any Keras backend.

The same recipe on the same data gives the same weights, bit for bit, on the same machine with the
same number of threads, in one go or resumed: everything random is drawn from the recipe's seed.
"""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from edge.errors import CheckFailed, InputError
from train.augment import batches, steps_per_epoch
from train.checkpoint import State, load_checkpoint, save_checkpoint
from train.data import LabelledImages, pick
from train.evaluate import keras_top1
from train.recipe import Recipe

CHECKPOINT_INTERVAL_S = 120.0

Metrics = dict[str, float]


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: uncompiled, float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes).
        metrics: of the last epoch: `loss`, `accuracy` (0 to 1, on augmented images) and, where
            images were held out, `validation_top1` in per cent.
        seconds: of the whole training, the part before a `--resume` included.
    """

    model: keras.Model
    metrics: Metrics
    seconds: float


class Watcher(Protocol):
    """Who is told how the training goes."""

    def step_done(self, step: int, metrics: Metrics) -> None:
        """After each batch: batches done in all, and the epoch's mean metrics so far."""

    def epoch_done(self, epoch: int, metrics: Metrics) -> None:
        """After each epoch, counted from 1."""


@dataclass
class _Run:
    """A training under way: `step` counts all batches done, `metrics` are this epoch's means."""

    recipe: Recipe
    data: LabelledImages
    model: keras.Model
    checkpoint: Path
    interval_s: float
    step: int = 0
    metrics: Metrics = field(default_factory=dict)
    seconds_before: float = 0.0
    begun_s: float = field(default_factory=time.monotonic)
    saved_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.data_sha256 = self.data.sha256()

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.begun_s

    def save_when_due(self) -> None:
        if time.monotonic() - self.saved_s < self.interval_s:
            return
        state = State(self.recipe.as_dict(), self.data_sha256, self.step, self.metrics, self.seconds)
        save_checkpoint(self.checkpoint, self.model, state)
        self.saved_s = time.monotonic()

    def resume(self) -> None:
        self.model, state = load_checkpoint(self.checkpoint, self.recipe.as_dict(), self.data_sha256)
        self.step, self.metrics, self.seconds_before = state.step, state.metrics, state.seconds


def fit(
    recipe: Recipe,
    data: LabelledImages,
    held_out: LabelledImages | None,
    checkpoint: Path,
    watcher: Watcher,
    resume: bool = False,
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
) -> Trained:
    """Train as the recipe says, leaving a checkpoint every `checkpoint_interval_s` seconds.

    Raises:
        InputError: the network cannot be built, or there is nothing to resume.
        CheckFailed: the loss is no longer a number.
    """
    keras.utils.set_random_seed(recipe.seed)
    run = _Run(recipe, data, _compiled(recipe, data), checkpoint, checkpoint_interval_s)
    if resume:
        run.resume()
    metrics: Metrics = {}
    for epoch in range(run.step // steps_per_epoch(data, recipe), recipe.epochs):
        _train_epoch(run, epoch, watcher)
        metrics = dict(run.metrics)
        if held_out is not None:
            metrics["validation_top1"] = keras_top1(run.model, held_out).per_cent
        watcher.epoch_done(epoch + 1, metrics)
    return Trained(_inference_copy(run), metrics, run.seconds)


def training_split(images: LabelledImages, recipe: Recipe) -> tuple[LabelledImages, LabelledImages | None]:
    """The images to train on, and those held out for validation (None where the recipe holds none)."""
    if recipe.hold_out == 0:
        return images, None
    if recipe.hold_out >= len(images):
        raise InputError(f"hold_out={recipe.hold_out} leaves nothing of {len(images)} images to train on.")
    aside = pick(images, recipe.hold_out)
    rest = np.setdiff1d(np.arange(len(images)), aside)
    return images.take(rest, f" without {recipe.hold_out}"), images.take(aside, " held out")


def build(recipe: Recipe, classes: int) -> keras.Model:
    """The recipe's architecture with fresh weights.

    Raises:
        InputError: there is no such architecture, or it does not suit the input's size.
    """
    module, _, function = recipe.model.partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The recipe's model '{recipe.model}' cannot be imported ({error}). "
            "Expected module:function, such as train.models.lenet:lenet5."
        ) from error
    try:
        model = make(recipe.height, recipe.width, classes)
    except ValueError as error:
        size = f"{recipe.height}x{recipe.width}"
        raise InputError(f"{recipe.model} cannot be built for pictures of {size}: {error}") from error
    if tuple(model.output_shape) != (None, classes):
        raise InputError(f"{recipe.model} gives {model.output_shape}, expected logits (None, {classes}).")
    return model


def _train_epoch(run: _Run, epoch: int, watcher: Watcher) -> None:
    """The epoch's batches, from where a checkpoint broke it off; `run.metrics` end as its means."""
    done = run.step - epoch * steps_per_epoch(run.data, run.recipe)
    for images, labels in islice(batches(run.data, run.recipe, epoch), done, None):
        run.save_when_due()
        targets = keras.utils.to_categorical(labels, len(run.data.class_names))
        run.model.reset_metrics()  # Not every version of Keras starts anew with each batch.
        logs = run.model.train_on_batch(images, targets, return_dict=True)
        run.metrics = _means(run.metrics if done else {}, done, logs)
        run.step, done = run.step + 1, done + 1
        if not math.isfinite(run.metrics["loss"]):
            raise CheckFailed(
                f"The loss became {run.metrics['loss']} in epoch {epoch + 1}: the training diverged. "
                f"Lower learning_rate, which is {run.recipe.learning_rate}."
            )
        watcher.step_done(run.step, run.metrics)


def _means(before: Metrics, done: int, logs: dict[str, Any]) -> Metrics:
    """Means over `done` batches and one more."""
    return {name: (before.get(name, 0.0) * done + float(value)) / (done + 1) for name, value in logs.items()}


def _compiled(recipe: Recipe, data: LabelledImages) -> keras.Model:
    model = build(recipe, len(data.class_names))
    steps = steps_per_epoch(data, recipe)
    warmup = max(1, round(recipe.warmup_epochs * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.learning_rate / warmup,
        decay_steps=max(1, recipe.epochs * steps - warmup),
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup,
    )
    optimiser = keras.optimizers.SGD(
        rate, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay or None
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    # XLA halves the speed of these networks on a CPU: 2,700 against 5,700 images/s for ConvNetJS.
    model.compile(optimiser, loss, metrics=["accuracy"], jit_compile=keras.backend.backend() == "jax")
    return model


def _inference_copy(run: _Run) -> keras.Model:
    """The same network without optimiser and loss, which would treble the file."""
    copy = build(run.recipe, len(run.data.class_names))
    copy.set_weights(run.model.get_weights())
    return copy
