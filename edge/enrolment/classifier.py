"""Prototypes and exemplars: what is a new picture most like, and is it like anything at all?

Two models of how people form categories (Rosch's prototypes, Nosofsky's exemplars) on a network's
embedding. A class is like a picture by the mean of two cosines: that to the class's mean embedding, the
prototype, and that to its nearest exemplars. The classes' thresholds come from leaving each exemplar out
in turn. Figures and their limits: docs/enrolment.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Manifest
from edge.errors import InputError
from edge.protocols import Heads
from edge.results import Classification

Floats = NDArray[np.float32]

NEAREST = 3
"""Exemplars that are looked at."""

ACCEPT = 0.9
"""The share of a class's own exemplars that its threshold lets pass, unless the call says otherwise."""

UNKNOWN = "unknown"
"""The label of what is like none of the classes."""

TEMPERATURE = 0.03
"""Turns how far a likeness is above its threshold into a score; no score is a frequency."""


def embedding_heads(manifest: Manifest) -> tuple[str, ...]:
    """The heads that an embedding is made of: the logits, and an `embedding` where the bundle has one.

    Raises:
        InputError: the bundle is no classifier.
    """
    if manifest.task != "classification":
        raise InputError(
            f"{manifest.name} is a model for {manifest.task}; classes are taught to a classifier. "
            "Take a bundle of the task classification; for people's faces add --people."
        )
    return tuple(output.name for output in manifest.outputs if output.role in ("logits", "embedding"))


def embedding(heads: Heads, names: Sequence[str]) -> Floats:
    """float32 (D,) of length 1: the heads of the first item, each brought to length 1, side by side."""
    return _unit(np.concatenate([_unit(heads[name][0].ravel()) for name in names]))


def likeness(exemplars: Floats, queries: Floats) -> Floats:
    """How like a class each query is, -1 to 1: float32 (n, D) and (m, D), rows of length 1, to (m,)."""
    to_exemplars = queries @ exemplars.T
    nearest = np.sort(to_exemplars, axis=1)[:, -NEAREST:].mean(axis=1)
    to_prototype = queries @ _unit(exemplars.mean(axis=0))
    return np.asarray((nearest + to_prototype) / 2, np.float32)


def threshold(exemplars: Floats, accept: float) -> float:
    """The likeness that the share `accept` of a class's exemplars reach when they are left out in turn.

    Args:
        exemplars: float32 (n, D), n at least 2; accept: above 0, at most 1.
    """
    rows = np.arange(len(exemplars))
    left_out = [likeness(exemplars[rows != row], exemplars[row : row + 1])[0] for row in rows]
    return float(np.quantile(left_out, 1 - accept))


@dataclass(frozen=True)
class Examples:
    """What was enrolled of one class.

    Attributes:
        exemplars: float32 (n, D), rows of length 1; accept: see `threshold`.
    """

    exemplars: Floats
    accept: float


class ExemplarClassifier:
    """Names the class that an embedding is most like, measured from each one's threshold.

    Attributes:
        labels: of the classes, and `unknown` at the end; thresholds: of the classes.
    """

    def __init__(self, classes: Mapping[str, Examples]) -> None:
        self.labels = (*classes, UNKNOWN)
        self._exemplars = [examples.exemplars for examples in classes.values()]
        self.thresholds = tuple(threshold(e.exemplars, e.accept) for e in classes.values())

    def classify(self, embedded: Floats) -> Classification:
        """Of a float32 (D,) of length 1. `unknown` is the best where no class reaches its threshold."""
        like = [float(likeness(exemplars, embedded[None])[0]) for exemplars in self._exemplars]
        above = np.array([*np.subtract(like, self.thresholds), 0.0]) / TEMPERATURE
        powers = np.exp(above - above.max())
        scores = np.asarray(powers / powers.sum(), np.float32)
        best = int(above.argmax())
        return Classification(scores, best, self.labels[best])


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)
