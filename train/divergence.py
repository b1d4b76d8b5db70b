"""When a training has gone wrong for good, and why, told while hours are still to be saved."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from edge.errors import CheckFailed
from train.recipe import AnyRecipe

TIMES = 3.0
"""The loss may be so many times what it was at the start."""

LEAST = 1.0
"""A training that goes on from good weights may start near zero: its start counts as this much."""

SHARE = 0.1
"""Of a new batch's loss in the mean that is compared: a single hard batch is no divergence."""


class Alarm:
    """Hears each batch's loss. `first` is the very first one, None until it is known."""

    def __init__(self, first: float | None = None) -> None:
        self.first = first
        self._mean: float | None = None

    def hear(self, loss: float, epoch: int, recipe: AnyRecipe, model: keras.Model, inputs: Any) -> None:
        """Take one batch's loss, of `inputs` in `epoch`, counted from 1.

        Raises:
            CheckFailed: it is not a number, or the losses' running mean has passed three times the first, or
                `TIMES` where that was below `LEAST`.
        """
        # That of a resumed training begins at its start's loss.
        before = self.first if self._mean is None else self._mean
        self._mean = loss if before is None else before + SHARE * (loss - before)
        if not math.isfinite(loss):
            cause = _cause(recipe, model, inputs, at_once=self.first is None)
            raise CheckFailed(f"The loss became {loss} in epoch {epoch}: the training diverged. {cause}")
        if self.first is None:
            self.first = loss
        limit = TIMES * max(self.first, LEAST)
        if self._mean > limit:
            raise CheckFailed(
                f"The loss rose to {self._mean:.3g} in epoch {epoch}, from {self.first:.3g} at the start: the training "
                f"diverged. {_cause(recipe, model, inputs, at_once=False)}"
            )


def _cause(recipe: AnyRecipe, model: keras.Model, inputs: Any, at_once: bool) -> str:
    """The likely cause, and what to change."""
    if not np.isfinite(np.asarray(inputs)).all():
        return "The batch's pictures hold NaN or infinity: look at the data and its augmentation."
    if at_once:
        return (
            "It was no number in the very first batch: the loss or a layer divides by zero or takes a "
            f"logarithm of it. `sightline sanity` shows {model.name} layer by layer."
        )
    warmup = "" if recipe.warmup_epochs else " There is no warm-up either; warmup_epochs=1 gives one."
    return (
        f"Most likely its steps are too large: lower learning_rate, which is {recipe.learning_rate}.{warmup}"
    )
