"""The instrument is right: what is injected comes out, in its stage and at its percentile.

By a clock that the test turns, where nothing else can take time, and, marked slow, by the real one on real
threads. There a busy machine may take the processor away between the end of a delay and the stamp that follows
it, for any time: then a stage did take longer than what was injected, and the instrument must say so. So each
stage of each frame is held between the delay itself and the time from the event before it to the event after it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import fakes
import numpy as np
import pytest

from edge.cascade import Cascade, Member
from edge.frame import MODEL_STAGES, STAGES, Frame
from edge.pipeline import Limits, Pipeline
from edge.profiler import StageRecorder
from edge.profiling.rows import Rows, Timings
from edge.profiling.sources import Paced, Repeated
from edge.profiling.stats import percentiles

PERCENTS = (50.0, 90.0, 99.0)
FRAMES = 310
INJECTED_MS = {"decode": 1, "preprocess": 1, "infer": 5, "postprocess": 1, "publish": 1}


def _always(milliseconds: float) -> Any:
    return lambda index: milliseconds / 1e3


def _stall(usual_s: float) -> Any:
    """200 ms in 1 % of the frames."""
    return lambda index: 0.2 if index % 100 == 50 else usual_s


class _Both:
    """Rows and histograms under one stamp: as sinks of their own one would see what the other costs."""

    def __init__(self, *sinks: Any) -> None:
        self.sinks, self.writes = sinks, fakes.Spans()

    def open(self, source: Any) -> None:
        for sink in self.sinks:
            sink.open(source)

    def write(self, frame: Any, result: Any) -> None:
        with self.writes:
            for sink in self.sinks:
                sink.write(frame, result)

    def close(self) -> None: ...


@dataclass(frozen=True)
class Truth:
    """What a stage took, frame by frame, in ms: `least` was injected, `most` lay between its neighbours' events."""

    least: Any
    most: Any


def _truths(source: Any, model: Any, sink: Any, last: _Both) -> dict[str, Truth]:
    """By stage. The stamp between two events is after the one's end and before the other's begin."""
    # Whatever happened last before a frame was taken from the ring.
    ready = np.maximum(source.decode.end_ns, [0, *last.writes.end_ns[:-1]])
    events = {
        "decode": (source.decode, source.reads.begin_ns, source.reads.end_ns),
        "preprocess": (model.preprocess, ready, model.inference.begin_ns),
        "infer": (model.inference, model.preprocess.end_ns, model.postprocess.begin_ns),
        "postprocess": (model.postprocess, model.inference.end_ns, sink.publish.begin_ns),
        "publish": (sink.publish, model.postprocess.end_ns, last.writes.begin_ns),
    }
    return {
        stage: Truth(np.array(injected.taken_ns) / 1e6, np.subtract(after, before) / 1e6)
        for stage, (injected, before, after) in events.items()
    }


def measured(
    delays: dict[str, Any], frames: int, rate: float | None = None
) -> tuple[Timings, StageRecorder, dict[str, Truth]]:
    """Stream with delays by stage; the rows, the histograms, and what the stages really took."""
    source = fakes.SlowSource(frames, delays.get("decode", fakes.nothing))
    model = fakes.SlowModel(**{s: delays[s] for s in ("preprocess", "infer", "postprocess") if s in delays})
    sink, rows, recorder = fakes.SlowSink(delays.get("publish", fakes.nothing)), Rows(), StageRecorder()
    fed, last = Paced(source, rate) if rate else source, _Both(rows, recorder)
    Pipeline(fed, fakes.one(model), [sink, last], Limits(frames=frames), lossless=True).run()
    return rows.timings(), recorder, _truths(source, model, sink, last)


def close(found: float, truth: float) -> bool:
    """Within 3 % or 0.1 ms."""
    return abs(found - truth) <= max(0.03 * truth, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [1, 5, 20])
@pytest.mark.parametrize("stage", ["decode", "preprocess", "infer", "postprocess", "publish"])
def test_a_known_delay_comes_out_in_its_stage(stage: str, milliseconds: int) -> None:
    frames = 60 if milliseconds == 20 else 100
    timings, recorder, truths = measured({stage: lambda _: milliseconds / 1e3}, frames)
    _check(timings, recorder, truths, (50.0, 90.0))
    assert truths[stage].least.min() >= milliseconds
    others = set(INJECTED_MS) - {stage}
    assert all(recorder.spreads()[other].percentiles[50.0] < milliseconds / 2 for other in others)


@pytest.mark.slow
def test_stalls_of_200_ms_in_one_frame_of_100_stand_in_the_tail() -> None:
    delays = {stage: _always(ms) for stage, ms in INJECTED_MS.items()}
    timings, recorder, truths = measured(delays | {"infer": _stall(0.005)}, FRAMES)
    _check(timings, recorder, truths, (*PERCENTS, 99.5))
    infer = recorder.spreads((50.0, 99.0))["infer"]
    assert infer.percentiles[50.0] < 100 < infer.max
    assert infer.max == timings.columns["infer"].max() / 1e6
    # 3 of 310 frames: the 307th of them in order of size is the 99th percentile, and the next one a stall.
    assert percentiles(timings.columns["infer"] / 1e6, [99.1]) > 200


class Clock:
    """Stands in for the module `time` where stamps are taken and where delays are injected."""

    def __init__(self) -> None:
        self.now_ns = 1

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def _turned(delays: dict[str, Any], frames: int) -> tuple[Timings, StageRecorder, dict[str, Truth]]:
    """As `measured`, on one thread: what a pipeline does with each frame, and nothing between."""
    source = fakes.SlowSource(frames, delays["decode"])
    model = fakes.SlowModel(**{stage: delays[stage] for stage in ("preprocess", "infer", "postprocess")})
    sink, rows, recorder = fakes.SlowSink(delays["publish"]), Rows(), StageRecorder()
    cascade, last = fakes.one(model), _Both(rows, recorder)
    for part in (cascade.start, sink.open, last.open):
        part(source.open())
    for _ in range(frames):
        frame = Frame()
        source.read(frame)
        frame.stamps.mark("dequeue")
        result = cascade.process(frame)
        for one in (sink, last):
            frame.stamps.mark("publish")
            one.write(frame, result)
    return rows.timings(), recorder, _truths(source, model, sink, last)


@pytest.mark.parametrize("usual_ms", [1, 5, 20])
@pytest.mark.parametrize("stage", list(INJECTED_MS))
def test_by_a_turned_clock_every_percentile_is_what_was_injected(
    stage: str, usual_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("edge.frame.time", clock)
    monkeypatch.setattr(fakes, "time", clock)
    delays = {name: _always(ms) for name, ms in INJECTED_MS.items()} | {stage: _stall(usual_ms / 1e3)}
    timings, recorder, truths = _turned(delays, FRAMES)
    _check(timings, recorder, truths, (*PERCENTS, 99.5))
    assert sorted(set(truths[stage].least)) == sorted(set(truths[stage].most)) == [usual_ms, 200]
    assert recorder.spreads((50.0,))[stage].max == 200


def _check(
    timings: Timings, recorder: StageRecorder, truths: dict[str, Truth], percents: tuple[float, ...]
) -> None:
    """Rows and histograms both: the rows frame by frame, to the nanosecond, so at every percentile too."""
    assert all((timings.columns[stage] >= 0).all() for stage in STAGES)
    for stage, truth in truths.items():
        rows = timings.columns[stage] / 1e6
        assert (truth.least <= rows).all(), stage
        assert (rows <= truth.most).all(), stage
        for percent in percents:
            counted = recorder._stages[stage].percentiles_ns([percent])[0] / 1e6
            assert close(counted, float(percentiles(rows, [percent])[0])), (stage, percent)
        # What lies between is next to nothing, but where the machine took the processor away.
        if stage != "preprocess":  # before which the thread may have to be woken
            assert close(*(float(np.median(side)) for side in (truth.most, truth.least))), stage


def test_the_sum_of_the_stages_is_the_age_of_every_frame() -> None:
    class Ages:
        def __init__(self) -> None:
            self.off_ms: list[float] = []

        def open(self, source: Any) -> None: ...

        def write(self, frame: Any, result: Any) -> None:
            self.off_ms.append(abs(sum(frame.stamps.stages_ms().values()) - frame.stamps.age_ms))

        def close(self) -> None: ...

    for rate in (None, 400.0):
        ages, source = Ages(), fakes.SlowSource(100, lambda _: 0.001)
        fed = Paced(source, rate) if rate else source
        Pipeline(fed, fakes.one(fakes.SlowModel()), [ages], Limits(frames=100), lossless=True).run()
        assert len(ages.off_ms) == 100
        assert max(ages.off_ms) < 1e-3


@pytest.mark.slow
def test_an_open_loop_shows_the_stall_that_a_closed_one_hides() -> None:
    """One stall of 200 ms at 100 frames a second: some 20 frames are late, not one."""
    stall = {"infer": lambda index: 0.2 if index == 100 else 0.001}
    closed, _, _ = measured(stall, 200)
    opened, _, truths = measured(stall, 200, rate=100.0)
    of_closed, of_open = (np.array(sum(t.columns[s] for s in STAGES)) / 1e6 for t in (closed, opened))
    late_closed, late_open = (of_closed > 50).sum(), (of_open > 50).sum()
    # Closed: the frame itself and those that were already in the ring, decoded ahead; no others.
    assert late_closed <= 5
    assert late_open >= 12
    assert late_open > 2 * late_closed
    # The backlog is waiting, whatever stage caused it.
    waited = opened.columns["wait"][101:110] / 1e6
    assert (waited > 50).all()
    assert truths["infer"].least.max() <= opened.columns["infer"].max() / 1e6 <= truths["infer"].most.max()


@pytest.mark.slow
def test_frames_of_an_open_loop_are_due_at_fixed_times() -> None:
    timings, _, _ = measured({"infer": lambda index: 0.03 if index == 5 else 0.0}, 50, rate=200.0)
    assert np.diff(timings.columns["at"]).tolist() == pytest.approx([5e6] * 49, abs=1)
    assert timings.columns["decode"].max() < 25e6


def test_a_short_source_begins_again_until_there_are_enough() -> None:
    source, rows = Repeated(fakes.SlowSource(7)), Rows()
    summary = Pipeline(source, fakes.one(fakes.SlowModel()), [rows], Limits(frames=20), lossless=True).run()
    assert summary.counts.processed == 20
    assert rows.timings().columns["index"].tolist() == list(range(20))


@pytest.mark.slow
def test_opening_a_clip_again_makes_no_frame_of_an_open_loop_late() -> None:
    class SlowToOpen(fakes.SlowSource):
        def open(self) -> Any:
            time.sleep(0.1)
            return super().open()

    rows = Rows()
    source = Paced(SlowToOpen(20), 200.0)
    Pipeline(source, fakes.one(fakes.SlowModel()), [rows], Limits(frames=60), lossless=True).run()
    timings = rows.timings()
    assert np.median(timings.stages_ms[-1]) < 50
    assert (timings.stages_ms[-1] > 90).sum() == 0
    gaps_ms = np.diff(timings.columns["at"]) / 1e6
    assert (gaps_ms > 100).sum() == 2


def test_frames_that_a_model_does_not_see_are_in_no_figure_of_it() -> None:
    every, third = (Member(name, fakes.SlowModel(), interval=n) for name, n in (("every", 1), ("third", 3)))
    rows = Rows()
    Pipeline(fakes.SlowSource(30), Cascade([every, third]), [rows], Limits(frames=30), lossless=True).run()
    timings = rows.timings()
    seen = sum(timings.columns[f"third.{stage}"] for stage in MODEL_STAGES)
    assert np.flatnonzero(seen).tolist() == list(range(0, 30, 3))
    found = timings.models_ms
    assert len(found["every"]["infer"]) == timings.n
    assert len(found["third"]["infer"]) == int((timings.columns["steady"] * (seen > 0)).sum()) > 0


def test_frames_of_the_warm_up_are_in_no_figure_and_all_others_are() -> None:
    timings, _, _ = measured({"infer": lambda index: 0.1 if index < 3 else 0.002}, 60)
    assert timings.states[0].begin >= 3
    assert timings.n == 60 - timings.states[0].begin


def test_an_empty_source_ends_all_the_same() -> None:
    source = Repeated(fakes.SlowSource(0))
    summary = Pipeline(source, fakes.one(fakes.SlowModel()), [], Limits(frames=20), lossless=True).run()
    assert summary.counts.processed == 0


def test_a_clock_that_is_stepped_back_an_hour_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() - 3600 * (next(calls) % 2))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    timings, _, truths = measured({"infer": lambda _: 0.002}, 60)
    assert (truths["infer"].least <= timings.columns["infer"] / 1e6).all()
    assert (timings.columns["infer"] / 1e6 <= truths["infer"].most).all()
    assert timings.stages_ms[-1].max() < 10_000


def test_histograms_are_fixed_in_number_and_size_however_many_frames_there_are() -> None:
    _, recorder, _ = measured({}, 500)
    before = {name: len(found._view()) for name, found in recorder._stages.items()}
    measured({}, 500)
    assert before == {name: len(found._view()) for name, found in recorder._stages.items()}
    assert set(recorder._of_models) == {"slow"}
    assert not any(isinstance(value, list) and len(value) > 10 for value in vars(recorder).values())
