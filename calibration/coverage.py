"""Do the ranges hold on images that were not watched, and are the watched ones what they should be?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibration.graph import Graph
from calibration.observers import Progress, outputs, widest
from calibration.plan import Plan
from calibration.samples import Pictures, Samples

FEW = 64
"""Images; below, percentiles of a class that hardly occurs are chance."""

FLAT = 2.0
"""Grey levels of standard deviation; a picture below is blank: a covered lens, a black frame."""

MOST_FLAT = 0.02
"""Share of blank pictures that goes without a word."""

MOST_OUTSIDE = 0.01
LEAST_FILLED = 0.25
"""A tensor of held-out images beyond these was calibrated on something else."""

BATCH = 64


@dataclass(frozen=True)
class Coverage:
    """One tensor's range on images that did not decide it.

    Attributes:
        below, above: shares of the values outside the range on either side, 0 to 1: what saturates.
        filled: how far the values span the range, 0 to 1 and more where they leave it.
    """

    below: float
    above: float
    filled: float

    @property
    def outside(self) -> float:
        """Share of the values that saturate, 0 to 1."""
        return self.below + self.above


@dataclass
class _Tally:
    values: int = 0
    below: int = 0
    above: int = 0
    least: float = np.inf
    most: float = -np.inf


def coverage(
    graph: Graph, plan: Plan, images: Pictures, progress: Progress = lambda done: None
) -> dict[str, Coverage]:
    """By measured node, in the order of the plan's ranges.

    Args:
        graph: folded; it is prepared as the plan says.
        images: held-out ones, uint8 (N, H, W, 3).
    """
    tallies: dict[str, _Tally] = {name: _Tally() for name in plan.ranges}
    ready = plan.prepared(graph, "tflite")
    limits = {node.name: widest(ready, node) for node in ready.nodes}
    for name, given in outputs(ready, images, progress):
        low, high = plan.ranges[name]
        values = np.clip(given, *limits[name])
        tally = tallies[name]
        tally.values += values.size
        tally.below += int((values < low).sum())
        tally.above += int((values > high).sum())
        tally.least, tally.most = min(tally.least, float(values.min())), max(tally.most, float(values.max()))
    return {name: _share(tally, *plan.ranges[name]) for name, tally in tallies.items()}


def doubts(samples: Samples, covered: dict[str, Coverage]) -> tuple[str, ...]:
    """What speaks against the calibration images, in words for the user; nothing where all is well.

    Args:
        covered: of held-out images, or of those that the model will meet.
    """
    return (*_of_images(samples), *_of_ranges(covered))


def _of_images(samples: Samples) -> Iterator[str]:
    count = len(samples.images)
    if count < FEW:
        yield (
            f"{count} calibration images are few: the ranges are those of these very pictures. "
            f"Give {FEW} or more, better 512 (--samples)."
        )
    blank = sum(_blank(samples.images[start : start + BATCH]) for start in range(0, count, BATCH))
    if blank > MOST_FLAT * count:
        yield (
            f"{blank} of {count} calibration images are blank, all pixels within a few grey levels: likely a "
            "covered lens, or pictures that failed to decode. Take them out."
        )


def _of_ranges(covered: dict[str, Coverage]) -> Iterator[str]:
    outside = {name: c.outside for name, c in covered.items() if c.outside > MOST_OUTSIDE}
    narrow = [name for name, c in covered.items() if c.filled < LEAST_FILLED]
    if outside:
        worst = max(outside, key=lambda name: outside[name])
        yield (
            f"Held-out images leave the range of {len(outside)} of {len(covered)} tensors, '{worst}' with "
            f"{100 * outside[worst]:.1f} % of its values: likely calibration images of another task or camera, "
            "or too few. Calibrate on pictures as the model will meet them."
        )
    if 2 * len(narrow) > len(covered):
        yield (
            f"Held-out images fill less than {LEAST_FILLED:.0%} of the range of {len(narrow)} of "
            f"{len(covered)} tensors, as '{narrow[0]}': likely calibration images of another task, or a method "
            "that keeps outliers (minmax). Try --method mse."
        )


def _blank(images: np.ndarray) -> int:
    return int((images.reshape(len(images), -1).std(axis=1) < FLAT).sum())


def _share(tally: _Tally, low: float, high: float) -> Coverage:
    span = max(high - low, 1e-12)
    return Coverage(tally.below / tally.values, tally.above / tally.values, (tally.most - tally.least) / span)
