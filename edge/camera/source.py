"""A live camera as a source: it waits for frames, and connects again by itself for as long as it is open."""

from __future__ import annotations

import threading
import time

from edge.camera.address import Address, Decoder
from edge.camera.connection import DEADLINES, Connection, Deadlines
from edge.camera.decoder import SYSTEM_PYTHON
from edge.camera.health import CameraHealth, Status
from edge.camera.link import Token
from edge.errors import SourceError
from edge.frame import Frame
from edge.protocols import SourceInfo

ASSUMED_FPS = 25.0
"""Of a file that states no rate; FFmpeg assumes the same."""


class CameraSource:
    """Frames of a live camera, always the newest one, as RGB.

    The decoder is a child process with a deadline: one that crashes, hangs or falls silent is replaced. One
    thread opens, reads and closes; `stop` and `health` may be called from any.

    Args:
        uri: see `edge.camera.address`.
        live: False for a file over HTTP: every frame in order, and an end.
        keep_trying: `open` waits for the first frame for as long as it takes.
        connect_timeout_s: how long `open` waits otherwise.
        decode_threads: of the decoder; more add latency, one frame each.
        decoder: of RTSP: "pyav", or "gstreamer", which takes JetPack's hardware decoder where it is.
        interpreter: the Python that has PyGObject, for what GStreamer decodes.
        deadlines: of the child.

    Raises:
        SourceError: the URI cannot be read.
    """

    def __init__(
        self,
        uri: str,
        *,
        live: bool = True,
        keep_trying: bool = False,
        connect_timeout_s: float = 10.0,
        decode_threads: int = 1,
        decoder: Decoder = "pyav",
        interpreter: str = SYSTEM_PYTHON,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        self._address = Address.parse(uri, decoder)
        self._live, self._keep_trying, self._interpreter = live, keep_trying, interpreter
        self._connect_timeout_s, self._deadlines = connect_timeout_s, deadlines
        self._request = self._address.request | {
            "lossless": not live,
            "threads": decode_threads,
            "connect_s": deadlines.connect_s,
            "read_s": deadlines.first_frame_s,
        }
        self._status = Status()
        self._connection: Connection | None = None
        self._first: Token | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def __repr__(self) -> str:
        return f"CameraSource('{self._address.shown}')"

    def open(self) -> SourceInfo:
        """Connect and wait for the first frame.

        Raises:
            SourceError: a cause that waiting does not mend, such as a refused password or a device without
                permission; no frame within `connect_timeout_s`, unless `keep_trying`; or it was stopped.
        """
        self.close()
        connection = self._connect()
        until_s = None if self._keep_trying else time.monotonic() + self._connect_timeout_s
        try:
            self._first = connection.next(until_s)
            if self._first is None:
                raise SourceError(self._no_first_frame(connection))
        except BaseException:
            self.close()
            raise
        health = self._status.now()
        clock = self._address.capture_clock if self._live else "file"
        fps = health.fps if self._live else health.fps or ASSUMED_FPS
        frames = None if self._live else 0
        return SourceInfo(self._address.shown, health.width, health.height, fps, frames, clock)

    def read(self, frame: Frame) -> bool:
        """Fill `frame` with the newest picture; waits for one, and connects again meanwhile if need be.

        False when it was stopped or closed, or at the end of a file over HTTP.

        Raises:
            SourceError: a file over HTTP (`live` is False) was cut off.
        """
        connection, begin_ns = self._connection, time.monotonic_ns()
        if connection is None:
            return False
        first, self._first = self._first, None
        token = connection.newest(first) if first is not None and self._live else first or connection.next()
        while token is not None:
            health = self._status.now()
            if connection.deliver(token, frame.buffer(health.height, health.width)):
                self._label(frame, token, begin_ns)
                return True
            token = connection.next()
        if connection.last_error and not (self._live or self._stopped):
            raise SourceError(f"{self._address.shown} was cut off: {connection.last_error}.")
        return False

    def close(self) -> None:
        """End the child and give everything back; harmless when called twice."""
        with self._lock:
            connection, self._connection = self._connection, None
        self._first = None
        if connection is not None:
            connection.close()
        self._status.become("closed")

    def stop(self) -> None:
        """End `open` and `read`, for good, from any thread."""
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.stop()

    def health(self) -> CameraHealth:
        """A snapshot, from any thread."""
        return self._status.now()

    @property
    def child_pid(self) -> int | None:
        """Of the process that decodes now."""
        connection = self._connection
        child = connection.child if connection is not None else None
        return child.pid if child is not None else None

    def _connect(self) -> Connection:
        with self._lock:
            if self._stopped:
                raise SourceError(f"{self._address.shown} was stopped.")
            self._connection = Connection(
                self._address,
                self._request,
                self._interpreter,
                self._deadlines,
                self._status,
                self._keep_trying,
            )
            return self._connection

    def _label(self, frame: Frame, token: Token, begin_ns: int) -> None:
        """What is known of a frame besides its pixels."""
        frame.index, frame.name = self._status.ledger.captured - 1, ""
        frame.capture_clock = self._address.capture_clock if self._live else "file"
        frame.stamps.capture = token.capture_ns if self._live else begin_ns
        frame.stamps.media = token.media_ns
        frame.stamps.mark("decode")

    def _no_first_frame(self, connection: Connection) -> str:
        shown = self._address.shown
        if self._stopped:
            return f"{shown} was stopped."
        why = "Look whether the camera is on, the address is right, and no firewall is between."
        if connection.last_error:
            why = f"Its last answer: {connection.last_error}."
        within = "" if connection.ended else f" within {self._connect_timeout_s:.0f} s"
        return f"{shown} gave no picture{within}. {why}"
