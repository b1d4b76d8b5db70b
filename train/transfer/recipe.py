"""A recipe for a network that is there already: its pictures are the recipe's, its course is the strategy's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge.errors import InputError
from train.choices import OWN
from train.recipe import AnyRecipe, Recipe


@dataclass(frozen=True)
class Course:
    """How a strategy trains, unless the call says otherwise.

    Attributes:
        epochs, steps: so many epochs, or as many as make so many steps where that is more.
        values: of the recipe's fields.
    """

    epochs: int
    steps: int
    values: Mapping[str, Any]


_PLAIN: Mapping[str, Any] = {
    "optimiser": "adam",
    "momentum": 0.9,
    "schedule": "cosine",
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "warmup_epochs": 0.0,
}
UNMOVED: Mapping[str, Any] = {
    "flip": False,
    "alternate": False,
    "shift_px": 0,
    "cutout": 0,
    "patch": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "jpeg": 0.0,
}
"""Every picture as it is, so that the frozen part need see it only once."""

_CLASSIFIER = Course(10, 300, {**_PLAIN, **UNMOVED, "learning_rate": 0.01, "l2": 0.03})

COURSES: Mapping[str, Course] = {
    "linear": _CLASSIFIER,
    "earlier": _CLASSIFIER,
    "finetune-few": Course(5, 200, {**_PLAIN, "learning_rate": 1e-3, "l2": 0.0}),
    "finetune-more": Course(5, 200, {**_PLAIN, "learning_rate": 1e-3, "l2": 0.0}),
}

NO_PART: Mapping[str, Any] = {
    "model": "",
    "weights": "",
    "activation": OWN,
    "initialiser": OWN,
    "norm": OWN,
    "preprocess": "none",
    "dropout": 0.0,
    "whiten": False,
    "teacher": "",
    "norm_bias_rate": 1.0,
    "head_rate": 1.0,
    "precision": "float32",
}
"""What of a recipe says nothing here, where network and weights are given."""


@dataclass(frozen=True)
class TransferRecipe(Recipe):
    """A recipe whose network is another one, trained before.

    Attributes:
        source, source_sha256: its file's name, and the file's hash.
        strategy: one of `train.transfer.strategy.STRATEGIES`.
        terms: those of the source's training data, under which these weights stand as well.
    """

    source: str = ""
    source_sha256: str = ""
    strategy: str = "linear"
    terms: str = ""


def named(recipe: AnyRecipe) -> Recipe:
    """The recipe under a name of its own; raises InputError where it is for no classifier."""
    if not isinstance(recipe, Recipe):
        raise InputError(
            f"--from without --qat trains classifiers; recipe {recipe.name} is for another task."
        )
    return replace(recipe, name=f"{recipe.name}-transfer")


def transfer_recipe(recipe: Recipe, assigned: set[str], images: int, strategy: str) -> TransferRecipe:
    """The recipe with the strategy's course in every field that was not `assigned` by the call.

    Raises:
        InputError: a field was assigned that has no part here.
    """
    idle = sorted(assigned & NO_PART.keys())
    if idle:
        raise InputError(f"{idle[0]}=… has no part in a training with --from: the network is there already.")
    course = COURSES[strategy]
    values = {name: value for name, value in course.values.items() if name not in assigned}
    if "epochs" not in assigned:
        batches = max(1, images // recipe.batch_size)
        values["epochs"] = max(course.epochs, math.ceil(course.steps / batches))
    return TransferRecipe(**{**asdict(recipe), **NO_PART, **values, "strategy": strategy})
