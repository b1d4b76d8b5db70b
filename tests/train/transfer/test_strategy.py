"""The decision at its boundaries, and the measure that it rests on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.transfer.strategy import MUCH, STRATEGIES, Evidence, decide, separation


@pytest.mark.parametrize(
    ("per_class", "last", "earlier", "strategy"),
    [
        (2, 80.0, 70.0, "linear"),
        (MUCH - 1, 70.0, 70.0, "linear"),
        (MUCH - 1, 69.9, 70.0, "earlier"),
        (MUCH, 70.0, 70.0, "finetune-few"),
        (MUCH, 69.9, 70.0, "finetune-more"),
    ],
)
def test_the_two_by_two(per_class: int, last: float, earlier: float, strategy: str) -> None:
    assert decide(Evidence(per_class, last, earlier, 500)).strategy == strategy


@given(st.integers(2, 10**6), st.floats(0, 100), st.floats(0, 100))
def test_every_decision_gives_its_figures(per_class: int, last: float, earlier: float) -> None:
    decision = decide(Evidence(per_class, last, earlier, 321))
    assert decision.strategy in STRATEGIES
    for figure in (str(per_class), f"{last:.1f}", f"{earlier:.1f}", "321", str(MUCH)):
        assert figure in decision.reason
    assert ("much" in decision.reason) == (per_class >= MUCH)
    assert ("similar" in decision.reason) == (last >= earlier)


def test_features_that_tell_the_classes_apart_score_higher() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise = rng.normal(0, 1, (90, 8)).astype(np.float32)
    apart = noise + 6 * np.eye(8, dtype=np.float32)[labels]
    assert separation(apart, labels) == 100
    assert separation(noise, labels) < 60
    # Standardised: a feature's unit does not count, nor one that never changes.
    units = np.concatenate([apart * np.float32(1e4) ** np.arange(8, dtype=np.float32)[::-1] / 1e9], axis=1)
    assert separation(np.column_stack([units, np.ones(90, np.float32)]), labels) == 100


def test_two_images_a_class_are_enough_and_one_is_not() -> None:
    rows, labels = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])
    assert separation(rows, labels) == 100
    with pytest.raises(InputError, match="single image"):
        separation(rows[:3], labels[:3])
