"""The ring's accounting holds under any order of calls, and under a slow consumer in real threads."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.ring import Counts, Ring


def identity_holds(counts: Counts) -> bool:
    return counts.captured == counts.processed + counts.dropped + counts.in_flight


class RingMachine(RuleBasedStateMachine):
    """Any order of calls that one producer and one consumer may make, against a list of indices."""

    @initialize(slots=st.integers(3, 6), lossless=st.booleans())
    def build(self, slots: int, lossless: bool) -> None:
        self.ring, self.slots, self.lossless = Ring(slots, lossless), slots, lossless
        self.waiting: list[int] = []
        self.filling = self.taken = None
        self.next_index = 0
        self.finished = self.closed = False

    @precondition(lambda self: self.filling is None and not self.finished)
    @rule()
    def acquire(self) -> None:
        held = len(self.waiting) + (self.taken is not None)
        if held == self.slots and not self.closed:
            return  # lossless: it would wait
        self.filling = self.ring.acquire()
        assert (self.filling is None) == self.closed

    @precondition(lambda self: self.filling is not None)
    @rule()
    def publish(self) -> None:
        self.filling.index = self.next_index
        self.ring.publish()
        self.waiting = [*(self.waiting if self.lossless else []), self.next_index]
        self.waiting = [] if self.closed else self.waiting
        self.next_index += 1
        self.filling = None

    @precondition(lambda self: self.taken is None)
    @rule()
    def take(self) -> None:
        self.taken = self.ring.take(0)
        expected = self.waiting.pop(0) if self.waiting else None
        assert (self.taken.index if self.taken else None) == expected

    @precondition(lambda self: self.taken is not None)
    @rule(processed=st.booleans())
    def release(self, processed: bool) -> None:
        before = self.ring.counts()
        self.ring.release(processed)
        assert self.ring.counts().processed == before.processed + processed
        self.taken = None

    @precondition(lambda self: self.filling is None)
    @rule()
    def finish(self) -> None:
        self.ring.finish()
        self.finished = True

    @rule()
    def close(self) -> None:
        self.ring.close()
        self.waiting, self.closed = [], True

    @invariant()
    def adds_up(self) -> None:
        counts = self.ring.counts()
        assert identity_holds(counts)
        assert counts.captured == self.next_index
        assert counts.in_flight == len(self.waiting) + (self.taken is not None)
        assert self.ring.ended == (self.closed or (self.finished and not self.waiting))


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def produce(ring: Ring, frames: int, period_s: float = 0.0) -> threading.Thread:
    def work() -> None:
        for index in range(frames):
            frame = ring.acquire()
            if frame is None:
                return
            frame.index = index
            ring.publish()
            time.sleep(period_s)
        ring.finish()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_slow_consumer_gets_the_newest_and_every_frame_is_accounted_for() -> None:
    ring, seen = Ring(), []
    producer = produce(ring, frames=400, period_s=0.0005)
    while not ring.ended:
        captured_before = ring.counts().captured
        frame = ring.take(0.1)
        if frame is None:
            continue
        assert frame.index >= captured_before - 1, "a newer frame was there"
        seen.append(frame.index)
        for _ in range(4):
            time.sleep(0.001)
            assert identity_holds(ring.counts())
        ring.release()
        assert identity_holds(ring.counts())
    producer.join(5)
    counts = ring.counts()
    assert counts == Counts(400, len(seen), 400 - len(seen), 0)
    assert counts.dropped > 0
    assert seen[-1] == 399
    assert seen == sorted(set(seen))


def test_lossless_makes_the_producer_wait() -> None:
    ring, seen = Ring(lossless=True), []
    producer = produce(ring, frames=100)
    while not ring.ended:
        if frame := ring.take(0.1):
            time.sleep(0.0005)
            seen.append(frame.index)
            ring.release()
    producer.join(5)
    assert seen == list(range(100))
    assert ring.counts() == Counts(100, 100, 0, 0)


def test_closing_frees_a_waiting_producer_and_drops_what_waits() -> None:
    ring = Ring(slots=3, lossless=True)
    producer = produce(ring, frames=100)
    taken = ring.take(5)
    assert taken is not None
    while ring.counts().captured < 3:
        time.sleep(0.001)
    time.sleep(0.05)  # now it waits
    ring.close()
    producer.join(5)
    assert not producer.is_alive()
    ring.release()
    counts = ring.counts()
    assert (counts.processed, counts.in_flight) == (1, 0)
    assert identity_holds(counts)


def test_closing_frees_a_waiting_consumer() -> None:
    ring = Ring()
    threading.Timer(0.05, ring.close).start()
    begin_s = time.monotonic()
    assert ring.take(10) is None
    assert time.monotonic() - begin_s < 5
    assert ring.ended


def test_producers_error_arrives_after_its_frames_and_only_once() -> None:
    ring = Ring(lossless=True)
    assert ring.acquire()
    ring.publish()
    ring.finish(OSError("cable pulled"))
    assert ring.take(0)
    ring.release()
    assert not ring.ended
    with pytest.raises(OSError, match="cable pulled"):
        ring.take(0)
    assert ring.take(0) is None
    assert ring.ended


def test_slots_are_reused_with_fresh_stamps() -> None:
    ring, buffers = Ring(slots=3), set()
    for _ in range(10):
        frame = ring.acquire()
        assert frame is not None
        assert frame.stamps.capture == 0
        frame.stamps.mark("capture")
        buffers.add(frame.buffer(4, 4).ctypes.data)
        ring.publish()
        assert ring.take(0) is frame
        ring.release()
    assert len(buffers) == 3


def test_frame_whose_filling_failed_comes_again() -> None:
    ring = Ring(slots=3, lossless=True)
    for _ in range(2):
        ring.acquire()
        ring.publish()
    frames = {id(ring.acquire()) for _ in range(20)}
    assert len(frames) == 1, "slots leak"
    ring.publish()
    assert ring.counts() == Counts(3, 0, 0, 3)


def test_dropped_frames_have_their_reasons() -> None:
    ring = Ring(slots=3)
    for _ in range(3):
        ring.acquire()
        ring.publish()
    ring.acquire()
    ring.pass_over("backlog")
    ring.take(0)
    ring.release(False, "stale")
    ring.acquire()
    ring.publish()
    ring.close()
    counts = ring.counts()
    assert counts == Counts(5, 0, 5, 0)
    assert counts.dropped_for == {"newer": 2, "backlog": 1, "stale": 1, "ended": 1}


def test_one_who_waits_for_many_rings_is_told() -> None:
    told: list[int] = []
    ring = Ring(on_ready=lambda: told.append(1))
    ring.acquire()
    ring.publish()
    ring.finish()
    assert len(told) == 2


def test_two_slots_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        Ring(slots=2)
