"""How a camera is, and where its frames went."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal

CameraState = Literal["connecting", "streaming", "lost", "degraded", "closed"]
"""`lost`: it was streaming, and is connected again as soon as it answers. `degraded`: its decoder crashes again
and again, or it refuses the user; it is tried more rarely. Both end with the next frame."""


@dataclass(frozen=True)
class CameraHealth:
    """A snapshot; `captured == delivered + dropped`, always.

    Attributes:
        since: when it came into its state, seconds of the monotonic clock.
        reconnects: how often frames came again after a loss.
        last_error: why it was lost last, secrets masked; empty when it never was.
        error_s: when that was, seconds of the monotonic clock.
        captured: frames that were decoded and whose end is known.
        delivered: frames that `read` gave.
        dropped: frames that gave way to a newer one, or were lost with their decoder.
        width, height: of the newest frame, pixels; 0 before the first.
        fps: nominal frames a second; 0.0 before the first frame.
    """

    state: CameraState
    since: float
    reconnects: int = 0
    last_error: str = ""
    error_s: float = 0.0
    captured: int = 0
    delivered: int = 0
    dropped: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0


class Status:
    """Holds a camera's health: written by the thread that reads, read by any.

    Attributes:
        ledger: where the frames went, over all connections; of the thread that reads.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._lock = threading.Lock()
        self._health = CameraHealth("closed", time.monotonic())

    def become(self, state: CameraState, **changes: Any) -> None:
        """A state, the same or another one, and whatever else of `CameraHealth` changes with it."""
        with self._lock:
            since = self._health.since if state == self._health.state else time.monotonic()
            self._health = replace(self._health, state=state, since=since, **changes)

    def count(self) -> None:
        """Show what the ledger says."""
        with self._lock:
            self._health = replace(
                self._health,
                captured=self.ledger.captured,
                delivered=self.ledger.delivered,
                dropped=self.ledger.dropped,
            )

    def now(self) -> CameraHealth:
        """A snapshot."""
        with self._lock:
            return self._health


class Ledger:
    """Counts the frames of a camera over the lives of its children.

    A child numbers its frames from 1. Whatever number is missing when the next one comes, or when the child
    has ended, was dropped.
    """

    def __init__(self) -> None:
        self.captured = self.delivered = self.dropped = 0
        self._settled = 0  # of the present child's frames

    def deliver(self, number: int) -> None:
        """The frame of this number was given to the reader, and all before it are settled."""
        self._settle(number - 1)
        self._settled = number
        self.captured += 1
        self.delivered += 1

    def end(self, number: int) -> None:
        """The child is gone, having captured so many frames."""
        self._settle(number)
        self._settled = 0

    def _settle(self, number: int) -> None:
        missing = max(0, number - self._settled)
        self.captured += missing
        self.dropped += missing


class Pace:
    """How long a camera may be silent.

    The larger of `least_s` and five of its frame intervals, of the nominal ones and of those seen lately:
    in the dark a camera of 30 frames a second may give three. `unknown_s` before any of them is known.
    """

    INTERVALS = 5
    SEEN = 10
    LEAST_SEEN = 3  # the first pictures come at once: FFmpeg has waited for them to know the stream

    def __init__(self, least_s: float, unknown_s: float) -> None:
        self._least_s, self._unknown_s = least_s, unknown_s
        self._nominal_s = 0.0
        self._seen_s: deque[float] = deque(maxlen=self.SEEN)
        self._last: tuple[int, int] | None = None

    def begin(self, fps: float) -> None:
        """A new stream, of `fps` nominal frames a second (0.0: not known)."""
        self._nominal_s = 1 / fps if fps > 0 else 0.0
        self._seen_s.clear()
        self._last = None

    def frame(self, number: int, capture_ns: int) -> None:
        """One of the stream's frames, with its number among those captured."""
        if self._last is not None and number > self._last[0]:
            self._seen_s.append((capture_ns - self._last[1]) / 1e9 / (number - self._last[0]))
        self._last = (number, capture_ns)

    @property
    def silence_s(self) -> float:
        """What is allowed now."""
        if not self._nominal_s and len(self._seen_s) < self.LEAST_SEEN:
            return self._unknown_s
        seen_s = sorted(self._seen_s)[len(self._seen_s) // 2] if self._seen_s else 0.0
        return max(self._least_s, self.INTERVALS * max(self._nominal_s, seen_s))
