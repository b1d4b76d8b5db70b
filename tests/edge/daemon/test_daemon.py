"""Several cameras at once: fairness, accounting, losses, age, and what a reload leaves alone."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from daemon_stage import Camera, Collector, Sleeper, cameras, daemon_of, steady

from bench.staleness import by_daemon, by_queue
from edge.camera.health import CameraHealth
from edge.camera.retries import DEGRADED_S, JITTER
from edge.config import CameraSettings, StreamSettings
from edge.daemon import Daemon
from edge.errors import DeviceFailed, InputError, SourceError, SourceRefused
from edge.frame import Frame
from edge.ring import Counts
from edge.run_daemon import _in_words
from edge.runners.cuda import CudaError


def settings_of(*names: str, **options: Any) -> StreamSettings:
    return StreamSettings(cameras=cameras(*names), build_plans=False, **options)


def adds_up(counts: Counts) -> bool:
    return counts.captured == counts.processed + counts.dropped + counts.in_flight


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)


class Running:
    """A daemon on a thread of its own, for the duration of a `with`."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.counts = daemon, Counts()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.counts = self.daemon.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Running:
        self._thread.start()
        until(lambda: self.error or self.daemon.state.snapshot()["cameras"])
        return self

    def __exit__(self, *error: object) -> None:
        self.daemon.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def camera(self, name: str) -> dict[str, Any]:
        return next(c for c in self.daemon.state.snapshot()["cameras"] if c["name"] == name)


def test_each_frame_bears_its_cameras_name_and_its_own_pixels() -> None:
    sink = Collector()
    sources = {"a": Camera(20, clock="file"), "b": Camera(20, clock="file")}
    settings = StreamSettings(cameras=cameras("a", "b", lossless=True), build_plans=False)
    counts = daemon_of(settings, sources, Sleeper(), sink).run()
    assert counts == Counts(40, 40, 0, 0)
    assert sink.indices == {"a": list(range(20)), "b": list(range(20))}
    assert sink.labels["a"] == sink.labels["b"] == [str(index) for index in range(20)]
    assert (sorted(sink.opened), sink.closed) == (["a", "b"], 1)
    assert all(source.closed.is_set() for source in sources.values())


def test_cameras_that_are_never_idle_get_the_same_number_of_turns() -> None:
    sink = Collector()
    sources = {"fast": Camera(fps=300), "slow": Camera(fps=60), "medium": Camera(fps=120)}
    daemon = daemon_of(settings_of(*sources, frames=60), sources, Sleeper(0.02), sink)
    assert adds_up(daemon.run())
    turns = sink.order[9:]  # from when all are open
    assert [turns.count(name) for name in sources] == pytest.approx([len(turns) / 3] * 3, abs=3)
    longest = max(len(list(run)) for _, run in itertools.groupby(turns))
    assert longest <= 2, "a camera went twice while another one waited"


def test_slow_model_gets_the_newest_and_every_cameras_frames_are_accounted_for() -> None:
    sink = Collector()
    sources = {name: Camera(100, fps=200) for name in ("a", "b")}
    daemon = daemon_of(
        StreamSettings(cameras=cameras("a", "b", reopen=False), build_plans=False),
        sources, Sleeper(0.02), sink,
    )  # fmt: skip
    counts = daemon.run()
    assert adds_up(counts)
    assert counts.captured == 200
    for camera in daemon.state.snapshot()["cameras"]:
        name, processed = camera["name"], camera["processed"]
        assert camera["captured"] == 100 == processed + camera["dropped"]
        assert sum(camera["dropped_for"].values()) == camera["dropped"] > 20
        assert len(sink.indices[name]) == processed
        assert sink.indices[name] == sorted(set(sink.indices[name]))
        assert sink.labels[name] == [str(index) for index in sink.indices[name]], "a slot was overwritten"


def test_crash_loop_of_one_camera_costs_the_others_no_frame() -> None:
    sink = Collector()
    sources = {"broken": Camera(fps=200, fails_after=3), "good": Camera(fps=50)}
    settings = StreamSettings(cameras=(*cameras("broken"), steady("good")), build_plans=False)
    daemon = daemon_of(settings, sources, Sleeper(), sink)
    with Running(daemon) as running:
        until(lambda: running.camera("broken")["state"] == "degraded")
        assert running.camera("broken")["last_error"] == "the cable was pulled"
        until(lambda: sources["broken"].opened >= 4)
        until(lambda: running.camera("broken")["reconnects"] >= 3)
    good = running.camera("good")
    assert adds_up(running.counts)
    assert set(good["dropped_for"]) <= {"ended"}
    assert sink.indices["good"] == list(range(good["processed"])), "a frame of the good one is missing"
    assert max(sink.ages["good"]) < 500, "the good one was held up"
    assert sources["good"].opened == 1
    assert sink.indices["broken"] == sorted(set(sink.indices["broken"])), "its numbers go on"


def test_source_that_cannot_be_made_is_tried_again() -> None:
    tries, good = [], Camera(fps=50)

    def make(camera: CameraSettings, secrets: Any) -> Any:
        if camera.name == "good":
            return good
        tries.append(time.monotonic())
        raise InputError("the password file is not there yet")

    daemon = daemon_of(settings_of("good", "bad"), {}, Sleeper())
    daemon._make_source = make
    with Running(daemon) as running:
        until(lambda: len(tries) >= 3 and running.camera("good")["processed"] > 3)
        assert "password file" in running.camera("bad")["last_error"]
    assert running.error is None


def test_camera_that_refuses_the_user_is_asked_seldom() -> None:
    """Cameras lock an account after some tries: one that is lost is opened again after 0.25 s, this one after 2."""

    @dataclass
    class Fails(Camera):
        kind: type[Exception] = SourceError
        opened_s: list[float] = field(default_factory=list)

        def open(self) -> Any:
            self.opened_s.append(time.monotonic())
            raise self.kind("it refuses the user or the password")

    lost, refused = Fails(), Fails(kind=SourceRefused)
    with Running(daemon_of(settings_of("lost", "refused"), {"lost": lost, "refused": refused}, Sleeper())):
        until(lambda: len(refused.opened_s) == 2 and len(lost.opened_s) >= 2)
    assert refused.opened_s[1] - refused.opened_s[0] >= DEGRADED_S * (1 - JITTER)
    assert lost.opened_s[1] - lost.opened_s[0] < refused.opened_s[1] - refused.opened_s[0]


def test_file_that_ends_leaves_the_others_and_the_last_one_ends_the_daemon() -> None:
    sink = Collector()
    sources = {"short": Camera(5, clock="file", fps=50), "long": Camera(40, clock="file", fps=50)}
    counts = daemon_of(settings_of("short", "long"), sources, Sleeper(), sink).run()
    assert (counts.captured, counts.in_flight) == (45, 0)
    assert sink.indices["long"][-1] == 39


def test_camera_with_reopen_begins_again() -> None:
    source = Camera(5, clock="file", fps=100)
    settings = StreamSettings(cameras=cameras("a", reopen=True), frames=40, build_plans=False)
    sink, states = Collector(), set()
    daemon = daemon_of(settings, {"a": source}, Sleeper(), sink)
    sink.on_write = lambda frame: states.add(daemon.state.snapshot()["cameras"][0]["state"])
    daemon.run()
    assert source.opened >= 8
    assert daemon.state.snapshot()["cameras"][0]["reconnects"] == 0, "nor is it a reconnect"
    assert sink.indices["a"] == sorted(set(sink.indices["a"]))
    assert states == {"live"}, "the end of a short clip is no loss"


def test_frames_that_are_too_old_are_dropped_as_stale() -> None:
    # Each camera's frame waits while the other one's is inferred: that alone takes longer than allowed.
    sources = {name: Camera(fps=20) for name in ("a", "b")}
    settings = StreamSettings(
        cameras=(*cameras("a"), *cameras("b", max_age_ms=5)), seconds=1.5, build_plans=False
    )
    daemon = daemon_of(settings, sources, Sleeper(0.04))
    counts = daemon.run()
    by_name = {camera["name"]: camera for camera in daemon.state.snapshot()["cameras"]}
    assert adds_up(counts)
    assert by_name["b"]["dropped_for"]["stale"] > 3
    assert "stale" not in by_name["a"]["dropped_for"]


def test_only_each_nth_frame_of_a_camera_with_an_interval() -> None:
    sink = Collector()
    source = Camera(30, clock="file", fps=0)
    settings = StreamSettings(cameras=cameras("a", interval=3), build_plans=False)
    counts = daemon_of(settings, {"a": source}, Sleeper(), sink).run()
    assert sink.indices["a"] == list(range(0, 30, 3))
    assert counts == Counts(30, 10, 20, 0)
    assert counts.dropped_for == {"interval": 20}


def test_backlog_by_the_streams_own_timestamps_is_flushed_and_counted() -> None:
    # Frame 20 comes 0.3 s late, and those behind it at once, as after a stall of the network.
    source = Camera(80, fps=100, media=lambda index: 7_000_000_000 + index * 10_000_000, stall=(20, 0.3))
    sink = Collector()
    settings = StreamSettings(cameras=cameras("a", reopen=False, backlog_ms=100), build_plans=False)
    daemon = daemon_of(settings, {"a": source}, Sleeper(), sink)
    counts = daemon.run()
    (camera,) = daemon.state.snapshot()["cameras"]
    assert adds_up(counts)
    assert camera["backlog"]["backlogs"] >= 1
    assert camera["backlog"]["flushed"] == camera["dropped_for"]["backlog"] >= 15
    assert not set(range(20, 35)) & set(sink.indices["a"]), "a frame of the backlog was processed"
    assert sink.indices["a"][-1] == 79
    assert "late by the stream's own timestamps" in camera["last_error"]


def test_the_reason_that_is_told_is_the_later_one() -> None:
    """Its decoder was refused once, long ago; what is wrong now is a backlog, and then the decoder again."""
    refused = CameraHealth("streaming", 0.0, last_error="Connection refused", error_s=time.monotonic())

    @dataclass
    class Decoded(Camera):
        health: Callable[[], CameraHealth] = lambda: refused

    source = Decoded(fps=100, media=lambda index: index * 1_000_000)
    with Running(daemon_of(settings_of("a"), {"a": source}, Sleeper())) as running:
        until(lambda: "late by the stream's own timestamps" in (running.camera("a")["last_error"] or ""))
        source.health = lambda: replace(refused, error_s=time.monotonic() + 60)
        assert running.camera("a")["last_error"] == "Connection refused"


def test_frames_lost_in_the_decoders_are_in_the_sum() -> None:
    @dataclass
    class Decoded(Camera):
        lost: int = 0

        def health(self) -> CameraHealth:
            return CameraHealth("streaming", 0.0, dropped=self.lost)

    sources = {"a": Decoded(3, clock="file", lost=7), "b": Decoded(3, clock="file", lost=5)}
    daemon = daemon_of(settings_of("a", "b"), sources, Sleeper())
    counts = daemon.run()
    assert [camera["lost_before"] for camera in daemon.state.snapshot()["cameras"]] == [7, 5]
    assert _in_words(counts).endswith(", 12 more lost in the decoder.")


def test_hiccup_of_the_gpu_costs_a_frame() -> None:
    class Hiccups(Sleeper):
        def infer(self, pixels: Any) -> Any:
            if pixels[0, 0, 0] % 4 == 3:
                raise CudaError("CUDA's cudaStreamSynchronize failed: cudaErrorLaunchFailure (719).")
            return {}

    settings = StreamSettings(cameras=(steady("a"),), frames=20, build_plans=False)
    daemon = daemon_of(settings, {"a": Camera()}, Hiccups())
    daemon.run()
    assert daemon.state.snapshot()["cameras"][0]["dropped_for"]["failed"] == 6


def test_models_that_fail_drop_the_frame_and_at_last_end_the_daemon() -> None:
    daemon = daemon_of(settings_of("a"), {"a": Camera()}, Sleeper(fails=True))
    with pytest.raises(DeviceFailed, match=r"failed on 10 frames in a row.*accelerator is gone"):
        daemon.run()
    (camera,) = daemon.state.snapshot()["cameras"]
    assert camera["dropped_for"]["failed"] == 10


def test_sink_that_fails_loses_and_is_counted_while_the_stream_goes_on() -> None:
    def full(frame: Frame) -> None:
        if frame.index % 2:
            raise InputError("the disk is full")

    sink = Collector(on_write=full)
    settings = StreamSettings(cameras=(steady("a"),), frames=20, build_plans=False)
    daemon = daemon_of(settings, {"a": Camera(fps=200)}, Sleeper(), sink)
    daemon.run()
    (shown,) = daemon.state.snapshot()["sinks"]
    assert shown["name"] == "collector"
    assert shown["lost"] == 20 - len(sink.indices["a"]) == 10
    assert shown["last_error"] == "the disk is full"


def test_stop_is_quick_even_when_a_source_hangs() -> None:
    class Hanging(Camera):
        def read(self, frame: Frame) -> bool:
            return self.stopped.wait(30) and False

        stopped = threading.Event()

    hanging = Hanging()
    daemon = daemon_of(settings_of("a", "b"), {"a": Camera(), "b": hanging}, Sleeper())
    with Running(daemon) as running:
        until(lambda: running.camera("a")["processed"] > 3)
        begin_s = time.monotonic()
    assert time.monotonic() - begin_s < 1.5
    hanging.stopped.set()


def test_reload_keeps_what_did_not_change() -> None:
    """`kept` runs on without a gap, `changed` is opened anew, `gone` ends, `new` begins."""
    sources = {name: Camera(fps=100) for name in ("kept", "changed", "gone", "new")}
    before = StreamSettings(cameras=(steady("kept"), *cameras("changed", "gone")), build_plans=False)
    after = StreamSettings(
        cameras=(steady("kept"), *cameras("changed", max_age_ms=900), *cameras("new")), build_plans=False
    )
    sink, answers = Collector(), iter([InputError("stream.toml, line 3: no such key"), after])

    def reread() -> StreamSettings:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    daemon = daemon_of(before, sources, Sleeper(), sink, reread=reread)
    with Running(daemon) as running:
        until(lambda: all(running.camera(name)["processed"] > 3 for name in ("kept", "changed", "gone")))
        daemon.reload()
        until(lambda: daemon.state.snapshot()["reloads"]["refused"])
        assert "no such key" in daemon.state.snapshot()["reloads"]["last_error"]
        assert sources["gone"].opened == 1
        daemon.reload()
        until(lambda: daemon.state.snapshot()["reloads"]["done"])
        until(lambda: running.camera("new")["processed"] > 3)
        names = [camera["name"] for camera in daemon.state.snapshot()["cameras"]]
        kept = running.camera("kept")
    assert names == ["kept", "changed", "new"]
    assert [sources[name].opened for name in ("kept", "changed", "gone", "new")] == [1, 2, 1, 1]
    assert sources["gone"].closed.is_set()
    assert adds_up(running.counts)
    assert running.counts.captured > kept["captured"]
    assert sink.indices["kept"] == list(range(len(sink.indices["kept"]))), "a frame was lost by the reload"


def test_camera_that_a_reload_took_away_leaves_its_counts_and_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.daemon.STATUS_S", 0.0)
    made: list[weakref.ref[Camera]] = []
    settings = (
        StreamSettings(cameras=cameras("a", interval=n), build_plans=False) for n in itertools.count(1)
    )

    def make(camera: CameraSettings, secrets: Any) -> Any:
        source = Camera(fps=200)
        made.append(weakref.ref(source))
        return source

    daemon = daemon_of(next(settings), {}, Sleeper(), reread=lambda: next(settings))
    daemon._make_source = make
    with Running(daemon) as running:
        for reloads in range(1, 4):
            until(lambda: running.camera("a")["captured"] > 3)
            daemon.reload()
            until(lambda done=reloads: daemon.state.snapshot()["reloads"]["done"] == done)
        until(lambda: gc.collect() >= 0 and [source() for source in made[:-1]] == [None] * 3)
    assert adds_up(running.counts)
    assert running.counts.captured > 4 * 3


def test_reload_refuses_what_is_read_at_the_start_only() -> None:
    before, after = settings_of("a"), settings_of("a", frames=3)
    daemon = daemon_of(before, {"a": Camera()}, Sleeper(), reread=lambda: after)
    with Running(daemon):
        daemon.reload()
        until(lambda: daemon.state.snapshot()["reloads"]["refused"])
    assert "frames" in daemon.state.snapshot()["reloads"]["last_error"]


def test_ages_stay_bounded_when_the_model_is_three_times_slower() -> None:
    """A tenth of a second of slack, since the machine may be busy; bench/staleness.py allows 10 ms."""
    fps, infer_s, seconds = 20.0, 0.15, 3.0
    ours = by_daemon(seconds, fps, infer_s)
    newest_dropped = by_queue("queue of two", 2, seconds, fps, infer_s)
    fifo = by_queue("fifo", 0, seconds, fps, infer_s)
    assert (ours.exact, newest_dropped.exact, fifo.exact) == (True, True, True)
    assert ours.in_flight == 0
    assert ours.max_ms <= ours.infer_p99_ms + 1e3 / fps + 100
    assert newest_dropped.p50_ms > 1.5 * ours.p50_ms
    assert fifo.max_ms > 3 * ours.max_ms
