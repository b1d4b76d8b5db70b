"""Sources and models for the daemon's tests: real threads and clocks, small pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.cascade import Cascade, Member
from edge.config import CameraSettings, StreamSettings
from edge.daemon import Daemon
from edge.errors import SourceError
from edge.frame import CaptureClock, Frame
from edge.protocols import SourceInfo
from edge.results import Classification, FrameResult
from edge.secret import Secrets
from edge.wiring import Models


@dataclass
class Camera:
    """A source of a fixed rate whose picture's brightness is its index.

    Attributes:
        fails_after: frames after each opening, then it raises.
        media: gives a frame's own timestamp.
        stall: the index of a frame that comes late, and by how many seconds.
    """

    frames: int | None = None
    fps: float = 100.0
    clock: CaptureClock = "driver"
    fails_after: int | None = None
    media: Callable[[int], int] | None = None
    stall: tuple[int, float] = (-1, 0.0)
    opened: int = 0
    index: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    def open(self) -> SourceInfo:
        self.opened += 1
        self.index, self._begin_s = 0, time.monotonic()
        self.closed.clear()
        return SourceInfo("test camera", 16, 12, self.fps, self.frames, self.clock)

    def read(self, frame: Frame) -> bool:
        if self.index == self.fails_after:
            raise SourceError("the cable was pulled")
        if self.index == self.frames:
            return False
        if self.index == self.stall[0]:
            time.sleep(self.stall[1])
        if self.fps:
            time.sleep(max(0.0, self._begin_s + self.index / self.fps - time.monotonic()))
        frame.stamps.mark("capture")
        frame.buffer(12, 16)[:] = self.index % 256
        frame.index, frame.capture_clock = self.index, self.clock
        if self.media is not None:
            frame.stamps.media = self.media(self.index)
        frame.stamps.mark("decode")
        self.index += 1
        return True

    def close(self) -> None:
        self.closed.set()


@dataclass
class Sleeper:
    """A classifier that takes so long and tells the brightness."""

    seconds: float = 0.0
    finds_faces: bool = False
    backend: str = "sleep"
    precision: str = "none"
    fails: bool = False

    def prepare(self, picture: Any, shared: Any = None) -> Any:
        return picture

    def infer(self, pixels: Any) -> Any:
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("the accelerator is gone")
        return {}

    def decode(self, heads: Any, picture: Any) -> Classification:
        return Classification(np.ones(1, np.float32), 0, str(int(picture[0, 0, 0])))

    def close(self) -> None:
        pass


@dataclass
class Collector:
    """A sink that keeps what it was given, by camera."""

    indices: dict[str, list[int]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    ages: dict[str, list[float]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: int = 0
    on_write: Callable[[Frame], None] = lambda frame: None

    def open(self, source: SourceInfo) -> None:
        self.opened.append(source.camera)

    def write(self, frame: Frame, result: FrameResult) -> None:
        self.on_write(frame)
        self.indices.setdefault(frame.camera, []).append(frame.index)
        if result.classification is not None:
            self.labels.setdefault(frame.camera, []).append(result.classification.label)
        self.ages.setdefault(frame.camera, []).append(frame.stamps.age_ms)
        self.order.append(frame.camera)

    def close(self) -> None:
        self.closed += 1


def cameras(*names: str, **options: Any) -> tuple[CameraSettings, ...]:
    return tuple(CameraSettings(name=name, source=f"test://{name}", **options) for name in names)


def steady(name: str) -> CameraSettings:
    """A camera whose every frame counts, also on a machine that is busy: its thread waits for the loop."""
    return CameraSettings(name=name, source=f"test://{name}", lossless=True)


def daemon_of(
    settings: StreamSettings, sources: dict[str, Any], model: Any, sink: Any = None, **options: Any
) -> Daemon:
    """A daemon over test sources, by camera, and one model that needs no bundle."""

    def models(settings: StreamSettings, before: Models | None) -> Models:
        return Models((), Cascade([Member("sleeper", model)]))

    def make(camera: CameraSettings, secrets: Secrets) -> Any:
        return sources[camera.name]

    sinks = [("collector", sink)] if sink is not None else []
    return Daemon(settings, more_sinks=sinks, make_source=make, open_models=models, **options)
