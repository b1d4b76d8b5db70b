"""The search itself: a coarse stage over the whole space, a fine one around the best of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import CheckFailed
from train.recipe import AnyRecipe
from train.search.space import Space, draw, narrowed
from train.search.study import Study, Task, Trial

BEST_PART, BEST_LEAST = 4, 3
"""The fine stage searches where the best quarter of the coarse trials lie, at least three of them."""

COARSE, FINE = "coarse", "fine"
OWN = f"{FINE}-own"
"""The trial of the recipe's own values, for comparison with the fine ones: as many epochs, the same images."""

Tell = Callable[[Trial], None]
Perform = Callable[[Study, Sequence[Task], Space, Tell], None]
"""Runs those tasks that no other process has run; returns when all of them have ended, anywhere."""


@dataclass(frozen=True)
class Stage:
    """So many trials of so many epochs."""

    trials: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.trials}x{self.epochs}"


@dataclass(frozen=True)
class Plan:
    """A whole search.

    Attributes:
        recipe: whose fields are searched; space: which, and where.
        coarse, fine: the stages; seed: of the values drawn.
    """

    recipe: AnyRecipe
    space: Space
    coarse: Stage
    fine: Stage
    seed: int

    def settings(self, data_sha256: str) -> dict[str, Any]:
        """What two processes must agree on to share a study."""
        return {
            "recipe": self.recipe.as_dict(),
            "data": {"sha256": data_sha256},
            "space": {name: str(part) for name, part in self.space.items()},
            "stages": {COARSE: str(self.coarse), FINE: str(self.fine)},
            "seed": {"seed": self.seed},
        }

    def coarse_tasks(self) -> list[Task]:
        """Of the first stage."""
        return self._tasks(COARSE, self.coarse, self.space)

    def fine_tasks(self, around: Space) -> list[Task]:
        """Of the second, in `around`; the recipe's own values first."""
        return [Task(OWN, FINE, {}, self.fine.epochs), *self._tasks(FINE, self.fine, around)]

    def _tasks(self, name: str, stage: Stage, space: Space) -> list[Task]:
        return [
            Task(f"{name}-{index:03}", name, draw(space, self.seed, name, index), stage.epochs)
            for index in range(stage.trials)
        ]

    def __len__(self) -> int:
        return self.coarse.trials + 1 + self.fine.trials


@dataclass(frozen=True)
class Found:
    """A finished search: all trials, and the space of the fine stage."""

    plan: Plan
    trials: tuple[Trial, ...]
    around: Space

    @property
    def best(self) -> Trial:
        """Of the fine stage, the recipe's own values among them."""
        return max(done(self.trials, FINE), key=lambda trial: trial.rank)

    @property
    def own(self) -> Trial | None:
        """The recipe's own values, None where they were cut."""
        return next((trial for trial in done(self.trials, FINE) if trial.own), None)


def search(plan: Plan, study: Study, perform: Perform, tell: Tell) -> Found:
    """Run what is left of the search, beside any other process that does.

    Raises:
        CheckFailed: no trial of a stage came through.
    """
    perform(study, plan.coarse_tasks(), plan.space, tell)
    around = narrowed(plan.space, [trial.values for trial in _leading(study.trials())])
    perform(study, plan.fine_tasks(around), plan.space, tell)
    trials = tuple(study.trials())
    _require(trials, FINE)
    return Found(plan, trials, around)


def done(trials: Sequence[Trial], stage: str) -> list[Trial]:
    """Those of a stage that were trained to their end."""
    return [trial for trial in trials if trial.stage == stage and trial.ending == "done"]


def unclaimed(study: Study, tasks: Sequence[Task], wait: bool) -> Iterator[Task]:
    """Each task that is ours to run, held until the next one is asked for."""
    for task in tasks:
        with study.claimed(task.name, wait) as ours:
            if ours:
                yield task


def one_by_one(objective: Callable[[Task, Any], Trial]) -> Perform:
    """Runs trials in this process: first those that nobody holds, then what a killed process let go."""

    def perform(study: Study, tasks: Sequence[Task], space: Space, tell: Tell) -> None:
        for wait in (False, True):
            for task in unclaimed(study, tasks, wait):
                trial = objective(task, study.checkpoint(task.name))
                study.record(trial, space)
                tell(trial)

    return perform


def _leading(trials: Sequence[Trial]) -> list[Trial]:
    """The best of the coarse trials, the very best first."""
    _require(trials, COARSE)
    ranked = sorted(done(trials, COARSE), key=lambda trial: trial.rank, reverse=True)
    return ranked[: max(BEST_LEAST, len(ranked) // BEST_PART)]


def _require(trials: Sequence[Trial], stage: str) -> None:
    if not done(trials, stage):
        of_stage = [trial for trial in trials if trial.stage == stage]
        raise CheckFailed(
            f"None of the {len(of_stage)} {stage} trials came through. The first: {of_stage[0].why} "
            "`sightline sanity` checks the recipe, --space sets other ranges."
        )
