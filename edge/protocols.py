"""The four seams of the edge: Source, Runner, Task, Sink. A new one is one file and one table line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.frame import CaptureClock, Frame
from edge.pixels import Image
from edge.results import FrameResult, Result

Heads = dict[str, NDArray[np.float32]]
"""A model's raw outputs by name, float32, dequantised, batch first. Valid until the next `infer`."""


@dataclass(frozen=True)
class SourceInfo:
    """What a source knows of itself once it is open.

    Attributes:
        uri: as the user wrote it, secrets masked.
        width, height: of the first frame, pixels; 0 where pictures differ in size.
        fps: nominal frames a second; 0.0 where there is no rate (pictures), or a live stream states none.
        frames: how many there will be; 0 where there is an end and it is not known, None for a stream without end.
        capture_clock: what the capture stamps mean.
        camera: its name among several; empty where the stream has only one source.
    """

    uri: str
    width: int
    height: int
    fps: float
    frames: int | None
    capture_clock: CaptureClock
    camera: str = ""

    @property
    def is_pictures(self) -> bool:
        """Single pictures without a rate, each of which counts."""
        return not self.fps and self.capture_clock == "file"


class Source(Protocol):
    """Where frames come from. One thread opens, reads and closes it."""

    def open(self) -> SourceInfo:
        """Connect; raises SourceError when there is nothing to read or it cannot be decoded."""

    def read(self, frame: Frame) -> bool:
        """Fill `frame` (pixels, index, name, stamps capture and decode); False at the end."""

    def close(self) -> None:
        """Release files and devices; harmless when called twice."""


class Runner(Protocol):
    """One loaded model on one backend. Used by one thread.

    A runner that stages its input in memory of its own shows it as `staging`, uint8 (1, H, W, 3): pixels
    that lie there already are not copied by `infer`.
    """

    def infer(self, pixels: Image) -> Heads:
        """Run the model on uint8 (N, H, W, 3) RGB pixels of the manifest's size."""

    def close(self) -> None:
        """Free the model's memory; harmless when called twice."""


class Task(Protocol):
    """What the raw heads mean."""

    def decode(self, heads: Heads, picture: Image) -> Result:
        """The typed result of the first item of the batch; `picture` is the source's frame."""


class Sink(Protocol):
    """Where results go. Called from the inference thread: it must not block for long.

    One that needs no source to begin has `prepare()`, which `open` calls as well; the second time it does nothing:
    a daemon calls it at its start, so that a wrong target is not found with the first frame, hours later.
    """

    def open(self, source: SourceInfo) -> None:
        """Prepare; raises InputError when the target cannot be written."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take what the models say of one frame. `frame` is lent for the duration of the call."""

    def close(self) -> None:
        """Finish the output; a file appears whole under its name here, and only here."""
