"""What the curves of a training say, in words: rules with thresholds, none of them a proof.

They look at the shape alone, so they hold for any loss that starts where guessing does and falls.
Checked on real trainings of LeNet-5 on digits: too slow, too fast, too few pictures, and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
History = Sequence[dict[str, float]]
"""The metrics of each epoch, as in `train.card.Card.history`."""

FEWEST_EPOCHS = 4
"""With fewer points no shape can be told."""

NO_FALL = 0.02
"""A loss that fell by less than this share of its first value has learnt nothing."""

STRAIGHT = 0.15
"""How far, in shares of the whole fall, the middle hangs below a straight line; e^-x over 0 to 3 hangs 0.32."""

HARDLY = 0.5
"""A straight fall to more than this share of the first loss means steps too short for the time given."""

RISE, BOUNCES = 0.1, 0.2
"""A rise of this share of the whole fall is a bounce; more of them than this share of the epochs are too many."""

STILL_FALLING, LATE = 0.01, 0.2
"""More than this share of the whole fall at each epoch of the last fifth: it had not ended."""

GAP_POINTS = 8.0
"""Training accuracy this far above the validation's: learnt by heart."""

PASSED_POINTS = 2.0
"""A validation that lost so much since its best epoch has turned."""

UNDERFIT_PER_CENT, CLOSE_POINTS = 85.0, 3.0
"""Training accuracy below the first, and the validation no more than the second behind: too small a network."""


@dataclass(frozen=True)
class Hint:
    """What a curve says: `sign` what is seen, with its figures; `advice` the likely cause and what to try."""

    sign: str
    advice: str


def hints(history: History) -> list[Hint]:
    """Everything that the curves give cause to say; a single one that all is well where nothing is.

    An epoch that is missing in a metric, such as a validation every fifth epoch, is passed over.
    """
    loss = _curve(history, "loss")
    if len(loss) < FEWEST_EPOCHS:
        few = f"{len(loss)} epoch{'s' * (len(loss) != 1)} with a loss"
        return [Hint(f"Too short to tell: {few}, at least {FEWEST_EPOCHS} are needed.", "Train for longer.")]
    if not_learning := _flat(loss):
        return [not_learning]  # The other rules measure in shares of a fall that there is not.
    accuracy, validation = 100 * _curve(history, "accuracy"), _curve(history, "validation_top1")
    found = [_slow(loss), _bouncing(loss), _gap(accuracy, validation), _turned(history)]
    found += [_underfitting(accuracy, validation), _unfinished(loss)]
    seen = [hint for hint in found if hint]
    if not any(name.startswith("validation") for epoch in history for name in epoch):
        seen.append(
            Hint("No pictures were held out.", "Overfitting cannot be seen: train once with hold_out=1000.")
        )
    return seen or [Hint("The loss falls fast, then levels off; the validation follows.", "Nothing to mend.")]


def _curve(history: History, name: str) -> Curve:
    return np.array([epoch[name] for epoch in history if name in epoch], np.float64)


def _flat(loss: Curve) -> Hint | None:
    if loss[-1] < (1 - NO_FALL) * loss[0]:
        return None
    if loss.min() < (1 - NO_FALL) * loss[0]:
        return Hint(
            f"The loss fell to {loss.min():.3g} and rose to {loss[-1]:.3g}, where it began.",
            "learning_rate is too high: try a third.",
        )
    return Hint(
        f"The loss stays where it was: {loss[0]:.3g}, then {loss[-1]:.3g}.",
        "learning_rate is far too high (the weights were thrown to where no gradient is left) or far too low: "
        "try a tenth, then ten times; `sightline sanity` shows dead units and wrong labels.",
    )


def _slow(loss: Curve) -> Hint | None:
    middle = (len(loss) - 1) / 2
    below = (loss[0] + loss[-1]) / 2 - float(np.interp(middle, np.arange(len(loss)), loss))
    if loss[-1] < HARDLY * loss[0] or below > STRAIGHT * (loss[0] - loss[-1]):
        return None
    return Hint(
        f"The loss falls in a straight line, to {100 * loss[-1] / loss[0]:.0f} % of its start.",
        "learning_rate is too low, unless the training began with trained weights: try three to ten times as much.",
    )


def _bouncing(loss: Curve) -> Hint | None:
    rises = int((np.diff(loss) > RISE * (loss[0] - loss.min())).sum())
    if rises <= BOUNCES * len(loss):
        return None
    return Hint(
        f"The loss jumps up in {rises} of {len(loss)} epochs.",
        "learning_rate is too high, or the batches (or the whole set) too small: try a third, or a larger batch_size.",
    )


def _gap(accuracy: Curve, validation: Curve) -> Hint | None:
    if not _both(accuracy, validation) or accuracy[-1] - validation[-1] < GAP_POINTS:
        return None
    return Hint(
        f"Overfitting: {accuracy[-1]:.1f} % in training, {validation[-1]:.1f} % on pictures held out.",
        "More pictures, more augmentation (flip, shift_px), weight_decay or dropout; or a smaller network.",
    )


def _turned(history: History) -> Hint | None:
    points = [(e["validation_top1"], e["epoch"]) for e in history if "validation_top1" in e and "epoch" in e]
    if not points or (best := max(points))[0] - points[-1][0] < PASSED_POINTS:
        return None
    return Hint(
        f"The validation was best after epoch {best[1]:.0f} ({best[0]:.1f} %) and ended at {points[-1][0]:.1f} %.",
        f"Stop there (epochs={best[1]:.0f}), or regularise more. With few pictures held out this may be chance.",
    )


def _underfitting(accuracy: Curve, validation: Curve) -> Hint | None:
    if not _both(accuracy, validation) or accuracy[-1] >= UNDERFIT_PER_CENT:
        return None
    if accuracy[-1] - validation[-1] > CLOSE_POINTS:
        return None
    return Hint(
        f"Underfitting: {accuracy[-1]:.1f} % in training, {validation[-1]:.1f} % on pictures held out.",
        "It does not even learn its own pictures: a larger network, less regularisation, or more epochs.",
    )


def _unfinished(loss: Curve) -> Hint | None:
    late = max(2, round(LATE * len(loss)))
    a_epoch = -float(np.polyfit(np.arange(late + 1), loss[-late - 1 :], 1)[0]) / (loss[0] - loss[-1])
    if a_epoch < STILL_FALLING:
        return None
    return Hint(
        f"Still falling at the end, {100 * a_epoch:.1f} % of the whole fall at each of the last {late} epochs.",
        "More epochs would help.",
    )


def _both(accuracy: Curve, validation: Curve) -> bool:
    return len(accuracy) > 0 and len(validation) > 0
