"""The stream: one thread decodes into the ring, the calling thread infers and hands the results out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.frame import Frame
from edge.protocols import Sink, Source, SourceInfo
from edge.ring import Counts, Ring, counts_of, health_of

if TYPE_CHECKING:
    from edge.cascade import Cascade

POLL_S = 0.1
"""How often a thread that waits looks whether it was asked to stop."""

JOIN_S = 2.0
"""How long the end waits for the decoding thread, which may hang in a device."""


@dataclass(frozen=True)
class Limits:
    """When to stop before the source ends: after so many seconds, or so many results."""

    seconds: float | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Summary:
    """What a stream did.

    Attributes:
        source: what was read.
        counts: where the frames went; nothing is in flight any more.
        seconds: from the opened source to the last result.
    """

    source: SourceInfo
    counts: Counts
    seconds: float

    @property
    def fps(self) -> float:
        """Results a second."""
        return self.counts.processed / self.seconds if self.seconds else 0.0


class Pipeline:
    """A source, models and sinks, run once.

    Args:
        lossless: process every frame in order, as fast as it goes. Otherwise the newest frame wins,
            and a file plays at its own speed, as a camera would. Pictures without a frame rate are
            never dropped.
    """

    def __init__(
        self,
        source: Source,
        models: Cascade,
        sinks: Sequence[Sink] = (),
        limits: Limits = Limits(),
        lossless: bool = False,
    ) -> None:
        self._source = source
        self._models = models
        self._sinks = sinks
        self._limits = limits
        self._lossless = lossless
        self._stop = False

    def stop(self) -> None:
        """Ask the stream to end after the present frame. Safe in a signal handler: it takes no lock."""
        self._stop = True

    def run(self) -> Summary:
        """Stream until the source ends, a limit is reached or `stop` is called.

        Raises whatever the source, the model or a sink raises, after every sink was closed: their
        files hold the results up to then. KeyboardInterrupt when stopped before the source was open.
        """
        import cv2

        cv2.setNumThreads(1)  # one core for decoding, one for inference; OpenCV would take all for each
        opened: Future[tuple[SourceInfo, Ring]] = Future()
        feeder = threading.Thread(target=self._feed, args=(opened,), name="decode", daemon=True)
        feeder.start()
        info, ring = self._wait_until(opened)
        try:
            seconds = self._stream(info, ring)
        finally:
            ring.close()
            getattr(self._source, "stop", lambda: None)()  # of sources that can be waited for long
            feeder.join(JOIN_S)
        return Summary(info, counts_of(ring, health_of(self._source)), seconds)

    def _feed(self, opened: Future[tuple[SourceInfo, Ring]]) -> None:
        """The decoding thread: opens the source, fills the ring, closes the source."""
        try:
            info = self._source.open()
            ring = Ring(lossless=self._lossless or info.is_pictures)
            opened.set_result((info, ring))
            self._fill(ring, info)
        except BaseException as error:
            opened.set_exception(error)
        finally:
            self._source.close()

    def _fill(self, ring: Ring, info: SourceInfo) -> None:
        """Read until the end, a closed ring or an error, which travels through the ring."""
        error: BaseException | None = None
        most = self._limits.frames if self._lossless else None
        period_s = 1 / info.fps if self._plays_in_real_time(info) else 0.0
        begin_s, done = time.monotonic(), 0
        try:
            while done != most and (frame := ring.acquire()) is not None:
                ring.wait_closed(max(0.0, begin_s + done * period_s - time.monotonic()))
                if not self._source.read(frame):
                    break
                ring.publish()
                done += 1
        except BaseException as caught:
            error = caught
        ring.finish(error)

    def _plays_in_real_time(self, info: SourceInfo) -> bool:
        return not self._lossless and info.capture_clock == "file" and info.fps > 0

    def _wait_until(self, opened: Future[tuple[SourceInfo, Ring]]) -> tuple[SourceInfo, Ring]:
        while True:
            try:
                return opened.result(timeout=POLL_S)
            except NotYet:
                if self._stop:
                    getattr(self._source, "stop", lambda: None)()
                    raise KeyboardInterrupt from None

    def _stream(self, info: SourceInfo, ring: Ring) -> float:
        """Process until the end; the sinks are closed in any case. Returns the seconds it took."""
        with ExitStack() as closing:
            for sink in self._sinks:
                closing.callback(sink.close)
                sink.open(info)
            closing.callback(ring.close)
            self._models.start(info)
            return self._process_all(ring)

    def _process_all(self, ring: Ring) -> float:
        begin_s = time.monotonic()
        results = 0
        while not self._reached(results, time.monotonic() - begin_s):
            frame = ring.take(POLL_S)
            if frame is None:
                if ring.ended:
                    break
                continue
            self._process_one(frame, ring)
            results += 1
        return time.monotonic() - begin_s

    def _reached(self, results: int, seconds: float) -> bool:
        """A limit is reached or the stream was told to stop."""
        most, longest = self._limits.frames, self._limits.seconds
        return (
            self._stop
            or (most is not None and results >= most)
            or (longest is not None and seconds >= longest)
        )

    def _process_one(self, frame: Frame, ring: Ring) -> None:
        processed = False
        try:
            self._infer_and_publish(frame)
            processed = True
        finally:
            ring.release(processed)

    def _infer_and_publish(self, frame: Frame) -> None:
        """Each sink sees the stamp of the moment at which it got the result."""
        frame.stamps.mark("dequeue")
        result = self._models.process(frame)
        for sink in self._sinks:
            frame.stamps.mark("publish")
            sink.write(frame, result)
