"""What a trial is trained and judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import DiskFailed, InputError
from train.data import load
from train.fit import fit
from train.recipe import load_recipe
from train.search.objective import Objective
from train.search.study import Task

LENET: Any = load_recipe("lenet_digits")
TASK = Task("coarse-000", "coarse", {"learning_rate": 0.05}, 3)


def test_a_tenth_of_the_training_split_judges_and_the_rest_trains() -> None:
    objective = Objective(LENET, "digits")
    assert (objective.held_out, objective.about.data.n) == (143, 1437 - 143)
    judged, trained = objective.lesson._held_out, objective.lesson._data
    rows = {picture.tobytes() for picture in load("digits", "train").images}
    assert {picture.tobytes() for picture in np.concatenate([judged.images, trained.images])} == rows
    parts = np.bincount(judged.labels) / np.bincount(np.concatenate([judged.labels, trained.labels]))
    assert parts.tolist() == pytest.approx([143 / 1437] * 10, abs=1 / 140)


@pytest.mark.parametrize(("recipes", "asked", "held_out"), [(500, None, 500), (50, None, 143), (500, 20, 20)])
def test_how_many_are_held_out(recipes: int, asked: int | None, held_out: int) -> None:
    assert Objective(replace(LENET, hold_out=recipes), "digits", asked).held_out == held_out


def test_none_held_out_is_refused() -> None:
    with pytest.raises(InputError, match="none of 1437 images would be held out"):
        Objective(LENET, "digits", 0)


def test_a_trial_has_the_stages_epochs_and_as_large_a_part_of_them_to_warm_up() -> None:
    recipe = Objective(LENET, "digits").trial_recipe(TASK)
    assert (recipe.epochs, recipe.learning_rate, recipe.seed) == (3, 0.05, LENET.seed)
    assert recipe.warmup_epochs == pytest.approx(3 * LENET.warmup_epochs / LENET.epochs)


def test_a_checkpoint_that_does_not_fit_costs_time_alone(tiny: Path, tmp_path: Path) -> None:
    objective = Objective(load_recipe(str(tiny)), "digits")
    sound = objective(TASK, tmp_path / "sound.keras")
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"of an older version")
    assert replace(objective(TASK, broken), seconds=sound.seconds) == sound
    assert sound.ending == "done"
    assert len(sound.history) == 3
    assert not broken.exists()


def test_a_disk_that_is_full_is_no_failure_of_the_trial(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_of_at_most: Callable[[int], Any]
) -> None:
    monkeypatch.setattr("train.search.objective.fit", partial(fit, checkpoint_interval_s=0))
    objective = Objective(load_recipe(str(tiny)), "digits")
    with files_of_at_most(1000), pytest.raises(DiskFailed, match="Free some space"):
        objective(TASK, tmp_path / "x.keras")


def test_what_cannot_be_trained_is_kept_with_its_reason(tiny: Path, tmp_path: Path) -> None:
    objective = Objective(load_recipe(str(tiny)), "digits")
    trial = objective(replace(TASK, values={"model": "search_network:none"}), tmp_path / "x.keras")
    assert (trial.ending, trial.validation) == ("failed", None)
    assert "search_network:none' cannot be imported" in trial.why
