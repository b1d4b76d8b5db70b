"""Optimisers and learning rates by name; all of Keras, but for the warm-up before any schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from train.fit import cosine
from train.optimiser import RatedSGD
from train.recipe import Recipe

STEPS = (0.5, 0.75)
"""Where `step` divides by ten, as parts of the training (He et al. 2015, arXiv 1512.03385: of 64,000 steps)."""

LAST = 0.01
"""What `exponential` ends at, as a part of the peak."""

ONE_CYCLE_RISE, ONE_CYCLE_FIRST = 0.3, 1 / 25
"""The part of the training for which it rises, and from what part of the peak."""


def optimiser(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """What changes the weights, for `steps` batches an epoch."""
    return _OPTIMISERS[recipe.optimiser](recipe, learning_rate(recipe, steps))


def regularised(recipe: Recipe) -> float:
    """How much L2 the network itself must carry: SGD here adds it to the gradient by itself."""
    return 0.0 if recipe.optimiser == "sgd" else recipe.l2


def _sgd(recipe: Recipe, rate: LearningRateSchedule) -> keras.optimizers.Optimizer:
    return RatedSGD(
        rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay or None,
        l2=recipe.l2,
        rates={"beta": recipe.norm_bias_rate, "logits/kernel": recipe.head_rate},
    )


def _adam(recipe: Recipe, rate: LearningRateSchedule) -> keras.optimizers.Optimizer:
    """Kingma and Ba 2014, arXiv 1412.6980; `momentum` is its first beta."""
    return keras.optimizers.Adam(rate, beta_1=recipe.momentum, weight_decay=recipe.weight_decay or None)


def _adadelta(recipe: Recipe, rate: LearningRateSchedule) -> keras.optimizers.Optimizer:
    """Zeiler 2012, arXiv 1212.5701, who has a learning rate of 1."""
    return keras.optimizers.Adadelta(rate, weight_decay=recipe.weight_decay or None)


_OPTIMISERS: dict[str, Callable[[Recipe, LearningRateSchedule], keras.optimizers.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adadelta": _adadelta,
}


def learning_rate(recipe: Recipe, steps: int) -> LearningRateSchedule:
    """The rate of each batch: a linear rise over `warmup_epochs`, then the recipe's schedule."""
    if recipe.schedule == "cosine":
        return cosine(recipe, steps)
    total = recipe.epochs * steps
    if recipe.schedule == "one_cycle":
        return _one_cycle(recipe.learning_rate, total)
    warmup = min(round(recipe.warmup_epochs * steps), total - 1)
    after = _SCHEDULES[recipe.schedule](recipe.learning_rate, total - warmup)
    return WarmUp(after, recipe.learning_rate, warmup) if warmup else after


def _one_cycle(peak: float, total: int) -> LearningRateSchedule:
    """Smith and Topin 2017, arXiv 1708.07120: one rise, one longer fall to zero; `warmup_epochs` has no part."""
    rise = max(1, round(ONE_CYCLE_RISE * total))
    return keras.optimizers.schedules.CosineDecay(
        peak * ONE_CYCLE_FIRST, max(1, total - rise), warmup_target=peak, warmup_steps=rise
    )


def _constant(peak: float, total: int) -> LearningRateSchedule:
    return keras.optimizers.schedules.PolynomialDecay(peak, total, end_learning_rate=peak)


def _step(peak: float, total: int) -> LearningRateSchedule:
    boundaries = [max(1, round(part * total)) for part in STEPS]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [peak, peak / 10, peak / 100])


def _linear(peak: float, total: int) -> LearningRateSchedule:
    return keras.optimizers.schedules.PolynomialDecay(peak, total, end_learning_rate=0.0)


def _exponential(peak: float, total: int) -> LearningRateSchedule:
    return keras.optimizers.schedules.ExponentialDecay(peak, total, LAST)


_SCHEDULES: dict[str, Callable[[float, int], LearningRateSchedule]] = {
    "constant": _constant,
    "step": _step,
    "linear": _linear,
    "exponential": _exponential,
}


@keras.saving.register_keras_serializable("sightline")
class WarmUp(LearningRateSchedule):
    """A linear rise to `peak` over `steps` batches, then another schedule from its beginning.

    Registered, so that a checkpoint holds it.
    """

    def __init__(self, after: Any, peak: float, steps: int) -> None:
        self.after = (
            after if isinstance(after, LearningRateSchedule) else keras.saving.deserialize_keras_object(after)
        )
        self.peak, self.steps = peak, steps

    def __call__(self, step: Any) -> Any:
        """The rate at batch `step`, counted from 0."""
        step = ops.cast(step, "float32")
        rising = self.peak * (step + 1) / (self.steps + 1)
        return ops.where(step < self.steps, rising, self.after(ops.maximum(step - self.steps, 0)))

    def get_config(self) -> dict[str, Any]:
        """For the checkpoint."""
        after = keras.saving.serialize_keras_object(self.after)
        return {"after": after, "peak": self.peak, "steps": self.steps}
