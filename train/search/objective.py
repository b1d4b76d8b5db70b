"""What one trial does: train a recipe with the drawn values for a stage's epochs, and measure it on images held out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import keras
from rich.console import Console

from edge.console import open_console
from edge.errors import CheckFailed, DiskFailed, InputError
from edge.tables import resolve
from train.fit import About, Lesson, Metrics, Watcher, fit
from train.recipe import AnyRecipe, changed
from train.search.space import assignments
from train.search.study import Task, Trial
from train.watch import Watch

PART_HELD_OUT = 10
"""One training image in so many is held out, at least."""

METRICS = ("validation_top1", "validation_ap50")


class Searchable(Lesson, Protocol):
    """A lesson that can be given again with other values, on the same data."""

    def again(self, recipe: AnyRecipe) -> Searchable:
        """The same data under another recipe; where it holds out images and this one none, they are now held out."""


class Objective:
    """Trains trials of one recipe on data that is read once. The test split has no part in it.

    Args:
        recipe: with everything that is not searched.
        source: the data.
        hold_out: training images to hold out; None for a tenth, or what the recipe holds out if that is more.

    Raises:
        InputError: the data are wrong, or too few to hold any out.
    """

    def __init__(self, recipe: AnyRecipe, source: str, hold_out: int | None = None) -> None:
        first: Searchable = resolve(recipe.lesson).of(_holding(recipe, 0), source, Path())
        self.recipe = _holding(recipe, _aside(recipe, first.about, hold_out))
        self.lesson = first.again(self.recipe)

    @property
    def held_out(self) -> int | None:
        """How many training images judge the trials; None where the data have a val split for it."""
        return getattr(self.recipe, "hold_out", None)

    @property
    def about(self) -> About:
        """The data trained on."""
        return self.lesson.about

    def __call__(self, task: Task, checkpoint: Path, console: Console | None = None) -> Trial:
        """Run a trial to its end, from `checkpoint` where a killed one left it; shows itself on a terminal."""
        recipe, resume = self.trial_recipe(task), checkpoint.is_file()
        begun = time.monotonic()
        keras.utils.clear_session()
        try:
            lesson = self.lesson.again(recipe)
            with Watch(recipe, lesson.steps, console or open_console(quiet=True)) as watch:
                watcher: Watcher = watch if console and console.is_terminal else _Silent()
                trained = fit(lesson, checkpoint, watcher, resume)
        except CheckFailed as error:
            return _ended(task, "cut", begun, why=str(error))
        except DiskFailed:  # No fault of the trial's: it is run anew when there is room.
            raise
        except InputError as error:
            if resume:  # Left by another version, perhaps. The trial itself may be sound.
                checkpoint.unlink()
                return self(task, checkpoint, console)
            return _ended(task, "failed", begun, why=str(error))
        metric = next(name for name in METRICS if name in trained.metrics)
        measured = {"metric": metric, "validation": trained.metrics[metric], "loss": trained.metrics["loss"]}
        about = measured | {"history": trained.history}
        return replace(_ended(task, "done", begun, **about), seconds=round(trained.seconds, 2))

    def trial_recipe(self, task: Task) -> AnyRecipe:
        """The recipe of a trial; the warm-up takes the same part of the stage's epochs as of the recipe's."""
        drawn = changed(self.recipe, assignments(task.values))
        warmup = drawn.warmup_epochs * task.epochs / self.recipe.epochs
        return replace(drawn, epochs=task.epochs, warmup_epochs=warmup)  # type: ignore[type-var]


class _Silent:
    def step_done(self, step: int, metrics: Metrics) -> None: ...

    def epoch_done(self, epoch: int, metrics: Metrics) -> None: ...


def _ended(task: Task, ending: Any, begun: float, **more: Any) -> Trial:
    known = {"validation": None, "loss": None, "seconds": round(time.monotonic() - begun, 2)} | more
    return Trial(task.name, task.stage, task.values, task.epochs, ending, **known)


def _holding(recipe: AnyRecipe, count: int) -> AnyRecipe:
    """A detector's data have a val split of their own."""
    return replace(recipe, hold_out=count) if hasattr(recipe, "hold_out") else recipe  # type: ignore[type-var]


def _aside(recipe: AnyRecipe, about: About, wanted: int | None) -> int:
    """How many training images to hold out."""
    if not hasattr(recipe, "hold_out"):
        return 0
    count = about.data.n
    aside: int = max(count // PART_HELD_OUT, recipe.hold_out) if wanted is None else wanted
    if aside == 0:
        raise InputError(
            f"{about.data.source}: none of {count} images would be held out, by which a search judges. "
            "Give it hold_out=NUMBER, or more images."
        )
    return aside
