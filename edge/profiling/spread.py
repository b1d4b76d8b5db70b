"""The distribution of a duration: the percentiles that were asked for, mean, maximum and jitter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.profiling.histogram import Histogram
from edge.profiling.stats import Values, frames_needed, percent_name, percentiles

PERCENTS = (50.0, 90.0, 99.0, 99.9)
"""What a stream reports of itself."""


@dataclass(frozen=True)
class Spread:
    """Milliseconds.

    Attributes:
        percentiles: by percent; None where there were too few frames, see `stats.frames_needed`.
        jitter: mean absolute difference of neighbours in time, |IPDV| of RFC 3393.
    """

    percentiles: Mapping[float, float | None]
    mean: float
    max: float
    jitter: float

    @classmethod
    def of(cls, values_ms: Sequence[float] | Values, percents: Sequence[float] = PERCENTS) -> Spread:
        """Of at least one value, in the order of time; percentiles by nearest rank."""
        values = np.asarray(values_ms, float)
        found = dict(zip(percents, percentiles(values, percents).tolist(), strict=True))
        jitter = float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0
        return cls(_told(found, len(values)), float(values.mean()), float(values.max()), jitter)

    @classmethod
    def of_histogram(cls, histogram: Histogram, percents: Sequence[float] = PERCENTS) -> Spread:
        """Of at least one value; percentiles within 0.4 %, the rest exact."""
        found = {p: ns / 1e6 for p, ns in zip(percents, histogram.percentiles_ns(percents), strict=True)}
        figures = (histogram.mean_ns, histogram.max_ns, histogram.jitter_ns)
        return cls(_told(found, histogram.n), *(value / 1e6 for value in figures))

    def as_json(self) -> dict[str, float | None]:
        """`{"p50": 1.2, "p99.9": null, "mean": ..., "max": ..., "jitter": ...}`, to a tenth of a microsecond."""
        shown = {percent_name(percent): value for percent, value in self.percentiles.items()}
        shown |= {"mean": self.mean, "max": self.max, "jitter": self.jitter}
        return {name: None if value is None else round(value, 4) for name, value in shown.items()}


ModelSpreads = Mapping[str, Mapping[str, Spread]]
"""By model and stage."""


def missing(percents: Sequence[float] | Mapping[float, object], n: int) -> dict[str, int]:
    """The percentiles that n frames cannot tell, each with the frames that it needs."""
    needed = {percent_name(percent): frames_needed(percent) for percent in percents}
    return {name: frames for name, frames in needed.items() if frames > n}


def _told(found: Mapping[float, float], n: int) -> dict[float, float | None]:
    return {percent: value if n >= frames_needed(percent) else None for percent, value in found.items()}
