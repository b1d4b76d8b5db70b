"""The stream: modes, limits, errors, and what is left behind."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edge.cascade import Cascade, Member
from edge.errors import InputError, SourceError
from edge.frame import STAGES, CaptureClock, Frame
from edge.pipeline import Limits, Pipeline
from edge.pixels import fit
from edge.protocols import SourceInfo
from edge.results import Classification, FrameResult


class Counting:
    """A source whose picture's brightness is its index."""

    def __init__(
        self,
        frames: int | None = 40,
        fps: float = 200.0,
        fails_at: int | None = None,
        clock: CaptureClock = "file",
    ) -> None:
        self.frames, self.fps, self.fails_at, self.clock = frames, fps, fails_at, clock
        self.index, self.closed = 0, False
        self.threads: set[int] = set()

    def open(self) -> SourceInfo:
        self.threads.add(threading.get_ident())
        return SourceInfo("counting", 16, 12, self.fps, self.frames, self.clock)

    def read(self, frame: Frame) -> bool:
        self.threads.add(threading.get_ident())
        if self.index == self.fails_at:
            raise SourceError("the cable was pulled")
        if self.index == self.frames:
            return False
        frame.stamps.mark("capture")
        frame.buffer(12, 16)[:] = self.index % 256
        frame.index = self.index
        self.index += 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed = True


@dataclass
class Brightness:
    """A model that says whether the picture is dark or light; `delay_s` makes it slow."""

    delay_s: float = 0.0
    fails_at: int | None = None
    finds_faces: bool = False

    def prepare(self, picture: Any, shared: Any = None) -> Any:
        return fit(picture, 4, 4, "crop")[None]

    def infer(self, pixels: Any) -> Any:
        time.sleep(self.delay_s)
        if pixels[0, 0, 0, 0] == self.fails_at:
            raise RuntimeError("the accelerator is gone")
        light = pixels.mean(dtype=np.float32) / 255
        return {"logits": np.array([[1 - light, light]], np.float32)}

    def decode(self, heads: Any, picture: Any) -> Classification:
        scores = heads["logits"][0]
        best = int(scores.argmax())
        return Classification(scores, best, ("dark", "light")[best])


def one(model: Any) -> Cascade:
    return Cascade([Member("brightness", model)])


@dataclass
class Collector:
    """A sink that keeps what it was given."""

    indices: list[int] = field(default_factory=list)
    brightness: list[int] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    info: SourceInfo | None = None
    closed: int = 0
    fails_at: int | None = None

    def open(self, source: SourceInfo) -> None:
        self.info = source

    def write(self, frame: Frame, result: FrameResult) -> None:
        if frame.index == self.fails_at:
            raise InputError("the disk is full")
        self.indices.append(frame.index)
        self.brightness.append(int(frame.pixels[0, 0, 0]))
        self.stages.append(frame.stamps.stages_ms())
        self.ages.append(frame.stamps.age_ms)

    def close(self) -> None:
        self.closed += 1


def test_lossless_gives_every_frame_in_order_with_its_own_pixels() -> None:
    source, sink = Counting(), Collector()
    summary = Pipeline(source, one(Brightness()), [sink], lossless=True).run()
    assert sink.indices == sink.brightness == list(range(40))
    assert (summary.counts.captured, summary.counts.processed, summary.counts.dropped) == (40, 40, 0)
    assert summary.fps == pytest.approx(40 / summary.seconds)
    assert sink.info == summary.source
    assert (sink.closed, source.closed) == (1, True)


def test_source_is_used_by_one_thread_that_is_not_the_callers() -> None:
    source = Counting()
    Pipeline(source, one(Brightness()), lossless=True).run()
    assert len(source.threads) == 1
    assert threading.get_ident() not in source.threads


def test_slow_model_drops_frames_and_all_are_accounted_for() -> None:
    sink = Collector()
    summary = Pipeline(Counting(frames=100), one(Brightness(delay_s=0.02)), [sink]).run()
    counts = summary.counts
    assert counts.captured == counts.processed + counts.dropped == 100
    assert counts.in_flight == 0
    assert counts.dropped > 20
    assert sink.indices == sorted(set(sink.indices))
    assert sink.indices[-1] == 99
    assert sink.brightness == sink.indices, "a slot was overwritten in the model's hands"


def test_file_plays_at_its_own_speed_unless_lossless() -> None:
    begin_s = time.monotonic()
    Pipeline(Counting(frames=31, fps=100), one(Brightness())).run()
    # By a clock of our own: the summary's begins when the calling thread gets to run.
    assert time.monotonic() - begin_s >= 0.3
    assert Pipeline(Counting(frames=31, fps=1), one(Brightness()), lossless=True).run().seconds < 15


def test_a_file_begins_at_once_and_a_camera_is_read_as_its_frames_come() -> None:
    first = Pipeline(Counting(fps=0.05), one(Brightness()), limits=Limits(frames=1))
    assert first.run().seconds < 10
    camera = Pipeline(Counting(frames=6, fps=0.2, clock="arrival"), one(Brightness()))
    assert camera.run().seconds < 15


def test_pictures_without_a_rate_are_never_dropped() -> None:
    summary = Pipeline(Counting(frames=30, fps=0), one(Brightness(delay_s=0.002))).run()
    assert (summary.counts.processed, summary.counts.dropped) == (30, 0)


def test_stages_add_up_to_the_age_and_show_where_the_time_went() -> None:
    sink = Collector()
    Pipeline(Counting(frames=5), one(Brightness(delay_s=0.02)), [sink], lossless=True).run()
    for stages, age in zip(sink.stages, sink.ages, strict=True):
        assert tuple(stages) == STAGES
        assert sum(stages.values()) == pytest.approx(age)
        assert all(ms >= 0 for ms in stages.values())
        assert stages["infer"] >= 20


def test_frame_limit_is_exact() -> None:
    for lossless in (True, False):
        source = Counting(frames=None)
        summary = Pipeline(source, one(Brightness()), limits=Limits(frames=7), lossless=lossless).run()
        assert summary.counts.processed == 7
        assert source.closed
    assert Pipeline(
        Counting(frames=None), one(Brightness()), limits=Limits(frames=7), lossless=True
    ).run().counts.captured == 7  # fmt: skip


def test_time_limit_ends_an_endless_stream() -> None:
    summary = Pipeline(Counting(frames=None), one(Brightness()), limits=Limits(seconds=0.2)).run()
    assert 0.2 <= summary.seconds < 5
    assert summary.counts.in_flight == 0


def test_stop_ends_the_stream_with_its_sinks_closed() -> None:
    sink = Collector()
    pipeline = Pipeline(Counting(frames=None), one(Brightness()), [sink])
    threading.Timer(0.2, pipeline.stop).start()
    summary = pipeline.run()
    assert summary.counts.processed == len(sink.indices) > 0
    assert sink.closed == 1


def test_no_frame_is_decoded_while_the_sinks_are_closed() -> None:
    source, during = Counting(frames=None, fps=500), []

    class Slow(Collector):
        def close(self) -> None:
            time.sleep(0.05)  # a read that was under way has ended
            begun = source.index
            time.sleep(0.2)
            during.append(source.index - begun)

    Pipeline(source, one(Brightness()), [Slow()], limits=Limits(frames=3)).run()
    assert during == [0]


class Silent(Counting):
    """Gives so many frames, and then waits; or in `open` already, without any."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames=frames + 1)
        self.silent_from, self.stopped = frames, threading.Event()

    def open(self) -> SourceInfo:
        if not self.silent_from:
            self.stopped.wait(20)
        return super().open()

    def read(self, frame: Frame) -> bool:
        if self.index == self.silent_from:
            self.stopped.wait(20)
        return super().read(frame)

    def stop(self) -> None:
        self.stopped.set()


def test_a_source_that_waits_is_told_to_stop() -> None:
    source = Silent(3)
    Pipeline(source, one(Brightness()), limits=Limits(seconds=0.3)).run()
    assert source.closed
    opening = Silent(0)
    pipeline = Pipeline(opening, one(Brightness()))
    pipeline.stop()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert opening.stopped.is_set()


def test_source_error_comes_after_the_frames_before_it() -> None:
    sink, source = Collector(), Counting(fails_at=5)
    with pytest.raises(SourceError, match="cable"):
        Pipeline(source, one(Brightness()), [sink], lossless=True).run()
    assert sink.indices == [0, 1, 2, 3, 4]
    assert (sink.closed, source.closed) == (1, True)


def test_source_that_does_not_open_leaves_the_sinks_alone() -> None:
    class Missing(Counting):
        def open(self) -> SourceInfo:
            raise SourceError("no such camera")

    sink, source = Collector(), Missing()
    with pytest.raises(SourceError, match="no such camera"):
        Pipeline(source, one(Brightness()), [sink]).run()
    assert (sink.info, sink.closed, source.closed) == (None, 0, True)


@pytest.mark.parametrize(
    ("model", "bad_sink", "message"),
    [
        (Brightness(fails_at=3), Collector(), "accelerator is gone"),
        (Brightness(), Collector(fails_at=3), "disk is full"),
    ],
)
def test_failing_model_or_sink_closes_everything(model: Any, bad_sink: Collector, message: str) -> None:
    good, source = Collector(), Counting(frames=None)
    before = threading.active_count()
    with pytest.raises(Exception, match=message):
        Pipeline(source, one(model), [good, bad_sink], lossless=True).run()
    assert (good.closed, bad_sink.closed, source.closed) == (1, 1, True)
    assert threading.active_count() == before


def test_sink_that_does_not_open_closes_those_before_it() -> None:
    class ReadOnly(Collector):
        def open(self, source: SourceInfo) -> None:
            raise InputError("read-only folder")

    first, source = Collector(), Counting(frames=None)
    with pytest.raises(InputError, match="read-only"):
        Pipeline(source, one(Brightness()), [first, ReadOnly()]).run()
    assert (first.closed, source.closed) == (1, True)
