"""The parent's side of one child process: start it, ask it, take its frames, end it."""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge
from edge.camera import address, link
from edge.camera.layout import Layout
from edge.camera.rgb import ToRgb
from edge.pixels import Image

SYSTEM_PYTHON = "/usr/bin/python3"
"""Where PyGObject lives."""

GRACE_S = 0.4
"""For a child's own good-bye, before it is killed."""

_REAP_S = 5.0
_WORDS_BYTES = 65_536
_LAST_WORDS = 400
"""Of what a child that crashed has written, characters."""

_ROOT = Path(edge.__file__).resolve().parents[1]


def command(decoder: address.Decoder, interpreter: str) -> list[str]:
    """What runs such a child; the number of its descriptor comes behind."""
    if decoder == "gstreamer":
        return [interpreter, str(_ROOT / "edge" / "camera" / "child" / "gstreamer.py")]
    return [sys.executable, "-m", "edge.camera.child.pyav"]


@dataclass
class _Ring:
    """A ring that the child made, mapped for reading."""

    layout: Layout
    memory: mmap.mmap
    to_rgb: ToRgb

    @classmethod
    def of(cls, layout: Layout, descriptor: int) -> _Ring:
        """Map it; the descriptor is closed. Raises ValueError when it is smaller than its layout says."""
        size = link.ring_bytes(layout.size)
        try:
            if os.fstat(descriptor).st_size < size:
                raise ValueError("the ring is smaller than its pictures")
            return cls(layout, mmap.mmap(descriptor, size, prot=mmap.PROT_READ), ToRgb(layout))
        finally:
            os.close(descriptor)

    def slot(self, number: int) -> memoryview:
        """The bytes of a picture."""
        begin = link.slot_offset(number, self.layout.size)
        return memoryview(self.memory)[begin : begin + self.layout.size]


class DecoderProcess:
    """One child and the ring that it fills. Used by one thread.

    Args:
        decoder: which child.
        interpreter: the Python that runs the GStreamer child.

    Raises:
        OSError: it cannot be started.

    Attributes:
        pid: of the child.
        begun_s: when it began with what it was asked last, on the monotonic clock; None before: it may still start.
        fps: nominal frames a second of the stream it reads; 0.0 where it states none.
    """

    def __init__(self, decoder: address.Decoder, interpreter: str = SYSTEM_PYTHON) -> None:
        self._rings: dict[int, _Ring] = {}
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready, self._their_ready = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._their_free, self._free = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        words, their_words = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._descriptors = [self._ready, self._their_ready, self._their_free, self._free, words]
        self._words = words
        self._link.setblocking(False)
        self._asked = self._gone = self._drained = False
        self._outcomes: deque[dict[str, Any]] = deque()
        self.fps = 0.0
        self.begun_s: float | None = None
        try:
            self._process = subprocess.Popen(
                [*command(decoder, interpreter), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=their_words,  # a full pipe takes no more, and does not stop the child
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the parent, which ends its children
                cwd=_ROOT if decoder == "pyav" else None,  # `-m` looks there first
            )
        except OSError:
            self._close_descriptors()
            raise
        finally:
            theirs.close()
            os.close(their_words)
        self.pid = self._process.pid

    def ask(self, request: dict[str, Any]) -> None:
        """Have it connect. It answers with messages, see `wait`."""
        self.begun_s = None
        pipes = () if self._asked else (self._ready, self._their_ready, self._their_free)
        with suppress(OSError):  # it is gone, which `wait` tells
            link.send(self._link, request, pipes)
        if not self._asked:
            self._asked = True
            for descriptor in (self._their_ready, self._their_free):
                self._descriptors.remove(descriptor)
                os.close(descriptor)

    def wait(self, timeout_s: float, wake: int) -> link.Token | dict[str, Any] | None:
        """The next frame, or else how the request ended; None after `timeout_s`, or when `wake` is readable.

        A request ends with `{"is": "ended"}`, `{"is": "failed", "kind", "reason"}`, or, when the child has
        ended, `{"is": "gone"}`. All frames come before.
        """
        token = self._take()
        if token is None and not self._outcomes:
            waiting = select.poll()
            for descriptor in (wake, self._link.fileno(), *(() if self._drained else (self._ready,))):
                waiting.register(descriptor, select.POLLIN)
            waiting.poll(max(0.0, timeout_s) * 1000)
            token = self._take()
        self._read_messages()
        if token is None and self._outcomes:
            return self._take() or self._outcomes.popleft()  # it may have come between the two looks
        return token

    def newest(self, token: link.Token) -> link.Token:
        """The frame that has come meanwhile, or else `token`; the slot of one that is passed over goes back."""
        newer = self._take()
        if newer is None:
            return token
        link.put_free(self._free, token)
        return newer

    def layout(self, token: link.Token) -> Layout:
        """Of a frame's picture."""
        return self._ring(token).layout

    def convert(self, token: link.Token, out: Image) -> None:
        """The frame's pixels as RGB into `out`, uint8 (H, W, 3); its slot goes back to the child."""
        ring = self._ring(token)
        try:
            ring.to_rgb.into(ring.slot(token.slot), out)
        finally:
            link.put_free(self._free, token)

    @property
    def captured(self) -> int:
        """How many frames the child has captured, as the newest ring tells."""
        self._read_messages()
        return link.read_count(self._rings[max(self._rings)].memory) if self._rings else 0

    def stop(self, grace_s: float = GRACE_S) -> str:
        """End it: it may say good-bye for `grace_s`, then it is killed. How it ended, in words.

        Its descriptors and memory are given back with `close`, so that `captured` can be asked in between.
        """
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(grace_s if grace_s > 0 else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_REAP_S)
        return self._end_in_words()

    def close(self) -> None:
        """Give back what belongs to the child; it must have been stopped."""
        self._rings.clear()
        self._close_descriptors()

    def _take(self) -> link.Token | None:
        try:
            return None if self._drained else link.take_token(self._ready)
        except EOFError:
            self._drained = True
            return None

    def _read_messages(self) -> None:
        """All that are there: new rings are mapped, how a request ended is kept for `wait`."""
        with suppress(BlockingIOError):
            while not self._gone:
                received = link.receive(self._link)
                message, descriptors = received or ({"is": "gone"}, [])
                self._gone = received is None
                if message["is"] == "ring":
                    layout = Layout.checked(**message["layout"])
                    self._rings[message["generation"]] = _Ring.of(layout, *descriptors)
                elif message["is"] == "begun":
                    self.begun_s = time.monotonic()
                elif message["is"] == "connected":
                    self.fps = float(message["fps"])
                else:
                    self._outcomes.append(message)

    def _ring(self, token: link.Token) -> _Ring:
        """The ring that a token is of, which was sent before the token. Older ones are given back."""
        if token.generation not in self._rings:
            self._read_messages()
        for generation in [g for g in self._rings if g < token.generation]:
            del self._rings[generation]
        return self._rings[token.generation]

    def _end_in_words(self) -> str:
        code = self._process.returncode
        if code is None:
            return "does not end, although it was killed: a driver holds it"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}" + self._last_words()

    def _last_words(self) -> str:
        with suppress(OSError):
            written = os.read(self._words, _WORDS_BYTES).decode(errors="replace")
            lines = [line.strip() for line in written.strip().splitlines() if line.strip()]
            if lines:
                return f": {lines[-1][-_LAST_WORDS:]}"
        return ""

    def _close_descriptors(self) -> None:
        self._link.close()
        while self._descriptors:
            os.close(self._descriptors.pop())
