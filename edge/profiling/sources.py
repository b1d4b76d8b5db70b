"""What a profile puts around a source: as many frames as it needs, at fixed times if asked."""

from __future__ import annotations

import time

from edge.errors import InputError
from edge.frame import Frame
from edge.protocols import Source, SourceInfo


class Repeated:
    """A source that begins again at its end, so that a short clip is enough for a high percentile.

    Opening it again is no frame's time: the capture stamp comes after it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._index = 0
        self._opening_ns = 0

    def open(self) -> SourceInfo:
        """Connect."""
        self._index = self._opening_ns = 0
        return self._source.open()

    def read(self, frame: Frame) -> bool:
        """Fill `frame`; its index counts on. False only of an empty source."""
        if not self._source.read(frame) and not self._begin_again(frame):
            return False
        frame.index = self._index
        self._index += 1
        return True

    def close(self) -> None:
        """Release files and devices."""
        self._source.close()

    def _begin_again(self, frame: Frame) -> bool:
        begin_ns = time.monotonic_ns()
        self._source.close()
        self._source.open()
        self._opening_ns += time.monotonic_ns() - begin_ns
        return self._source.read(frame)


class Paced(Repeated):
    """Frames that are due at fixed times, whether or not anybody is ready for them: an open loop.

    A benchmark that asks for the next frame when it has done the last one (a closed loop) hides its
    stalls: frames that would have come meanwhile are not there to be late. Gil Tene calls it coordinated
    omission. Here a frame's capture is the moment at which it was due, and all the time that it then
    waited, before its decoding and after, is in the stage `wait`; decoding is as long as it was.
    Sleeping is late by some 0.1 ms, which counts as waiting too; opening a clip again does not, and
    what comes after it is due so much later.

    Args:
        rate: frames a second.

    Raises:
        InputError: the rate is not positive.
    """

    def __init__(self, source: Source, rate: float) -> None:
        if not 0 < rate < float("inf"):
            raise InputError(f"The rate is {rate:g}: expected frames a second, above 0.")
        super().__init__(source)
        self._period_ns = 1e9 / rate
        self._begin_ns = 0

    def open(self) -> SourceInfo:
        """Connect."""
        self._begin_ns = 0
        return super().open()

    def read(self, frame: Frame) -> bool:
        """Wait until the next frame is due, then fill `frame`."""
        self._begin_ns = self._begin_ns or time.monotonic_ns()
        number = self._index
        time.sleep(max(0, self._due_ns(number) - time.monotonic_ns()) / 1e9)
        if not super().read(frame):
            return False
        # The stamps stand where they would if decoding had begun at once, as in `Stamps.finish_models`.
        due_ns = self._due_ns(number)
        frame.stamps.decode -= frame.stamps.capture - due_ns
        frame.stamps.capture = due_ns
        return True

    def _due_ns(self, number: int) -> int:
        return self._begin_ns + self._opening_ns + round(number * self._period_ns)
