"""The ring between the child and its parent, and what is counted of it, under every order of events."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.camera import link
from edge.camera.child.ring import RingWriter
from edge.camera.health import Ledger, Pace
from edge.camera.layout import Layout

SIZES = (Layout("gray", 4, 2), Layout("gray", 8, 3), Layout("yuv420p", 5, 3))


class _Parent:
    """Both ends of the ring in one process: the writer, and what a parent does, in as few words as possible."""

    def __init__(self, lossless: bool) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ready, ready_write = os.pipe2(os.O_NONBLOCK)
        free_read, self.free = os.pipe2(os.O_NONBLOCK)
        self.link.setblocking(False)
        self._theirs = theirs
        self._descriptors = [self.ready, ready_write, free_read, self.free]
        self.writer = RingWriter(theirs, self.ready, ready_write, free_read, lossless)
        self.rings: dict[int, tuple[Layout, int]] = {}

    def learn_rings(self) -> None:
        try:
            while (received := link.receive(self.link)) is not None:
                message, (descriptor,) = received
                self._descriptors.append(descriptor)
                self.rings[message["generation"]] = (Layout.checked(**message["layout"]), descriptor)
        except BlockingIOError:
            pass

    def pixels(self, token: link.Token) -> bytes:
        self.learn_rings()
        layout, descriptor = self.rings[token.generation]
        return os.pread(descriptor, layout.size, link.slot_offset(token.slot, layout.size))

    def captured(self) -> int:
        self.learn_rings()
        return link.read_count(os.pread(self.rings[max(self.rings)][1], 8, 0)) if self.rings else 0

    def close(self) -> None:
        self.link.close()
        self._theirs.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


@contextmanager
def parent(lossless: bool = False) -> Iterator[_Parent]:
    made = _Parent(lossless)
    try:
        yield made
    finally:
        made.close()


events = st.lists(st.sampled_from(["capture", "capture", "take", "release", "resize"]), max_size=60)


@settings(deadline=None)
@given(events)
def test_every_frame_is_delivered_whole_or_dropped_and_never_both(order: list[str]) -> None:
    """Frame n has all its bytes equal to n. The parent holds one frame at a time, and its bytes stay."""
    with parent() as side:
        ledger, held, written, size = Ledger(), None, 0, 0
        delivered: list[int] = []
        for event in order:
            if event == "capture":
                written += 1
                slot = side.writer.slot_for(SIZES[size])
                slot[:] = bytes([written]) * len(slot)
                side.writer.publish(written * 10, written * 10 + 1, None)
            elif event == "resize":
                size = (size + 1) % len(SIZES)
            elif event == "take" and held is None:
                held = link.take_token(side.ready)
                assert (held is not None) == (written > max(delivered, default=0))
                if held is not None:
                    assert held.number == written, "the newest wins"
                    delivered.append(held.number)
            elif event == "release" and held is not None:
                assert set(side.pixels(held)) == {held.number}
                ledger.deliver(held.number)
                link.put_free(side.free, held)
                held = None
            assert ledger.captured == ledger.delivered + ledger.dropped
        assert side.captured() == written
        ledger.end(side.captured())
        in_hand = 1 if held is not None else 0
        assert ledger.captured == written
        assert ledger.delivered == len(delivered) - in_hand
        assert ledger.dropped == written - ledger.delivered


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, link.SLOTS - 1))
def test_lossless_ring_gives_every_frame_in_order(frames: int, ahead: int) -> None:
    with parent(lossless=True) as side:
        seen: list[int] = []

        def take() -> None:
            token = link.take_token(side.ready)
            assert token is not None
            assert set(side.pixels(token)) == {token.number}
            seen.append(token.number)
            link.put_free(side.free, token)

        for number in range(1, frames + 1):
            if number - len(seen) > ahead:
                take()
            slot = side.writer.slot_for(SIZES[0])
            slot[:] = bytes([number]) * len(slot)
            side.writer.publish(0, 0, number)
        while len(seen) < frames:
            take()
        assert seen == list(range(1, frames + 1))


def test_frame_whose_filling_failed_costs_no_slot() -> None:
    with parent() as side:
        for _ in range(3 * link.SLOTS):
            side.writer.slot_for(SIZES[0])  # and then the copy fails
        side.writer.publish(1, 2, 3)
        token = link.take_token(side.ready)
        assert token is not None
        assert token[2:] == (1, 1, 2, 3)


def test_parent_that_is_gone_ends_a_lossless_child() -> None:
    with parent(lossless=True) as side:
        for _ in range(link.SLOTS):
            side.writer.slot_for(SIZES[0])
            side.writer.publish(0, 0, None)
        os.close(side.free)
        side._descriptors.remove(side.free)
        with pytest.raises(EOFError):
            side.writer.slot_for(SIZES[0])


@given(st.integers(0, 2**63 - 1), st.one_of(st.none(), st.integers(-(2**62), 2**62)))
def test_tokens_arrive_as_they_were_sent(stamp: int, media: int | None) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    token = link.Token(3, 2, 2**40, stamp, stamp, media)
    link.put_token(write, token)
    assert link.take_token(read) == token
    assert link.take_token(read) is None
    os.close(write)
    with pytest.raises(EOFError):
        link.take_token(read)
    os.close(read)


@given(st.lists(st.tuples(st.lists(st.booleans(), max_size=30), st.integers(0, 5)), max_size=6))
def test_ledger_is_exact_over_the_lives_of_children(lives: list[tuple[list[bool], int]]) -> None:
    """Of each child: which of its frames were delivered, and how many more it captured before it died."""
    ledger = Ledger()
    for frames, unseen in lives:
        for number, was_delivered in enumerate(frames, start=1):
            if was_delivered:
                ledger.deliver(number)
            assert ledger.captured == ledger.delivered + ledger.dropped
        ledger.end(len(frames) + unseen)
    assert ledger.captured == sum(len(frames) + unseen for frames, unseen in lives)
    assert ledger.delivered == sum(sum(frames) for frames, _ in lives)
    assert ledger.captured == ledger.delivered + ledger.dropped


@pytest.mark.parametrize(
    ("fps", "interval_ms", "silence_s"),
    [(25.0, 40, 1.8), (1.0, 1000, 5.0), (0.0, 40, 1.8), (30.0, 1000, 5.0), (0.0, 2000, 10.0)],
)
def test_silence_is_five_intervals_or_the_least(fps: float, interval_ms: int, silence_s: float) -> None:
    pace = Pace(1.8, 12.0)
    pace.begin(fps)
    for number in range(1, 20):
        pace.frame(2 * number, 2 * number * interval_ms * 1_000_000)
    assert pace.silence_s == pytest.approx(silence_s)
    pace.begin(25.0)
    assert pace.silence_s == pytest.approx(1.8)


def test_a_pace_that_nobody_states_is_known_from_three_intervals_on() -> None:
    pace, found = Pace(1.8, 12.0), []
    pace.begin(0.0)
    for number, at_s in enumerate((4, 4, 6, 8, 10), 1):
        pace.frame(number, at_s * 1_000_000_000)
        found.append(pace.silence_s)
    assert found == [12.0, 12.0, 12.0, 10.0, 10.0]


@pytest.mark.parametrize(
    "wrong", [{"format": "p010"}, {"width": 0}, {"height": 10**6}, {"width": "640"}, {"width": True}]
)
def test_layouts_that_are_no_picture(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no picture"):
        Layout.checked(**({"format": "nv12", "width": 640, "height": 480} | wrong))
