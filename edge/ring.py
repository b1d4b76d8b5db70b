"""The ring between a camera and a model: a few frames, allocated once, passed from hand to hand.

One producer fills, one consumer reads. In latest-wins mode the producer never waits, and a consumer
that is slow gets the newest frame; in lossless mode the producer waits and every frame arrives.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edge.frame import Frame, Stamps

DropReason = Literal["newer", "stale", "backlog", "interval", "failed", "ended"]
"""Why a frame was dropped: it gave way to a newer one; it was too old when its turn came; it is of a
backlog that waits upstream; its camera's `interval` passes over it; the work on it failed; the ring closed."""


@dataclass(frozen=True)
class Counts:
    """Where the frames are; `captured == processed + dropped + in_flight`, always.

    Attributes:
        captured: frames that the producer has published.
        processed: frames that the consumer has finished.
        dropped: frames that were captured and came to no result.
        in_flight: frames that wait in the ring or are in the consumer's hands.
        dropped_for: the dropped ones by reason; they add up to `dropped`.
        lost_before: frames that never came to the ring, lost in a decoder of their own; in none of the others.
    """

    captured: int = 0
    processed: int = 0
    dropped: int = 0
    in_flight: int = 0
    dropped_for: Mapping[DropReason, int] = field(default_factory=dict, compare=False)
    lost_before: int = 0

    @property
    def lost_in_words(self) -> str:
        """What follows on the dropped ones: `, 37 more lost in the decoder`; empty where none were."""
        return f", {self.lost_before} more lost in the decoder" if self.lost_before else ""


class Ring:
    """A latest-wins or lossless hand-over between one producer thread and one consumer thread.

    The producer calls `acquire`, fills the frame and calls `publish`, and at the end `finish`. The
    consumer calls `take` and `release`. Either may call `close` at any time. Each side holds one
    frame at a time.

    Args:
        slots: frames in the ring, at least 3: one being filled, one ready, one in the consumer's hands.
        lossless: the producer waits for a free slot instead of replacing the frame that is ready.
        on_ready: called by the producer's thread after each hand-over, for one who waits for many rings.

    Attributes:
        lossless: as above; may be set before the first frame.
    """

    def __init__(
        self, slots: int = 4, lossless: bool = False, on_ready: Callable[[], None] | None = None
    ) -> None:
        if slots < 3:
            raise ValueError(f"a ring needs at least 3 slots, not {slots}")
        self.lossless = lossless
        self._on_ready = on_ready
        self._free = deque(Frame() for _ in range(slots))
        self._ready: deque[Frame] = deque()
        self._filling: Frame | None = None
        self._taken: Frame | None = None
        self._captured = self._processed = 0
        self._dropped: Counter[DropReason] = Counter()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None
        lock = threading.Lock()
        self._has_free = threading.Condition(lock)
        self._has_ready = threading.Condition(lock)
        self._lock = lock
        self._closing = threading.Event()

    def acquire(self) -> Frame | None:
        """A frame to fill, its stamps cleared; None once the ring is closed. Waits when lossless.

        A frame that was acquired and not published, since filling it failed, comes again.
        """
        with self._lock:
            while self._filling is None and not self._free and not self._closed:
                self._has_free.wait()
            if self._closed:
                return None
            filling = self._filling = self._filling or self._free.popleft()
        filling.stamps = Stamps()
        return filling

    def publish(self) -> None:
        """Hand over the frame that was acquired; in latest-wins mode it replaces those that wait."""
        with self._lock:
            frame, self._filling = self._filling, None
            assert frame is not None, "publish follows acquire"
            self._captured += 1
            if not self.lossless:
                self._drop_ready("newer")
            if self._closed:
                self._drop(frame, "ended")
            else:
                self._ready.append(frame)
            self._has_ready.notify()
        self._tell()

    def pass_over(self, reason: DropReason) -> None:
        """Count the frame that was acquired as captured and dropped, without handing it over."""
        with self._lock:
            frame, self._filling = self._filling, None
            assert frame is not None, "pass_over follows acquire"
            self._captured += 1
            self._drop(frame, reason)

    def finish(self, error: BaseException | None = None) -> None:
        """End the stream; `error` is raised by `take` after the frames that are ready were taken."""
        with self._lock:
            self._finished = True
            self._error = error
            self._has_ready.notify()
        self._tell()

    def take(self, timeout_s: float) -> Frame | None:
        """The oldest ready frame; None when there is none within `timeout_s`, or at the end.

        Raises whatever the producer gave to `finish`, once.
        """
        with self._lock:
            assert self._taken is None, "release comes before the next take"
            if not self._ready and not self._finished and not self._closed:
                self._has_ready.wait(timeout_s)
            if self._ready:
                self._taken = self._ready.popleft()
                return self._taken
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def release(self, processed: bool = True, reason: DropReason = "failed") -> None:
        """Give the taken frame back: as processed, or as dropped for a reason."""
        with self._lock:
            frame, self._taken = self._taken, None
            assert frame is not None, "release follows take"
            if processed:
                self._processed += 1
                self._free.append(frame)
            else:
                self._drop(frame, reason)
            self._has_free.notify()

    def close(self) -> None:
        """Stop both sides; frames that wait are dropped. Harmless when called twice."""
        with self._lock:
            self._closed = True
            self._drop_ready("ended")
            self._has_free.notify()
            self._has_ready.notify()
        self._closing.set()

    def wait_closed(self, timeout_s: float) -> bool:
        """Sleep for `timeout_s` seconds, or until the ring is closed, which returns True."""
        return self._closing.wait(timeout_s)

    @property
    def ended(self) -> bool:
        """No frame will come any more: finished and emptied without an error left, or closed."""
        with self._lock:
            return self._closed or (self._finished and not self._ready and self._error is None)

    def counts(self) -> Counts:
        """A snapshot, consistent in itself."""
        with self._lock:
            in_flight = len(self._ready) + (self._taken is not None)
            dropped = self._dropped.total()
            return Counts(self._captured, self._processed, dropped, in_flight, dict(self._dropped))

    def _tell(self) -> None:
        if self._on_ready is not None:
            self._on_ready()

    def _drop_ready(self, reason: DropReason) -> None:
        while self._ready:
            self._drop(self._ready.popleft(), reason)

    def _drop(self, frame: Frame, reason: DropReason) -> None:
        self._dropped[reason] += 1
        self._free.append(frame)


def health_of(source: object) -> Any:
    """That of a camera with a decoder of its own (`edge.camera.health`), which reconnects by itself; else None."""
    return getattr(source, "health", lambda: None)()


def counts_of(ring: Ring, health: Any) -> Counts:
    """Of a ring, and of what was lost before by the health of its source."""
    return replace(ring.counts(), lost_before=health.dropped if health is not None else 0)
