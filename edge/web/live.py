"""The newest annotated picture of each camera, encoded only while somebody watches.

The inference thread pays one look-up while nobody does, and one copy of the frame, a few times a
second, while somebody does. Drawing and JPEG are done by a thread of their own. Each camera has one
frame that waits and one picture that is newest: a viewer that is slow misses pictures, and none ever
queues up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from edge.config import ONLY_CAMERA
from edge.frame import Frame
from edge.pixels import Image, Placement, fit
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.overlay import draw

JOIN_S = 2.0
IDLE_S = 5.0
"""The encoder's thread ends when it had nothing to do for so long."""


@dataclass(frozen=True)
class Picture:
    """One encoded frame.

    Attributes:
        jpeg: the file's bytes.
        number: counts the pictures of a camera from 1, across all that watch it.
    """

    jpeg: bytes
    number: int


@dataclass(frozen=True)
class _Shot:
    """A frame on its way to the encoder, with its own copy of the pixels.

    Attributes:
        since_ns: since when its camera waits; a newer frame takes this over from the one it replaces, or
            a camera whose frames are replaced often would never be the one that waits longest.
    """

    pixels: Image
    result: FrameResult
    age_ms: float
    since_ns: int


@dataclass
class _Channel:
    """What is known of one camera. `viewers` is replaced, never changed: it is read without the lock."""

    viewers: tuple[Viewer, ...] = ()
    due_ns: int = 0
    waiting: _Shot | None = None
    spare: Image = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    newest: Picture | None = None
    number: int = 0


class Viewer:
    """One who watches a camera; use it in a `with`, which ends it.

    Args:
        notify: called from the encoder's thread when there is a new picture; must return at once.
    """

    def __init__(self, live: LiveSink, camera: str, notify: Callable[[], None]) -> None:
        self._live = live
        self._seen = 0
        self.camera = camera
        self.notify = notify

    def newest(self) -> Picture | None:
        """The newest picture, unless it was returned before."""
        picture = self._live.newest(self.camera)
        if picture is None or picture.number <= self._seen:
            return None
        self._seen = picture.number
        return picture

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.leave(self)


class LiveSink:
    """A sink for any number of cameras, told apart by `Frame.camera`.

    Args:
        title: shown on the pictures.
        fps: pictures a second of each camera, at most.
        width: of the pictures, pixels; larger frames are made smaller.
        quality: of the JPEG, 1 to 100.

    Attributes:
        encoded: pictures so far.
    """

    def __init__(self, title: str = "", fps: float = 12.0, width: int = 960, quality: int = 78) -> None:
        self._title = title
        self._period_ns = int(1e9 / fps)
        self._width = width
        self._quality = quality
        self._channels: dict[str, _Channel] = {}
        self._lock = threading.Lock()  # guards the channels' fields; held for assignments only
        self._work = threading.Condition(self._lock)
        self._worker: threading.Thread | None = None
        self._stopping = False
        self.encoded = 0

    def open(self, source: SourceInfo) -> None:
        """Make the camera known; cameras share one sink, which is open until it is closed once."""
        self._stopping = False
        self._channel(source.camera)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Copy the frame for the encoder if somebody watches its camera and a picture is due."""
        channel = self._channels.get(frame.camera or ONLY_CAMERA) or self._channel(frame.camera)
        if not channel.viewers or self._stopping:
            return
        now_ns = time.monotonic_ns()
        if now_ns < channel.due_ns:
            return
        # From the time it was due, not from now: else a camera of 30 would give 10 of 12 pictures.
        channel.due_ns = max(channel.due_ns + self._period_ns, now_ns - self._period_ns)
        self._offer(channel, frame, result, now_ns)

    def close(self) -> None:
        """Stop the encoder. Viewers stay, and see pictures again once a camera is opened anew."""
        with self._lock:
            self._stopping = True
            worker = self._worker
            for channel in self._channels.values():
                channel.waiting = channel.newest = None
            self._work.notify_all()
        if worker is not None and worker is not threading.current_thread():
            worker.join(JOIN_S)

    @property
    def viewers(self) -> int:
        """Those who watch, over all cameras."""
        with self._lock:
            return sum(len(channel.viewers) for channel in self._channels.values())

    def watch(self, camera: str, notify: Callable[[], None]) -> Viewer:
        """Begin to watch a camera, whose frames may be yet to come."""
        viewer = Viewer(self, camera, notify)
        channel = self._channel(camera)
        with self._lock:
            if not channel.viewers:  # what the last ones saw is stale
                channel.newest, channel.due_ns = None, 0
            channel.viewers += (viewer,)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """End a viewer; the last one's camera gives back its memory. Harmless when called twice."""
        channel = self._channel(viewer.camera)
        with self._lock:
            channel.viewers = tuple(other for other in channel.viewers if other is not viewer)
            if not channel.viewers:
                channel.waiting = channel.newest = None
                channel.spare = np.empty((0, 0, 3), np.uint8)

    def newest(self, camera: str) -> Picture | None:
        """The newest picture of a camera that is watched."""
        return self._channel(camera).newest

    def _channel(self, camera: str) -> _Channel:
        with self._lock:
            return self._channels.setdefault(camera or ONLY_CAMERA, _Channel())

    def _offer(self, channel: _Channel, frame: Frame, result: FrameResult, now_ns: int) -> None:
        """Leave a copy for the encoder in the place of one that it has not taken yet."""
        with self._lock:
            buffer, channel.spare = channel.spare, channel.spare[:0]
            if channel.waiting is not None:
                buffer, now_ns = channel.waiting.pixels, channel.waiting.since_ns
                channel.waiting = None
        if buffer.shape != frame.pixels.shape:
            buffer = np.empty_like(frame.pixels)
        np.copyto(buffer, frame.pixels)
        with self._lock:
            channel.waiting = _Shot(buffer, result, frame.stamps.age_ms, now_ns)
            if self._worker is None:
                self._worker = threading.Thread(target=self._encode_all, name="live", daemon=True)
                self._worker.start()
            self._work.notify()

    def _encode_all(self) -> None:
        """The encoder's thread: the frame that waits longest, until there is none for a while."""
        try:
            while (taken := self._take()) is not None:
                self._encode(*taken)
        finally:  # after an error too: the next frame begins a new thread
            with self._lock:
                if self._worker is threading.current_thread():
                    self._worker = None

    def _encode(self, channel: _Channel, shot: _Shot) -> None:
        jpeg = self._encoded(shot)
        with self._lock:
            viewers = channel.viewers
            channel.number += 1
            self.encoded += 1
            if viewers:
                channel.spare, channel.newest = shot.pixels, Picture(jpeg, channel.number)
        for viewer in viewers:
            viewer.notify()

    def _take(self) -> tuple[_Channel, _Shot] | None:
        """The next frame; None when it is time to end, and then the thread is forgotten already."""
        with self._work:
            while not self._stopping:
                waiting = [(of.waiting.since_ns, of) for of in self._channels.values() if of.waiting]
                if waiting:
                    channel = min(waiting, key=lambda pair: pair[0])[1]
                    shot, channel.waiting = channel.waiting, None
                    assert shot is not None, "it was chosen because it waits"
                    return channel, shot
                if not self._work.wait(IDLE_S):
                    break
            self._worker = None
            return None

    def _encoded(self, shot: _Shot) -> bytes:
        import cv2

        height, width = shot.pixels.shape[:2]
        shown_w = min(width, self._width)
        shown_h = max(1, round(height * shown_w / width))
        picture = fit(shot.pixels, shown_h, shown_w, "stretch")
        shown = Placement.of(height, width, shown_h, shown_w, "stretch")
        draw(picture, shot.result, shot.age_ms, self._title, shown)
        done, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        )
        assert done, "OpenCV encodes any uint8 picture"
        return jpeg.tobytes()
