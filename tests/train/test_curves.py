"""What the curves of a training say: on curves of real trainings, and on shapes made for one rule."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.curves import hints

# Real: LeNet-5 on digits, 200 held out; a constant learning_rate of 0.0001, 0.3 and 0.12, the recipe's own
# over 12 epochs, and 20 epochs on 60 pictures.
SLOW = [2.3593, 2.3279, 2.2921, 2.273, 2.2497, 2.2298, 2.2076, 2.1878, 2.154, 2.1332]
THROWN = [2.2829, 2.3221, 2.3122, 2.3217, 2.324, 2.322, 2.3222, 2.3215, 2.3238, 2.3169]
GOOD = [1.9241, 0.5064, 0.2572, 0.2005, 0.1272, 0.1015, 0.0851, 0.0631, 0.0508, 0.0472, 0.0238, 0.025]
FEW = [2.2976, 2.3242, 2.218, 2.2118, 2.1205, 2.2228, 2.077, 2.0535, 1.8927, 1.6732]
FEW += [1.5284, 1.3588, 1.1031, 0.8737, 1.0051, 0.5594, 0.5534, 0.6115, 0.6459, 0.334]
FADING = (0.1 + 2.2 * np.exp(-np.arange(20) / 2)).tolist()


def history(
    loss: list[float], accuracy: float = 0.95, validation: list[float] | None = None
) -> list[dict[str, float]]:
    held_out = validation or [94.0] * len(loss)
    return [
        {"epoch": i + 1, "loss": value, "accuracy": accuracy, "validation_top1": held_out[i]}
        for i, value in enumerate(loss)
    ]


def signs(*args: object, **kwargs: object) -> str:
    return " | ".join(hint.sign for hint in hints(history(*args, **kwargs)))  # type: ignore[arg-type]


def test_a_good_training_gets_no_warning() -> None:
    assert "levels off" in signs(GOOD, 0.9926, [99.5] * 12)
    assert "levels off" in signs(FADING)


def test_a_learning_rate_too_low_falls_in_a_straight_line() -> None:
    (slow, *_) = hints(history(SLOW, 0.2813, [38.0] * 10))
    assert slow.sign == "The loss falls in a straight line, to 90 % of its start."
    assert "too low" in slow.advice
    assert "straight" not in signs(FADING)


def test_a_loss_that_never_falls_is_all_there_is_to_say() -> None:
    (only,) = hints(history(THROWN, 0.102, [10.0] * 10))
    assert "stays where it was: 2.28, then 2.32" in only.sign
    assert "sightline sanity" in only.advice


def test_a_loss_that_fell_and_came_back() -> None:
    (only,) = hints(history([2.3, 1.2, 1.0, 1.9, 2.3]))
    assert "fell to 1 and rose to 2.3" in only.sign


def test_a_loss_that_jumps() -> None:
    assert "jumps up in 5 of 12" in signs([2.3, 1.0, 1.5, 0.9, 1.4, 0.8, 1.3, 0.7, 1.2, 0.6, 1.1, 0.5])
    assert "jumps" not in signs(FEW)


def test_too_few_pictures_overfit() -> None:
    assert "Overfitting: 93.8 % in training, 71.0 % on pictures held out." in signs(
        FEW, 0.9375, [10.0] * 19 + [71.0]
    )


@pytest.mark.parametrize(("gap", "told"), [(7.9, False), (8.1, True)])
def test_where_a_gap_begins(gap: float, told: bool) -> None:
    assert ("Overfitting" in signs(FADING, 0.95, [95.0 - gap] * 20)) is told


def test_a_validation_that_turned() -> None:
    turned = signs(FADING, 0.95, [50.0] * 7 + [93.0] + [90.5] * 12)
    assert "best after epoch 8 (93.0 %) and ended at 90.5 %" in turned
    assert "best after" not in signs(FADING, 0.95, [50.0] * 7 + [92.0] + [90.5] * 12)


def test_a_network_too_small() -> None:
    assert "Underfitting" in signs(FADING, 0.8, [79.0] * 20)
    assert "Underfitting" not in signs(FADING, 0.86, [85.0] * 20)
    assert "Underfitting" not in signs(FADING, 0.8, [76.0] * 20)


def test_still_falling() -> None:
    assert re.search(r"Still falling at the end, \d\.\d % of the whole fall", signs(FEW))
    assert "Still falling" not in signs(FADING)


def test_nothing_held_out_and_too_short() -> None:
    bare = [{"epoch": i + 1, "loss": value} for i, value in enumerate(FADING)]
    assert [hint.sign for hint in hints(bare)] == ["No pictures were held out."]
    assert hints(bare[:3])[0].sign.startswith("Too short to tell: 3 epochs")
    assert hints(bare[:1])[0].sign.startswith("Too short to tell: 1 epoch with")
    assert hints([])[0].sign.startswith("Too short to tell: 0 epochs")


@given(st.lists(st.floats(0.001, 100), max_size=40), st.floats(0.01, 100))
def test_the_unit_of_the_loss_does_not_matter(loss: list[float], unit: float) -> None:
    """Every rule counts in shares of the loss itself, so another unit changes no verdict, only the figures."""
    advice = [hint.advice for hint in hints(history(loss))]
    assert advice
    assert advice == [hint.advice for hint in hints(history([value * 2.0 ** round(unit) for value in loss]))]
