"""Optimisers and learning rates by name."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.choices import OPTIMISERS, SCHEDULES
from train.choices.optimise import learning_rate, optimiser
from train.recipe import Recipe

RECIPE = Recipe("x", "m:f", "digits", epochs=10, learning_rate=0.2, warmup_epochs=0)
STEPS = 10


def rates(recipe: Recipe) -> list[float]:
    schedule = learning_rate(recipe, STEPS)
    return [float(schedule(step)) for step in range(recipe.epochs * STEPS)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 0.2, 50: 0.2, 99: 0.2}),
        ("step", {0: 0.2, 50: 0.2, 51: 0.02, 75: 0.02, 76: 0.002, 99: 0.002}),
        ("linear", {0: 0.2, 50: 0.1, 99: 0.002}),
        ("exponential", {0: 0.2, 50: 0.02, 99: 0.2 * 0.01**0.99}),
        ("one_cycle", {0: 0.008, 30: 0.2, 65: 0.1, 99: 0.2 * (1 + math.cos(math.pi * 69 / 70)) / 2}),
    ],
)
def test_the_rate_of_a_batch(schedule: str, expected: dict[int, float]) -> None:
    found = rates(replace(RECIPE, schedule=schedule))
    assert {step: found[step] for step in expected} == pytest.approx(expected, rel=1e-4)


@settings(max_examples=10)  # of 20, with a hundred calls of TensorFlow each
@given(st.sampled_from([name for name in SCHEDULES if name != "one_cycle"]), st.integers(1, 5))
def test_every_schedule_rises_over_the_warm_up_and_never_again(schedule: str, warmup: int) -> None:
    found = rates(replace(RECIPE, schedule=schedule, warmup_epochs=warmup))
    peak = warmup * STEPS
    assert all(0 < a < b for a, b in pairwise(found[:peak]))
    assert max(found) == found[peak] == pytest.approx(0.2, rel=1e-3)
    assert all(a >= b - 1e-7 for a, b in pairwise(found[peak:]))


@given(st.sampled_from(SCHEDULES), st.integers(1, 3), st.floats(0, 5), st.integers(1, 3))
@settings(max_examples=20)
def test_short_trainings_have_rates_too(schedule: str, epochs: int, warmup: float, steps: int) -> None:
    rate = learning_rate(replace(RECIPE, schedule=schedule, epochs=epochs, warmup_epochs=warmup), steps)
    assert all(0 <= float(rate(step)) <= 0.2001 for step in range(epochs * steps))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [*((name, "cosine") for name in OPTIMISERS), *(("sgd", schedule) for schedule in SCHEDULES)],
)
def test_a_checkpoint_brings_both_back(name: str, schedule: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, optimiser=name, schedule=schedule, warmup_epochs=1, weight_decay=0.01)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimiser(recipe, STEPS), "mse", run_eagerly=True)  # a graph for one batch takes a second
    inputs, targets = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    model.train_on_batch(inputs, targets)
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for network in (model, again):
        network.train_on_batch(inputs, targets)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))


def stepped(recipe: Recipe, gradients: list[float]) -> float:
    """What a weight of 1 has become."""
    weight = keras.Variable(1.0, name="kernel")
    rule = optimiser(replace(recipe, schedule="constant"), STEPS)
    rule.build([weight])
    for gradient in gradients:
        rule.apply([keras.ops.convert_to_tensor(gradient, "float32")])
    return float(weight)


def test_momentum_and_nesterov_as_written() -> None:
    # v = 0.9 v - 0.2 g; plain: w += v; Nesterov: w += 0.9 v - 0.2 g.
    plain = 1 - 0.2 + (-0.9 * 0.2 - 0.2)
    assert stepped(replace(RECIPE, nesterov=False), [1, 1]) == pytest.approx(plain, rel=1e-5)
    nesterov = 1 + (0.9 * -0.2 - 0.2) + (0.9 * (-0.9 * 0.2 - 0.2) - 0.2)
    assert stepped(RECIPE, [1, 1]) == pytest.approx(nesterov, rel=1e-5)
    assert stepped(replace(RECIPE, momentum=0.0, nesterov=False), [1, 1]) == pytest.approx(0.6, rel=1e-5)


def test_adam_steps_by_the_rate_whatever_the_gradients_size() -> None:
    for gradient in (0.01, 100.0):
        assert stepped(replace(RECIPE, optimiser="adam"), [gradient]) == pytest.approx(0.8, rel=1e-3)


def test_adadelta_begins_with_small_steps() -> None:
    moved = 1 - stepped(replace(RECIPE, optimiser="adadelta", learning_rate=1.0), [1.0])
    # sqrt(0 + eps) / sqrt(0.05 g^2 + eps) with eps = 1e-7.
    assert moved == pytest.approx(math.sqrt(1e-7) / math.sqrt(0.05 + 1e-7), rel=1e-3)
