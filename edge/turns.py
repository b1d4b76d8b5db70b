"""Whose turn it is: one loop serves many rings, fairly, the newest frame of each, and none that is too old."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from edge.config import CameraSettings
from edge.frame import Frame
from edge.ring import Ring


class Lane(Protocol):
    """A camera as far as its turn goes."""

    @property
    def camera(self) -> CameraSettings:
        """Its settings."""

    @property
    def ring(self) -> Ring:
        """Where its frames come from."""


class Turns:
    """Takes frames from lanes in turn: after one had its frame, all others that have one come first.

    So among cameras that are never idle each gets the same number of frames, however fast it is. Used by one
    thread; `wake` may be called by any.

    Attributes:
        lanes: in their order; replace it between two frames.
    """

    def __init__(self, lanes: Sequence[Lane] = ()) -> None:
        self.lanes: tuple[Lane, ...] = tuple(lanes)
        self._next = 0
        self._woken = threading.Event()

    def wake(self) -> None:
        """Something has come: a frame, an end, or another thing that the loop should look at."""
        self._woken.set()

    def take(self, timeout_s: float) -> tuple[Lane, Frame] | None:
        """The next frame with its lane; None when there is none within `timeout_s`, or after `wake`."""
        self._woken.clear()
        found = self._take_ready()
        if found is None and self._woken.wait(timeout_s):
            self._woken.clear()
            found = self._take_ready()
        return found

    def _take_ready(self) -> tuple[Lane, Frame] | None:
        count = len(self.lanes)
        for step in range(count):
            number = (self._next + step) % count
            lane = self.lanes[number]
            frame = take_fresh(lane)
            if frame is not None:
                self._next = (number + 1) % count
                return lane, frame
        return None


def take_fresh(lane: Lane) -> Frame | None:
    """The lane's next frame that is not too old; those that are get dropped as stale."""
    while (frame := lane.ring.take(0)) is not None:
        limit_ms = None if lane.ring.lossless else lane.camera.max_age_ms
        if limit_ms is None or time.monotonic_ns() - frame.stamps.capture <= limit_ms * 1e6:
            return frame
        lane.ring.release(False, "stale")
    return None
