"""The gate: has an artefact kept the model's metric, lost too much of it, or can these images not tell?

`failed`: it lost more than `max_drop` points. `undecided`: it did not, but the images are too few to know.
`passed`: neither.

What is infinite or not a number on any image fails too, whatever it costs the metric: a float16 that overflows.

Images are too few in two cases. Where fewer than 3 / max_drop were shown, not even an artefact that answers
each of them as Keras does is shown to lose less: of n images without a change, up to 3 / n may change
elsewhere (the rule of three: 95 % confidence; Hanley and Lippman-Hand 1983, JAMA 249:1743). At 0.5 points these
are 600 images. And where the drop's interval reaches beyond `max_drop` and is wider than `max_drop` on either
side, no measured drop but a gain would have been proof. An interval that is narrow and reaches a little beyond
passes: more images would move it less than what is allowed.

A `max_drop` of zero or less is no question of proof, since no number of images answers it: the measured drop
alone decides.
"""

from __future__ import annotations

import math
from typing import Literal

from edge.bundle import Metrics
from export.proof import METRIC_NAMES

Verdict = Literal["passed", "failed", "undecided"]


def verdict(metrics: Metrics, max_drop: float) -> Verdict:
    """Of one artefact.

    Args:
        max_drop: the largest loss allowed, in points.
    """
    if metrics.drop > max_drop or not _is_finite(metrics):
        return "failed"
    return "passed" if images_needed(metrics, max_drop) <= metrics.n else "undecided"


def images_needed(metrics: Metrics, max_drop: float) -> int:
    """How many images would tell; no more than there were, where these do.

    An interval narrows with the root of the number of images.
    """
    if max_drop <= 0:
        return metrics.n
    low, high = metrics.drop_ci95
    half = (high - low) / 2
    wider = metrics.n * (half / max_drop) ** 2 if high > max_drop else 0
    # Where half the interval is what is allowed, a last binary digit must not ask for one image more.
    return math.ceil(round(max(300 / max_drop, wider), 6))


def in_words(metrics: Metrics, max_drop: float) -> str:
    """What a verdict other than `passed` stands on."""
    name, low, high = METRIC_NAMES[metrics.metric], *metrics.drop_ci95
    if not _is_finite(metrics):
        return f"failed its gate: it gives infinite values, or none that are numbers, on some of {metrics.n} images"
    if verdict(metrics, max_drop) == "failed":
        return (
            f"failed its gate: {name} dropped by {metrics.drop:.2f} points on {metrics.n} images, "
            f"{max_drop:g} are allowed"
        )
    return (
        f"not enough images to tell: {name} dropped by {metrics.drop:+.2f} points on {metrics.n} images, 95 % "
        f"interval {low:+.2f} to {high:+.2f}; whether it is more than the {max_drop:g} allowed takes about "
        f"{images_needed(metrics, max_drop):,} images"
    )


def _is_finite(metrics: Metrics) -> bool:
    return math.isfinite(metrics.max_error)
