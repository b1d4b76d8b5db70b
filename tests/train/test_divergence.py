"""When a training is given up, and what it says."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import CheckFailed
from train.divergence import Alarm
from train.recipe import Recipe

RECIPE = Recipe("x", "m:f", "digits", epochs=1, learning_rate=0.5)
PICTURES = np.zeros((2, 4, 4, 3), np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()], name="net")


def hear(alarm: Alarm, losses: list[float], model: Any = None, **changes: Any) -> int:
    """How many losses it hears before it raises."""
    recipe = Recipe(**{**RECIPE.as_dict(), **changes})
    for heard, loss in enumerate(losses):
        try:
            alarm.hear(loss, 1, recipe, model, PICTURES)
        except CheckFailed:
            return heard
    return len(losses)


@given(st.lists(st.floats(0, 6.9), min_size=1, max_size=50))
def test_losses_below_three_times_the_first_go_on(losses: list[float]) -> None:
    assert hear(Alarm(), [2.3, *losses]) == len(losses) + 1


@given(st.floats(0.01, 100), st.floats(1.05, 100))
def test_a_loss_that_stays_above_three_times_the_first_stops_it(first: float, over: float) -> None:
    limit = 3 * max(first, 1)
    assert 1 <= hear(Alarm(), [first, *[over * limit] * 100]) < 60


def test_one_hard_batch_is_no_divergence() -> None:
    assert hear(Alarm(), [2.3] * 20 + [20.0] + [2.3] * 20) == 41


def test_the_start_is_kept_over_a_resume() -> None:
    """And one hard batch is none just after it either."""
    alarm = Alarm(first=2.0)
    assert hear(alarm, [20.0] + [5.0] * 100) == 101
    assert alarm.first == 2.0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_likely_cause_is_named(loss: float, model: keras.Model) -> None:
    with pytest.raises(CheckFailed, match=r"lower learning_rate, which is 0\.5\.$"):
        Alarm(first=2.3).hear(loss, 2, RECIPE, model, PICTURES)
    with pytest.raises(CheckFailed, match="warmup_epochs=1"):
        Alarm(first=2.3).hear(loss, 2, Recipe(**{**RECIPE.as_dict(), "warmup_epochs": 0}), model, PICTURES)
    with pytest.raises(CheckFailed, match=r"in the very first batch.*sightline sanity` shows net"):
        Alarm().hear(loss, 1, RECIPE, model, PICTURES)
    with pytest.raises(CheckFailed, match="pictures hold NaN"):
        Alarm().hear(loss, 1, RECIPE, model, np.full_like(PICTURES, np.nan))


def test_a_rise_is_told_with_both_figures(model: keras.Model) -> None:
    alarm = Alarm(first=2.0)
    with pytest.raises(CheckFailed, match=r"rose to 7 in epoch 3, from 2 at the start"):
        alarm.hear(52.0, 3, RECIPE, model, PICTURES)
