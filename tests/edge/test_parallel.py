"""Models side by side: the same results, no time lost or counted twice, errors that come through, and the choice."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.parallel
from edge.cascade import Cascade, Member
from edge.frame import MODEL_STAGES, Frame
from edge.parallel import GAIN, TRIES, Choice, Crew
from edge.pixels import Image
from edge.protocols import SourceInfo
from edge.results import Classification, Faces

CAMERA = SourceInfo("camera", 16, 12, 30.0, None, "arrival")


@dataclass
class Taking:
    """A model that takes so long; it keeps the threads it ran on, and meets others at a barrier."""

    seconds: float = 0.0
    faces: int | None = None
    barrier: threading.Barrier | None = None
    error: Exception | None = None
    threads: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def finds_faces(self) -> bool:
        return self.faces is not None

    def prepare(self, picture: Image, shared: object = None) -> Image:
        return picture

    def infer(self, pixels: Image) -> Any:
        self.threads.append(threading.current_thread().name)
        if self.barrier is not None:
            self.barrier.wait(10)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return {}

    def decode(self, heads: Any, picture: Image) -> Any:
        if self.faces is None:
            return Classification(np.ones(1, np.float32), 0, str(int(picture[0, 0, 0])))
        boxes = np.tile(np.float32([2, 2, 9, 9]), (self.faces, 1))
        return Faces(boxes, np.full(self.faces, 0.9, np.float32))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.cascade.cores", lambda: 2)


def cascade_of(*models: tuple[str, Any, str], parallel: bool | None = True, **options: Any) -> Cascade:
    members = [Member(name, model, input, **options) for name, model, input in models]  # type: ignore[arg-type]
    cascade = Cascade(members, parallel)
    cascade.start(CAMERA)
    return cascade


def frame_of(brightness: int = 50) -> Frame:
    frame = Frame()
    frame.buffer(12, 16)[:] = brightness
    for step in ("capture", "decode", "dequeue"):
        frame.stamps.mark(step)
    return frame


def test_two_models_infer_at_the_same_time_each_on_the_frame_that_it_was_given() -> None:
    barrier = threading.Barrier(2)  # nobody passes alone
    first, second = Taking(barrier=barrier), Taking(barrier=barrier)
    cascade = cascade_of(("a", first, "frame"), ("b", second, "frame"))
    for brightness in range(20):
        result = cascade.process(frame_of(brightness))
        assert list(result.by_model) == ["a", "b"]
        assert [found.summary() for found in result.by_model.values()] == [f"{brightness} 1.00"] * 2
    cascade.close()
    assert first.closed
    assert second.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("model")]


def test_crops_follow_their_detector_on_its_thread() -> None:
    barrier = threading.Barrier(2)
    find, other, crop = Taking(faces=2, barrier=barrier), Taking(barrier=barrier), Taking()
    cascade = cascade_of(("face", find, "frame"), ("cats", other, "frame"), ("crop", crop, "faces"))
    result = cascade.process(frame_of())
    cascade.close()
    assert crop.threads == find.threads * 2
    assert other.threads != find.threads
    assert list(result.by_model) == ["face", "cats"]
    assert [list(face.classes) for face in result.faces] == [["crop"], ["crop"]]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0, 0.003), st.sampled_from([None, 0, 2])), min_size=1, max_size=4),
    st.booleans(),
)
def test_the_stages_add_up_to_the_age_to_the_nanosecond_whichever_way(
    wanted: list[tuple[float, int | None]], parallel: bool
) -> None:
    models: list[tuple[str, Any, str]] = [
        (f"m{number}", Taking(seconds, faces), "frame") for number, (seconds, faces) in enumerate(wanted)
    ]
    if any(faces is not None for _, faces in wanted):
        models.append(("crop", Taking(), "faces"))
    cascade = cascade_of(*models, parallel=parallel)
    frame = frame_of()
    cascade.process(frame)
    frame.stamps.mark("publish")
    cascade.close()
    stamps = frame.stamps
    assert stamps.postprocess == max(laps.last_ns for laps in stamps.models.values()) <= stamps.publish
    assert stamps.dequeue <= stamps.preprocess <= stamps.infer <= stamps.postprocess
    assert sum(stamps.stages_ms().values()) == pytest.approx(stamps.age_ms, abs=1e-9)
    begins = [laps.begin_ns for laps in stamps.models.values()]
    ends = {stamps.dequeue, *(laps.last_ns for laps in stamps.models.values())}
    assert set(begins) <= ends, "each begins with the frame, or where another ended: no time is lost"
    if not parallel:
        spent = sum(laps.spent_ns[stage] for laps in stamps.models.values() for stage in MODEL_STAGES)
        assert stamps.dequeue + spent == stamps.postprocess


@pytest.mark.parametrize("fails", ["own", "helper"])
def test_an_error_comes_through_when_the_other_has_ended_and_the_next_frame_is_processed(fails: str) -> None:
    barrier = threading.Barrier(2)
    first, second = Taking(barrier=barrier), Taking(barrier=barrier)
    cascade = cascade_of(("a", first, "frame"), ("b", second, "frame"))
    (first if fails == "own" else second).error = RuntimeError("the accelerator is gone")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="the accelerator is gone"):
            cascade.process(frame_of())
    first.error = second.error = None
    assert len(cascade.process(frame_of()).by_model) == 2
    assert len(first.threads) == len(second.threads) == 4
    cascade.close()


def test_where_one_model_alone_is_due_no_helper_is_woken_and_its_time_tells_nothing_of_either_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every, third = Taking(), Taking()
    members = [Member("every", every), Member("third", third, interval=3)]  # type: ignore[arg-type]
    cascade, ways, timed = Cascade(members, True), [], []
    run = cascade._crew.run
    monkeypatch.setattr(cascade._crew, "run", lambda *args: ways.append(args[-1]) or run(*args))
    monkeypatch.setattr(cascade.choice, "took", lambda way, ns: timed.append(way))
    cascade.start(CAMERA)
    held = [cascade.process(frame_of()).held_ms for _ in range(4)]
    cascade.close()
    assert [list(ms) for ms in held] == [[], ["third"], ["third"], []]
    assert (ways, timed) == ([True, False, False, True], [True, True])


def test_one_core_or_one_model_is_never_tried_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cascade_of(("a", Taking(), "frame"), parallel=None).choice.side_by_side is False
    assert cascade_of(("a", Taking(faces=1), "frame"), ("b", Taking(), "faces")).choice.side_by_side is False
    monkeypatch.setattr("edge.cascade.cores", lambda: 1)
    assert cascade_of(("a", Taking(), "frame"), ("b", Taking(), "frame")).choice.side_by_side is False


@given(st.floats(0.2, 2.0))
def test_the_quicker_way_is_kept(ratio: float) -> None:
    choice = Choice(None)
    tried = {True: 0, False: 0}
    while (way := choice.next()) is not None and choice.side_by_side is None:
        tried[way] += 1
        choice.took(way, round(1e6 * (ratio if way else 1)))
    assert min(tried.values()) == TRIES
    assert choice.side_by_side is (round(1e6 * ratio) <= GAIN * 1e6)
    assert choice.next() is choice.side_by_side


def test_it_is_tried_again_after_an_hour_and_when_a_model_changes_unless_it_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(edge.parallel.time, "monotonic", lambda: now_s[0])
    choice, told = Choice(None), Choice(False)
    choice.next()
    for _ in range(TRIES):
        choice.took(True, 1)
        choice.took(False, 9)
    assert choice.side_by_side is True
    now_s[0] += edge.parallel.AGAIN_S + 1
    choice.next()
    assert choice.side_by_side is None
    choice.side_by_side = True
    for one in (choice, told):
        one.try_again()
    assert (choice.side_by_side, told.side_by_side) == (None, False)


def test_it_chooses_side_by_side_for_models_that_wait_and_in_turn_for_those_that_take_nothing() -> None:
    slow = cascade_of(("a", Taking(0.003), "frame"), ("b", Taking(0.003), "frame"), parallel=None)
    while slow.choice.side_by_side is None:
        slow.process(frame_of())
    assert slow.choice.side_by_side
    slow.close()


@dataclass(frozen=True)
class Done:
    end_ns: int
    thread: str


def test_more_jobs_than_threads_are_shared_out() -> None:
    def job(begin_ns: int) -> Done:
        time.sleep(0.01)
        return Done(begin_ns + 1, threading.current_thread().name)

    crew: Crew[Done] = Crew(1)
    threads = crew.run([job] * 5, 100, True)
    crew.close()
    assert sum(map(len, threads)) == 5
    assert len(threads) == 2
    assert all(
        [done.end_ns for done in thread] == [101 + i for i in range(len(thread))] for thread in threads
    )
    assert all(len({done.thread for done in thread}) == 1 for thread in threads if thread)
