"""Keeps a camera connected: asks a child process, hears its frames, replaces it, and tries again."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from edge.camera.address import Address, complaint_about_device
from edge.camera.decoder import GRACE_S, DecoderProcess
from edge.camera.health import CameraState, Pace, Status
from edge.camera.link import Token
from edge.camera.retries import STEADY_S, Retries
from edge.errors import SourceError, SourceRefused
from edge.pixels import Image

WAIT_S = 3600.0
"""The longest sleep at a time; a frame, a message or `stop` ends it sooner."""

SPARE_PART = 0.5
"""After this part of the silence that is allowed a second child is started, which connects to a camera in the
network at once: whether the camera is silent or the first child hangs is not known, and in the second case
the frames are there sooner."""

LEAST_LOOK_S = 0.1
"""So long a reader that comes late waits before it calls a child silent: it may have been stopped with it."""


@dataclass(frozen=True)
class Deadlines:
    """How long the camera's child may take, in seconds.

    Attributes:
        silence_s: without a frame, once frames came; or five frame intervals, whichever is more. Less than
            the 2 s within which a lost camera is to be declared so, since noticing takes a moment too.
        connect_s: to answer; then the child gives up by itself.
        start_s: until it begins with the request: its interpreter and its libraries take half a second to start,
            and ten on a machine that is busy, where to kill it would mean to begin anew.
        first_frame_s: from then to the first frame; then the child is killed. So long a stream that states no
            rate may be silent, too, before its first pictures have told one.
    """

    silence_s: float = 1.8
    connect_s: float = 5.0
    start_s: float = 30.0
    first_frame_s: float = 12.0


DEADLINES = Deadlines()


class Connection:
    """One camera, over the lives of its children. Used by one thread, except for `stop`.

    Args:
        address: of the camera.
        request: for the child.
        interpreter: of the GStreamer child.
        deadlines: of the child.
        status: where it tells how the camera is, and counts its frames.
        keep_trying: wait for a device that is not there.

    Attributes:
        last_error: why the camera was lost last.
        ended: the stream had an end, and is not live.
    """

    def __init__(
        self,
        address: Address,
        request: dict[str, Any],
        interpreter: str,
        deadlines: Deadlines,
        status: Status,
        keep_trying: bool,
    ) -> None:
        self.last_error, self.ended = "", False
        self._address, self._request, self._interpreter = address, request, interpreter
        self._deadlines, self._status, self._keep_trying = deadlines, status, keep_trying
        self._lossless = bool(request["lossless"])
        self._retries, self._pace = Retries(), Pace(deadlines.silence_s, deadlines.first_frame_s)
        self._child: DecoderProcess | None = None
        self._spare: DecoderProcess | None = None
        self._spare_asked_s: float | None = None
        self._asked_s: float | None = None  # None: there is no child, or it waits to be asked
        self._first_s: float | None = None  # when the first frame of this request came
        self._heard_s = 0.0  # when its last one was captured
        self._retry_s = 0.0
        self._streamed = False
        self._stopped = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        status.become("connecting")

    @property
    def child(self) -> DecoderProcess | None:
        """The process that decodes now."""
        return self._child

    def next(self, until_s: float | None = None) -> Token | None:
        """The next frame, from whichever child; None when stopped, at the end, or at `until_s` (monotonic).

        Raises:
            SourceError: before the first frame ever, a cause that another try does not change.
        """
        entered_s = time.monotonic()
        while not (self._stopped.is_set() or self.ended):
            due_s = self._due_s(entered_s)
            got = self._wait(min(due_s, until_s or due_s) - time.monotonic())
            if isinstance(got, Token):
                return self._heard(got)
            now_s = time.monotonic()
            if got is not None:
                self._answered(got)
            elif until_s is not None and now_s >= until_s:
                break
            elif now_s >= due_s:
                self._be_due(now_s)
        return None

    def newest(self, token: Token) -> Token:
        """A frame that came after `token`, the last one, if there is one; else `token`."""
        assert self._child is not None, "it gave the token"
        newer = self._child.newest(token)
        return token if newer is token else self._heard(newer)

    def deliver(self, token: Token, out: Image) -> bool:
        """Convert a frame into `out`, uint8 (H, W, 3), RGB; False where its ring is broken, and the child with it."""
        assert self._child is not None, "it gave the token"
        try:
            self._child.convert(token, out)
        except (ValueError, KeyError) as error:
            self._end_child(0)
            self._lose(f"its decoder gave no picture: {error}", crashed=True)
            return False
        self._status.ledger.deliver(token.number)
        self._status.count()
        return True

    def stop(self) -> None:
        """End `next`, for good; from any thread, but not after `close`."""
        self._stopped.set()
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the children; used no more afterwards."""
        self._stopped.set()
        self._end_spare()
        self._end_child(GRACE_S)
        os.close(self._wake)

    def _due_s(self, entered_s: float) -> float:
        """When something is to be done if nothing is heard."""
        if self._asked_s is None:
            return self._retry_s
        if self._first_s is None:
            begun_s = self._child.begun_s if self._child is not None else None
            if begun_s is None:
                return self._asked_s + self._deadlines.start_s
            return begun_s + self._deadlines.first_frame_s
        quiet_since_s = max(self._heard_s, entered_s) if self._lossless else self._heard_s
        part = 1.0 if self._spare is not None else SPARE_PART
        return max(quiet_since_s + part * self._pace.silence_s, entered_s + LEAST_LOOK_S)

    def _be_due(self, now_s: float) -> None:
        """What was to be done at `_due_s`."""
        if self._asked_s is None:
            self._connect(now_s)
        elif self._first_s is None:
            self._replace_child(self._too_late())
        elif self._spare is None:
            self._prepare_spare(now_s)
        else:
            self._replace_child(f"no picture for {now_s - self._heard_s:.1f} s")

    def _too_late(self) -> str:
        """Why a child without a frame is given up."""
        if self._child is not None and self._child.begun_s is None:
            return f"its decoder did not start within {self._deadlines.start_s:.0f} s"
        return f"no picture within {self._deadlines.first_frame_s:.0f} s of connecting"

    def _wait(self, timeout_s: float) -> Token | dict[str, Any] | None:
        if self._child is not None:
            return self._child.wait(min(timeout_s, WAIT_S), self._wake)
        self._stopped.wait(min(max(0.0, timeout_s), WAIT_S))
        return None

    def _connect(self, now_s: float) -> None:
        """Ask the child, which is started if there is none."""
        complaint = complaint_about_device(self._address.device) if self._address.device else None
        if complaint is not None:
            self._answered({"is": "failed", "reason": complaint[0], "kind": complaint[1]})
            return
        self._child = self._child or self._start()
        self._child.ask(self._request)
        self._asked_s, self._first_s = now_s, None

    def _prepare_spare(self, now_s: float) -> None:
        self._spare = self._start()
        if self._address.kind in ("rtsp", "http") and not self._lossless:
            self._spare.ask(self._request)
            self._spare_asked_s = now_s

    def _start(self) -> DecoderProcess:
        try:
            return DecoderProcess(self._address.decoder, self._interpreter)
        except OSError as error:
            raise SourceError(
                f"{self._address.shown}: the decoder's process cannot be started: {error}. "
                "Is the interpreter there?"
            ) from error

    def _heard(self, token: Token) -> Token:
        """A frame came."""
        assert self._child is not None, "it came from it"
        now_s = time.monotonic()
        if self._first_s is None:
            self._begin(token, now_s)
        self._heard_s = token.decode_ns / 1e9
        self._pace.frame(token.number, token.capture_ns)
        self._retries.streams(now_s)
        self._end_spare()
        layout = self._child.layout(token)
        state: CameraState = "degraded" if self._retries.degraded else "streaming"
        self._status.become(state, width=layout.width, height=layout.height)
        return token

    def _begin(self, token: Token, now_s: float) -> None:
        """The first frame of a request."""
        assert self._child is not None, "it came from it"
        self._first_s = now_s
        self._pace.begin(self._child.fps)
        again = 1 if self._streamed else 0
        self._streamed = True
        health = self._status.now()
        self._status.become(health.state, fps=self._child.fps, reconnects=health.reconnects + again)

    def _answered(self, outcome: dict[str, Any]) -> None:
        """The request has ended."""
        self._asked_s = None
        was_short = self._first_s is not None and time.monotonic() - self._first_s < STEADY_S
        if outcome["is"] == "ended" and self._lossless:
            self.ended = True
        elif outcome["is"] == "gone":
            self._lose(f"its decoder {self._end_child(0)}", crashed=True)
        elif outcome["is"] == "ended":
            self._lose("its stream ended", crashed=was_short)
        else:
            self._refused(outcome, was_short)

    def _refused(self, outcome: dict[str, Any], was_short: bool) -> None:
        """The child says that it failed, and why."""
        kind, reason = outcome["kind"], self._address.scrubbed(outcome["reason"])
        hopeless = kind == "permanent" or (kind == "absent" and not self._keep_trying)
        if hopeless and not self._streamed:
            kind_of_error = SourceRefused if kind == "permanent" else SourceError
            raise kind_of_error(f"{self._address.shown}: {reason}.")
        self._lose(reason, crashed=was_short, refused=kind == "permanent")

    def _replace_child(self, reason: str) -> None:
        """End a child that overran its deadline."""
        grace_s = GRACE_S if self._address.kind == "csi" else 0.0  # Argus is wedged by a client that vanishes
        self._end_child(grace_s)
        self._lose(reason)

    def _lose(self, reason: str, crashed: bool = False, refused: bool = False) -> None:
        """The camera is lost, until it is tried again; which a spare does already."""
        now_s = time.monotonic()
        self._retry_s = now_s + self._retries.failed(crashed, refused)
        self.last_error = self._address.scrubbed(reason)
        state: CameraState = "lost" if self._streamed else "connecting"
        state = "degraded" if self._retries.degraded else state
        self._status.become(state, last_error=self.last_error, error_s=now_s)
        if self._lossless:
            self.ended = True

    def _end_child(self, grace_s: float) -> str:
        """End the child and settle its frames; how it ended, in words. A spare takes its place."""
        child, self._child, self._spare = self._child, self._spare, None
        self._asked_s, self._first_s, self._spare_asked_s = self._spare_asked_s, None, None
        if child is None:
            return ""
        words = child.stop(grace_s)
        self._status.ledger.end(child.captured)
        self._status.count()
        child.close()
        return words

    def _end_spare(self) -> None:
        """A child that was started and not needed."""
        spare, self._spare, self._spare_asked_s = self._spare, None, None
        if spare is not None:
            spare.stop(0)
            spare.close()
