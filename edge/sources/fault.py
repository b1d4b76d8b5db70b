"""The fault camera: any source, with the faults of `edge.sources.fault_script` at the times of a script.

For acceptance tests of a whole installation, its alarms included: `fault://demo?freeze=5..8&cut=20..30`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edge.errors import SourceError
from edge.frame import Frame
from edge.pixels import Image
from edge.protocols import Source, SourceInfo
from edge.ring import health_of
from edge.sources import open_source
from edge.sources.fault_script import Fault, Moment, split

GREY = 128
"""What a decoder shows where nothing arrived."""

BLOCK = 16
"""Side of a macroblock, in pixels: noise comes in these."""


class FaultSource:
    """Passes on what the inner source gives, spoilt as the script says.

    Times count from when this object was first open (or refused to, cut off from the beginning), and
    not anew from the next `open`, so that a camera that was cut can come back. Jumps move the stream's
    own timestamps (`stamps.media`, made from the capture stamp where the source has none); capture is
    read from our clock and stays. After a stall the frames of an inner source that kept on come in a
    burst, as they do through TCP.

    Args:
        uri: `fault://SOURCE?SCRIPT`.
        clock: seconds that never go backwards.

    Raises:
        SourceError: the script, or the inner source's URI, cannot be read.
    """

    def __init__(self, uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        inner, self._script = split(uri)
        self._inner: Source = open_source(inner)
        self._jumps = any(fault.kind == "jump" for fault in self._script.faults)
        self._clock = clock
        self._began_s: float | None = None
        self._frames = 0
        self._previous_s = -np.inf
        self._frozen: Image | None = None
        self._halted = threading.Event()

    def open(self) -> SourceInfo:
        """Open the inner source; raises SourceError while the camera is cut."""
        first = self._began_s is None
        if first:
            self._began_s = self._clock()
        cut = self._script.active("cut", self._now())
        if cut is not None:
            left = self._script.left_s(cut, self._now())
            back = "for good" if cut.span.in_frames or np.isinf(left) else f"for {left:.1f} s more"
            raise SourceError(f"The fault camera is cut off {back}, as its script says ({cut}).")
        info = self._inner.open()
        if first:
            self._began_s = self._clock()
        return replace(info, uri=f"fault://{info.uri}?{self._script}")

    def read(self, frame: Frame) -> bool:
        """The next frame with its faults; False at the end, at a cut, or once stopped.

        Waits through a stall, and between the frames of a slow camera.
        """
        self._hold_back()
        if self._halted.is_set() or self._script.active("cut", self._now()):
            return False
        if not self._inner.read(frame):
            return False
        now = self._now()
        self._spoil(frame, now)
        if self._jumps:
            media = frame.stamps.capture if frame.stamps.media is None else frame.stamps.media
            frame.stamps.media = media + round(self._script.jumped_s(now) * 1e9)
        self._frames += 1
        self._previous_s = self._clock()
        return True

    def health(self) -> Any:
        """That of the inner source where it has one, as a camera's has."""
        return health_of(self._inner)

    def close(self) -> None:
        """Close the inner source."""
        self._inner.close()
        self._frozen = None

    def stop(self) -> None:
        """End a stall, from any thread; what is read afterwards has ended."""
        self._halted.set()
        stop = getattr(self._inner, "stop", None)
        if stop is not None:
            stop()

    def _now(self) -> Moment:
        assert self._began_s is not None, "open comes first"
        return Moment(self._clock() - self._began_s, self._frames)

    def _hold_back(self) -> None:
        slow = self._script.active("slow", self._now())
        if slow is not None:
            self._wait(self._previous_s + 1 / slow.value[0] - self._clock())
        while (stall := self._script.active("stall", self._now())) and not self._halted.is_set():
            self._wait(self._script.left_s(stall, self._now()))

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._halted.wait(min(seconds, threading.TIMEOUT_MAX))

    def _spoil(self, frame: Frame, now: Moment) -> None:
        """What a viewer would see: each fault works on what the one before it left."""
        freeze = self._script.active("freeze", now)
        if freeze is None:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = frame.pixels.copy()
        else:
            _show(frame, self._frozen)
        if size := self._script.active("size", now):
            _resize(frame, size)
        if self._script.active("black", now):
            frame.pixels[:] = 0
        if corrupt := self._script.active("corrupt", now):
            add_noise(frame.pixels, corrupt.value[0], self._frames)
        if short := self._script.active("short", now):
            frame.pixels[round(frame.pixels.shape[0] * short.value[0]) :] = GREY


def add_noise(pixels: Image, part: float, seed: int) -> None:
    """Overwrite about `part` (0 to 1) of the picture's 16x16 blocks with noise, the same for a seed.

    Args:
        pixels: uint8 (H, W, 3), changed in place.
    """
    generator = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    hit = generator.random((-(-height // BLOCK), -(-width // BLOCK))) < part
    mask = hit.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]
    pixels[mask] = generator.integers(0, 256, (int(mask.sum()), 3), np.uint8)


def _show(frame: Frame, picture: Image) -> None:
    np.copyto(frame.buffer(*picture.shape[:2]), picture)


def _resize(frame: Frame, size: Fault) -> None:
    import cv2

    width, height = map(int, size.value)
    frame.pixels = np.asarray(cv2.resize(frame.pixels, (width, height)), np.uint8)
