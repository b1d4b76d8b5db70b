"""One camera of a daemon: a thread that opens its source, fills its ring, and begins again after every loss."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from edge.backlog import Backlog, BacklogCounts, BacklogOptions
from edge.camera.retries import DEGRADED_MOST_S, DEGRADED_S
from edge.config import CameraSettings
from edge.errors import SourceRefused, reason_of
from edge.frame import Frame
from edge.protocols import Source, SourceInfo
from edge.ring import Counts, Ring, counts_of, health_of
from edge.secret import Secrets

FeederState = Literal["opening", "live", "lost", "degraded", "ended"]
"""`lost`: its source failed and is opened again soon. `degraded`: it fails again and again. `ended`: a file."""

FIRST_RETRY_S, LAST_RETRY_S = 0.25, 5.0
"""The delay doubles from one to the other; that of a camera that refuses the user as in `edge.camera.retries`."""
JITTER = 0.25
"""Of a retry's delay, up and down, so that many cameras do not come back at the same moment."""

DEGRADED_AFTER = 3
"""Losses in a row; one ends the row by delivering for `STEADY_S` seconds."""
STEADY_S = 10.0

_OF_CAMERA: dict[str, FeederState] = {
    "connecting": "opening", "streaming": "live", "lost": "lost", "degraded": "degraded"
}  # fmt: skip
"""What a camera that reconnects by itself says of its state (`edge.camera.health`), in our words."""

SLOTS = 3
"""One frame being filled, one ready, one in the hands of the models."""


@dataclass(frozen=True)
class FeederHealth:
    """How a camera is.

    Attributes:
        since_s: for how long it has been in its state.
        reconnects: how often its source came back after a loss; a file that begins again was not lost.
        last_error: why it was lost last, by the camera's word or ours, whichever came later; without secrets, and
            empty when it never was.
        counts: where its frames went.
        backlog_ms: how long the last frame waited upstream, as far as its timestamps tell.
        backlog: what was found of backlogs so far.
        info: of the source as it was opened last, with the newest frame's size; None before.
    """

    state: FeederState
    since_s: float
    reconnects: int
    last_error: str
    counts: Counts
    backlog_ms: float
    backlog: BacklogCounts
    info: SourceInfo | None


class _Reopen(Exception):
    """The stream is to be opened anew; the text says why."""


class Feeder:
    """Feeds one ring from one source, for as long as the daemon runs.

    Args:
        camera: its settings.
        make: the source, not opened. It is made once, and opened again after each loss.
        on_ready: called by the feeder's thread after each frame that it hands over.
        secrets: to be taken out of error messages.

    Attributes:
        ring: where the frames are taken from.
        failed: it ended by an error, which `health` tells, and not as files do.
    """

    def __init__(
        self,
        camera: CameraSettings,
        make: Callable[[], Source],
        on_ready: Callable[[], None] = lambda: None,
        secrets: Secrets | None = None,
    ) -> None:
        self.camera = camera
        self.ring = Ring(SLOTS, camera.lossless, on_ready)
        self._make = make
        self._secrets = secrets or Secrets()
        self._source: Source | None = None
        self._info: SourceInfo | None = None
        self._backlog = Backlog(BacklogOptions(limit_ms=camera.backlog_ms))
        self._stopping = threading.Event()
        self._state: FeederState = "opening"
        self._since_s = self._opened_s = time.monotonic()
        self._reconnects = self._losses = self._index = self._read = 0
        self._error = (0.0, "")  # when the last one was, on the monotonic clock, and what
        self._is_refused = self.failed = False
        self._thread = threading.Thread(target=self._run, name=f"camera {camera.name}", daemon=True)

    @property
    def info(self) -> SourceInfo | None:
        """Of the source as it was opened last, with the newest frame's size; None before."""
        return self._info

    @property
    def ended(self) -> bool:
        """Nothing will come any more, and all that came was taken."""
        return self.ring.ended

    def start(self) -> None:
        """Begin to open and to read, on a thread of its own."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Make the thread end soon; harmless when called twice."""
        self._stopping.set()
        self.ring.close()
        stop = getattr(self._source, "stop", None)  # of sources that can be waited for long
        if stop is not None:
            stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False where it hangs in its source and is left behind."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def counts(self) -> Counts:
        """Where its frames went, from any thread."""
        return counts_of(self.ring, health_of(self._source))

    def health(self) -> FeederHealth:
        """A snapshot, from any thread."""
        own = health_of(self._source)
        state, error, reconnects = self._state, self._error, self._reconnects
        since_s = time.monotonic() - self._since_s
        if own is not None:
            reconnects += own.reconnects
            error = max(error, (own.error_s, self._secrets.scrubbed(own.last_error)))
            theirs = _OF_CAMERA.get(own.state, state)
            if state in ("opening", "live") and theirs != "live":
                state, since_s = theirs, time.monotonic() - own.since
        return FeederHealth(
            state=state,
            since_s=since_s,
            reconnects=reconnects,
            last_error=error[1],
            counts=counts_of(self.ring, own),
            backlog_ms=self._backlog.drift_ms,
            backlog=self._backlog.counts,
            info=self._info,
        )

    def _run(self) -> None:
        while not self._stopping.is_set() and self._stream():
            self._stopping.wait(self._retry_s())
        self._be("ended")
        self.ring.finish()

    def _stream(self) -> bool:
        """Open, read to the end or a loss, close; whether to begin again."""
        try:
            self._source = self._source or self._make()
            self._read_all(self._source)
        except Exception as error:  # whatever a driver throws: this camera is lost, the others go on
            self._lose(reason_of(error), isinstance(error, SourceRefused))
            comes_back = self._comes_back(after_error=True)
            self.failed = not (comes_back or self._stopping.is_set())
            return comes_back
        finally:
            if self._source is not None:
                with suppress(Exception):
                    self._source.close()
        if not self._comes_back(after_error=False):
            return False
        if self._info is not None and self._info.capture_clock == "file" and self._read:
            self._losses = 0  # a file that begins again, at once: nothing was lost
        else:
            self._lose("the stream ended")
        return True

    def _comes_back(self, after_error: bool) -> bool:
        """What is not a file comes back, and what could not be opened yet may."""
        if self._stopping.is_set():
            return False
        if self.camera.reopen is not None:
            return self.camera.reopen or (after_error and self._info is None)
        return self._info is None or self._info.capture_clock != "file"

    def _read_all(self, source: Source) -> None:
        """From opening to the end of the stream; raises what the source raises, and `_Reopen`."""
        if self._info is None and not self._losses:
            self._be("opening")
        info = replace(source.open(), camera=self.camera.name)
        self._reconnects += self._info is not None and self._losses > 0
        self._info = info
        self._opened_s = time.monotonic()
        self._backlog.restart()
        self.ring.lossless = self.camera.lossless or info.is_pictures
        period_s = 1 / info.fps if info.fps and info.capture_clock == "file" else 0.0
        period_s = 0.0 if self.camera.lossless else period_s
        self._read = 0
        while (frame := self.ring.acquire()) is not None:
            self.ring.wait_closed(max(0.0, self._opened_s + self._read * period_s - time.monotonic()))
            if not source.read(frame):
                return
            self._hand_over(frame)
            self._read += 1

    def _hand_over(self, frame: Frame) -> None:
        self._got_one()
        frame.camera = self.camera.name
        frame.index, self._index = self._index, self._index + 1  # goes on where a source begins at 0 again
        height, width = frame.pixels.shape[:2]
        if self._info is not None and (self._info.width, self._info.height) != (width, height):
            self._info = replace(self._info, width=width, height=height)
        if not self._is_backlog(frame):
            if frame.index % self.camera.interval:
                self.ring.pass_over("interval")
            else:
                self.ring.publish()

    def _is_backlog(self, frame: Frame) -> bool:
        """Judge the frame by the stream's own timestamp; one of a backlog is counted and not handed over."""
        media_ns = frame.stamps.media
        if media_ns is None or self.ring.lossless:
            return False
        verdict = self._backlog.observe(media_ns, frame.stamps.capture)
        if verdict.action == "keep":
            return False
        self.ring.pass_over("backlog")
        self._error = (time.monotonic(), verdict.reason)
        if verdict.action == "reopen":
            raise _Reopen(verdict.reason)
        return True

    def _got_one(self) -> None:
        if self._losses and time.monotonic() - self._opened_s >= STEADY_S:
            self._losses = 0
        self._be("degraded" if self._losses >= DEGRADED_AFTER else "live")

    def _lose(self, reason: str, refused: bool = False) -> None:
        self._losses += 1
        self._is_refused = refused
        self._error = (time.monotonic(), self._secrets.scrubbed(reason))
        self._be("degraded" if self._losses >= DEGRADED_AFTER else "lost")

    def _be(self, state: FeederState) -> None:
        if state != self._state:
            self._state, self._since_s = state, time.monotonic()

    def _retry_s(self) -> float:
        if not self._losses:  # a file begins again; pictures have no rate, and would be read without a pause
            return 0.0 if self._info is not None and self._info.fps else FIRST_RETRY_S
        first_s, last_s = (DEGRADED_S, DEGRADED_MOST_S) if self._is_refused else (FIRST_RETRY_S, LAST_RETRY_S)
        delay_s = min(last_s, first_s * 2.0 ** min(self._losses - 1, 10))
        return delay_s * (1 + JITTER * (2 * random.random() - 1))
