"""The typed results of the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Classification:
    """What a picture shows.

    Attributes:
        scores: float32 (classes,), probabilities that add up to 1, in the order of the labels.
        index: of the best class.
        label: its name.
    """

    scores: NDArray[np.float32]
    index: int
    label: str

    @property
    def score(self) -> float:
        """The probability of the best class, 0 to 1."""
        return float(self.scores[self.index])

    def summary(self) -> str:
        """A short text for a person: `cat 0.83`."""
        return f"{self.label} {self.score:.2f}"

    def as_json(self) -> dict[str, Any]:
        """The fields of a line of `predict`: `{"scores": [p0, p1, ...]}`."""
        return {"scores": [round(float(p), 6) for p in self.scores]}


Result = Classification
