"""Warm-up and steady state of series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from edge.profiling.steady import Steady, change_points, steady_state


def noisy(levels: list[tuple[int, float]], seed: int = 0) -> np.ndarray:
    """Ages in ms: so many frames at each level, with 5 % of noise, correlated, and 1 % of spikes."""
    random = np.random.default_rng(seed)
    level = np.concatenate([np.full(n, value) for n, value in levels])
    noise = random.normal(0, 0.05, len(level))
    for at in range(1, len(level)):
        noise[at] = 0.5 * noise[at - 1] + 0.87 * noise[at]
    return level * np.exp(noise) + 30 * (random.random(len(level)) < 0.01)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("warm_up", [40, 150, 600])
def test_a_slow_begin_ends_where_it_ends(seed: int, warm_up: int) -> None:
    found = steady_state(noisy([(warm_up, 14.0), (2000 - warm_up, 10.0)], seed))
    assert found.settled
    assert found.begin == pytest.approx(warm_up, abs=30)


@pytest.mark.parametrize("seed", range(20))
def test_an_even_run_has_no_warm_up_and_loses_no_frame_but_perhaps_a_slow_first_one(seed: int) -> None:
    found = steady_state(noisy([(2000, 10.0)], seed))
    assert found.settled
    assert found.begin <= 1


def test_the_first_inference_alone_is_a_warm_up() -> None:
    ages = noisy([(400, 10.0)], 3)
    ages[:2] = 80, 45
    assert steady_state(ages) == Steady(2, True)


def test_a_throttled_end_is_no_warm_up_but_said() -> None:
    found = steady_state(noisy([(1400, 10.0), (600, 16.0)]))
    assert found == Steady(0, False)


def test_spikes_are_kept_wherever_they_are() -> None:
    ages = noisy([(1000, 10.0)], 1)
    ages[30:33] = 200
    assert steady_state(ages).begin <= 1


def test_a_short_run_cannot_be_told() -> None:
    assert steady_state(np.full(49, 10.0)) == Steady(0, None)


def test_a_constant_series_has_one_segment() -> None:
    assert change_points(np.full(50, 3.0)) == []
    assert change_points(np.r_[np.full(20, 3.0), np.full(30, 5.0)]) == [20]
    assert steady_state(np.full(300, 3.0)) == Steady(0, True)
