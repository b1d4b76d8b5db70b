"""The runs behind `sightline profile`: one, two in turn, or one for each value of an option."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.errors import InputError
from edge.frame import STAGES
from edge.pipeline import Limits, Pipeline
from edge.profiler import StreamingCost, measure_alone, report_of
from edge.profiling.memory import resident_mb
from edge.profiling.rows import Rows, Timings
from edge.profiling.sources import Paced, Repeated
from edge.profiling.spread import Spread
from edge.profiling.stats import frames_needed, intervals, percent_name
from edge.protocols import Sink, Source
from edge.run import described
from edge.sources import source_of
from edge.tables import resolve

PERCENTS = (50.0, 90.0, 99.0)
"""What is measured unless asked otherwise."""

WARM_UP_SHARE = 0.25
"""More frames than the percentiles need, since those of the warm-up do not count."""

ALONE_FRAMES = 300
"""At most so many, for what streaming costs over its parts: these are means, not percentiles."""

SAMPLER = "edge.profiling.conditions:Sampler"


@dataclass(frozen=True)
class Wanted:
    """How to measure.

    Attributes:
        frames: None takes as many as the percentiles need.
        rate: frames a second of an open loop; None is as fast as it goes.
        sinks: besides the rows; what they cost is nobody's stage.
    """

    percents: tuple[float, ...] = PERCENTS
    frames: int | None = None
    rate: float | None = None
    sinks: Sequence[Sink] = field(default=())

    @property
    def enough(self) -> int:
        """Frames to stream."""
        needed = max(frames_needed(percent) for percent in self.percents)
        return self.frames or math.ceil((1 + WARM_UP_SHARE) * needed)


@dataclass(frozen=True)
class Run:
    """What one run measured; `settings` are those of the report."""

    settings: Mapping[str, Any]
    timings: Timings
    capture_clock: str
    fps: float
    memory_mb: tuple[float, float] | None

    def report(self, wanted: Wanted) -> dict[str, Any]:
        """For `edge.profiling.report.Report`, but for the conditions."""
        timings, percents = self.timings, wanted.percents
        spreads, models = timings.spreads(percents), timings.model_spreads(percents)
        report = report_of(self.settings, self.capture_clock, timings.n, spreads, models)
        states = timings.states
        settled = [state.settled for state in states]
        report |= {
            "fps": round(self.fps, 3),
            "ci95_ms": _intervals(timings, spreads, percents),
            "warm_up": {
                "frames": sum(state.begin for state in states),
                "settled": None if None in settled else all(settled),
            },
            "rows": timings.as_json(),
        }
        if wanted.rate:
            report["open_loop"] = {"offered_fps": wanted.rate, "achieved_fps": round(self.fps, 3)}
        if self.memory_mb:
            report["memory_mb"] = dict(zip(("peak", "steady"), self.memory_mb, strict=True))
        return report


@dataclass(frozen=True)
class Profiled:
    """A run with its report; `cost` is what streaming costs, None of an open loop."""

    run: Run
    report: dict[str, Any]
    cost: StreamingCost | None = None


def measure(settings: StreamSettings) -> tuple[Timings, StreamingCost]:
    """Time the parts alone, then the stream, over the same frames and without any other sink."""
    wanted = Wanted(frames=settings.frames)
    with closing(Cascade.open(settings.chosen(), settings.score_threshold)) as models:
        alone = measure_alone(_source(settings), models, min(wanted.enough, ALONE_FRAMES))
        run = stream(settings, models, wanted)
    return run.timings, StreamingCost(alone, run.fps)


def profile_one(settings: StreamSettings, wanted: Wanted) -> Profiled:
    """One run and its report; without a rate also what streaming costs over its parts.

    Raises:
        SightlineError: whatever the bundle or the source finds wrong.
    """
    cost = None
    with ExitStack() as stack:
        models = stack.enter_context(closing(Cascade.open(settings.chosen(), settings.score_threshold)))
        sampler = stack.enter_context(_sampler())
        if wanted.rate is None:
            alone = measure_alone(_source(settings), models, min(wanted.enough, ALONE_FRAMES))
        run = stream(settings, models, wanted)
        if wanted.rate is None:
            cost = StreamingCost(alone, run.fps)
    # The energy of n frames lasts from the first one's capture to that of the one after the last.
    conditions = sampler.result(run.timings.n - 1, run.timings.steady_s).as_json()
    report = run.report(wanted) | {"streaming": cost and cost.as_json(), "conditions": conditions}
    return Profiled(run, report, cost)


def stream(settings: StreamSettings, models: Cascade, wanted: Wanted) -> Run:
    """Every frame, in order, through the models; nothing is dropped, a backlog shows as age."""
    rows = Rows()
    fps = _stream_into(rows, settings, models, wanted, wanted.enough)
    return _run(settings, models, rows, fps, wanted.enough)


def profile_in_turn(
    both: tuple[StreamSettings, StreamSettings], wanted: Wanted, rounds: int
) -> list[Profiled]:
    """Two runs that took turns, A B B A A B ..., so that the machine's mood met both; with reports.

    Raises:
        InputError: fewer than 2 rounds, or what a bundle or the source finds wrong.
    """
    if rounds < 2:
        raise InputError(f"--interleave is {rounds}: expected at least 2 rounds; 10 or more tell more.")
    each = math.ceil(wanted.enough / rounds)
    with ExitStack() as stack:
        models = [
            stack.enter_context(closing(Cascade.open(one.chosen(), one.score_threshold))) for one in both
        ]
        sampler = stack.enter_context(_sampler())
        rows, seconds = (Rows(), Rows()), [0.0, 0.0]
        for number in range(rounds):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                rows[which].round = number
                fps = _stream_into(rows[which], both[which], models[which], wanted, each)
                seconds[which] += each / fps
        runs = [
            _run(one, cascade, kept, rounds * each / spent, rounds * each)
            for one, cascade, kept, spent in zip(both, models, rows, seconds, strict=True)
        ]
    met = {"conditions": sampler.result().as_json()}
    return [Profiled(run, run.report(wanted) | met) for run in runs]


def _stream_into(rows: Rows, settings: StreamSettings, models: Cascade, wanted: Wanted, frames: int) -> float:
    """Stream so many frames into the rows; returns frames a second."""
    opened = source_of(settings)
    source = Repeated(opened) if wanted.rate is None else Paced(opened, wanted.rate)
    sinks = [rows, *wanted.sinks]
    return Pipeline(source, models, sinks, Limits(frames=frames), lossless=True).run().fps


def _run(settings: StreamSettings, models: Cascade, rows: Rows, fps: float, frames: int) -> Run:
    what = described(settings, models) | {"lossless": True, "frames": frames}
    return Run(what, rows.timings(), rows.capture_clock, fps, resident_mb())


def _source(settings: StreamSettings) -> Source:
    return Repeated(source_of(settings))


def _sampler() -> Any:
    return resolve(SAMPLER)()


def _intervals(
    timings: Timings, spreads: Mapping[str, Spread], percents: Sequence[float]
) -> dict[str, dict[str, tuple[float, float] | None]]:
    """By stage and percentile; None where the percentile is."""
    found = intervals(timings.stages_ms, percents).round(4).tolist()
    return {
        stage: {
            percent_name(percent): None if spreads[stage].percentiles[percent] is None else (low, high)
            for percent, (low, high) in zip(percents, of_stage, strict=True)
        }
        for stage, of_stage in zip((*STAGES, "age"), found, strict=True)
    }
