"""A source, a model and a sink that take as long as they are told, and write down how long that was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.cascade import Cascade, Member
from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import Classification, FrameResult

CAT = Classification(np.array([1.0], np.float32), 0, "cat")
INFO = SourceInfo("clip.mp4", 16, 12, 0.0, None, "file")

Delay = Callable[[int], float]
"""Seconds, by the frame's number."""


def nothing(index: int) -> float:
    """No delay."""
    return 0.0


class Spans:
    """When something began and ended, each time: nanoseconds of the clock that stamps are taken from."""

    def __init__(self) -> None:
        self.begin_ns: list[int] = []
        self.end_ns: list[int] = []

    def __enter__(self) -> None:
        self.begin_ns.append(time.monotonic_ns())

    def __exit__(self, *error: object) -> None:
        self.end_ns.append(time.monotonic_ns())

    @property
    def taken_ns(self) -> list[int]:
        """How long each took."""
        return [end - begin for begin, end in zip(self.begin_ns, self.end_ns, strict=True)]


class Injected(Spans):
    """Waits, and keeps what the clock says of the waiting: a sleep is late on a busy machine."""

    def __init__(self, delay: Delay) -> None:
        super().__init__()
        self.delay = delay

    def __call__(self) -> None:
        delay_s = self.delay(len(self.begin_ns))
        with self:
            if delay_s:
                time.sleep(delay_s)


class SlowSource:
    """Decoding takes as long as told."""

    def __init__(self, frames: int, decode: Delay = nothing) -> None:
        self.frames, self.index = frames, 0
        self.decode, self.reads = Injected(decode), Spans()

    def open(self) -> SourceInfo:
        self.index = 0
        return INFO

    def read(self, frame: Frame) -> bool:
        if self.index == self.frames:
            return False
        with self.reads:
            frame.stamps.mark("capture")
            frame.buffer(12, 16)
            frame.index = self.index
            self.index += 1
            self.decode()
            frame.stamps.mark("decode")
        return True

    def close(self) -> None: ...


class SlowModel:
    """Each of its three steps takes as long as told."""

    finds_faces = False
    name = "slow"

    def __init__(
        self, preprocess: Delay = nothing, infer: Delay = nothing, postprocess: Delay = nothing
    ) -> None:
        self.preprocess, self.inference, self.postprocess = map(Injected, (preprocess, infer, postprocess))

    def prepare(self, picture: Any, shared: Any = None) -> Any:
        self.preprocess()
        return picture

    def infer(self, pixels: Any) -> Any:
        self.inference()
        return {}

    def decode(self, heads: Any, picture: Any) -> Classification:
        self.postprocess()
        return CAT


class SlowSink:
    """Publishing takes as long as told."""

    def __init__(self, publish: Delay = nothing) -> None:
        self.publish = Injected(publish)

    def open(self, source: SourceInfo) -> None: ...

    def write(self, frame: Frame, result: FrameResult) -> None:
        self.publish()

    def close(self) -> None: ...


def one(model: Any) -> Cascade:
    """The model alone."""
    return Cascade([Member("slow", model)])
