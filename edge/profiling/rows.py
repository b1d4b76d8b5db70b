"""Every frame's durations, for as long as a profile runs: what a bootstrap and a timeline need."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.frame import MODEL_STAGES, STAGES, Frame
from edge.profiling.spread import PERCENTS, ModelSpreads, Spread
from edge.profiling.stats import Values
from edge.profiling.steady import Steady, steady_state
from edge.protocols import SourceInfo
from edge.results import FrameResult

Column = NDArray[np.int64]

META = ("index", "round", "steady", "at")
"""Columns that are no durations; see `edge.profiling.report.Report`."""


class Rows:
    """A sink that keeps a row a frame: 72 bytes, and 24 more for each model. It may be opened again.

    Attributes:
        round: of an interleaved run, stored with the frames that follow.
        capture_clock: of the source.
    """

    def __init__(self) -> None:
        self.round = 0
        self.capture_clock = "file"
        self._values = array("q")
        self._models: dict[str, array[int]] = {}
        self._n = 0

    def open(self, source: SourceInfo) -> None:
        """Go on; the rows of earlier rounds stay."""
        self.capture_clock = source.capture_clock

    def close(self) -> None:
        """Nothing to do: the rows are in memory."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Keep the stamps and laps of one frame; a model that does not see it gets none."""
        at = frame.stamps
        stamps = at.capture, at.decode, at.dequeue, at.preprocess, at.infer, at.postprocess, at.publish
        self._values.extend((frame.index, self.round, *stamps))
        for name, laps in at.models.items():
            self._laps_of(name).extend(laps.spent_ns.values())
        self._n += 1

    def _laps_of(self, model: str) -> array[int]:
        """Up to the present frame, with zeros for those that the model did not see."""
        laps = self._models.setdefault(model, array("q"))
        laps.frombytes(bytes(8 * (len(MODEL_STAGES) * self._n - len(laps))))
        return laps

    def timings(self) -> Timings:
        """All of them in columns, with the steady state found in each round by itself.

        Raises:
            InputError: there is none.
        """
        if not self._n:
            raise InputError("Not one frame was measured: the source ended at once. Give another --source.")
        table = np.array(self._values, np.int64).reshape(self._n, -1).T
        index, rounds, stamps = table[0], table[1], table[2:]
        stages = np.diff(stamps, axis=0)
        states = _steady_states(stages.sum(axis=0) / 1e6, rounds)
        steady = np.concatenate([_after(state.begin, n) for state, n in states])
        meta = zip(META, (index, rounds, steady, stamps[0] - stamps[0, 0]), strict=True)
        columns = dict(meta) | dict(zip(STAGES, stages, strict=True))
        for model in self._models:
            laps = np.array(self._laps_of(model), np.int64).reshape(self._n, -1).T
            columns |= {f"{model}.{stage}": of for stage, of in zip(MODEL_STAGES, laps, strict=True)}
        return Timings(columns, tuple(state for state, _ in states), int(stamps[0, 0]))


def _steady_states(ages_ms: Values, rounds: Column) -> list[tuple[Steady, int]]:
    """Of each round, in order, with its number of frames."""
    of_rounds = [ages_ms[rounds == number] for number in np.unique(rounds)]
    return [(steady_state(ages), len(ages)) for ages in of_rounds]


def _after(begin: int, n: int) -> Column:
    return (np.arange(n) >= begin).astype(np.int64)


@dataclass(frozen=True)
class Timings:
    """The rows of a run in columns, (n,) int64 each; durations in nanoseconds.

    Attributes:
        columns: by name: `META`, the stages, and `MODEL.STAGE`, which is 0 where the model did not see the frame.
        states: where each round became steady; empty when read from a file.
        begin_ns: the first capture on the monotonic clock; 0 when read from a file.
    """

    columns: Mapping[str, Column]
    states: tuple[Steady, ...] = ()
    begin_ns: int = 0

    @classmethod
    def of_report(cls, rows: Mapping[str, Sequence[int]] | None, name: str) -> Timings:
        """Of a report's `rows`; raises InputError, which calls it `name`, without or with unequal ones."""
        if not rows or not {*META, *STAGES} <= set(rows):
            raise InputError(
                f"{name} has no row for each frame, so that nothing can be said of chance. Expected a "
                "file that `sightline profile --json` has written; `run --latency` keeps histograms alone."
            )
        columns = {column: np.array(values, np.int64) for column, values in rows.items()}
        if len({len(values) for values in columns.values()}) != 1:
            raise InputError(f"{name}: the columns of its rows differ in length. Measure it again.")
        return cls(columns)

    @property
    def n(self) -> int:
        """Steady frames."""
        return int(self.columns["steady"].sum())

    @property
    def rounds(self) -> Column:
        """The round of each steady frame, (n,)."""
        return self._steady("round")

    @property
    def stages_ms(self) -> Values:
        """Of the steady frames, (stages + 1, n) in the order of `STAGES`, the age last."""
        stages = np.stack([self._steady(stage) for stage in STAGES]) / 1e6
        return np.concatenate([stages, stages.sum(axis=0, keepdims=True)])

    @property
    def steady_s(self) -> tuple[float, float]:
        """From the first steady frame's capture to the last one's, monotonic seconds."""
        at = self._steady("at")
        return (self.begin_ns + int(at[0])) / 1e9, (self.begin_ns + int(at[-1])) / 1e9

    @property
    def models_ms(self) -> dict[str, dict[str, Values]]:
        """By model and stage, of the steady frames that the model saw."""
        found: dict[str, dict[str, Values]] = {}
        for model in dict.fromkeys(name.rpartition(".")[0] for name in self.columns if "." in name):
            laps = np.stack([self._steady(f"{model}.{stage}") for stage in MODEL_STAGES]) / 1e6
            seen = laps[:, laps.any(axis=0)]
            if seen.size:
                found[model] = dict(zip(MODEL_STAGES, seen, strict=True))
        return found

    def spreads(self, percents: Sequence[float] = PERCENTS) -> dict[str, Spread]:
        """By stage, in order, with `age` last, of the steady frames."""
        return {
            name: Spread.of(values, percents)
            for name, values in zip((*STAGES, "age"), self.stages_ms, strict=True)
        }

    def model_spreads(self, percents: Sequence[float] = PERCENTS) -> ModelSpreads:
        """By model and stage."""
        return {
            model: {stage: Spread.of(values, percents) for stage, values in stages.items()}
            for model, stages in self.models_ms.items()
        }

    def as_json(self) -> dict[str, list[int]]:
        """For a report's `rows`."""
        return {name: column.tolist() for name, column in self.columns.items()}

    def _steady(self, name: str) -> Column:
        found: Column = self.columns[name][self.columns["steady"] == 1]
        return found
