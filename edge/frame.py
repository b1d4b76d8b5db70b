"""A frame and its history.

Stamps are `time.monotonic_ns()` readings taken at the END of each step, so the differences between
neighbours are the stages' durations and add up to the age. Wall-clock time is for display alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge.pixels import Image

CaptureClock = Literal["sensor", "driver", "arrival", "file"]
"""What the capture stamp is: exposure, the driver's buffer, arrival by network, or reading a file."""

STAGES = ("decode", "wait", "preprocess", "infer", "postprocess", "publish")
"""The stages between capture and publication, in order; `wait` lies between decode and dequeue."""


@dataclass
class Stamps:
    """When each step of one frame ended, in nanoseconds of the monotonic clock; 0 is 'not yet'."""

    capture: int = 0
    decode: int = 0
    dequeue: int = 0
    preprocess: int = 0
    infer: int = 0
    postprocess: int = 0
    publish: int = 0

    def mark(self, step: str) -> None:
        """Stamp the end of `step` with the present time."""
        setattr(self, step, time.monotonic_ns())

    def stages_ms(self) -> dict[str, float]:
        """Duration by stage (`STAGES`) in milliseconds; their sum is the age at publication."""
        ends = (
            self.capture, self.decode, self.dequeue, self.preprocess,
            self.infer, self.postprocess, self.publish,
        )  # fmt: skip
        return {
            stage: (end - begin) / 1e6 for stage, begin, end in zip(STAGES, ends[:-1], ends[1:], strict=True)
        }

    @property
    def age_ms(self) -> float:
        """From capture to publication, in milliseconds."""
        return (self.publish - self.capture) / 1e6


def _no_pixels() -> Image:
    return np.empty((0, 0, 3), np.uint8)


@dataclass
class Frame:
    """One picture of a stream. Its pixel buffer belongs to a ring slot and is reused.

    Attributes:
        pixels: uint8 (H, W, 3), RGB. Valid until the frame is released to its ring.
        index: position in the stream, from 0, counting dropped frames too.
        name: of the picture where it has one (a file), else empty.
        stamps: its history.
        capture_clock: what `stamps.capture` means.
    """

    pixels: Image = field(default_factory=_no_pixels)
    index: int = 0
    name: str = ""
    stamps: Stamps = field(default_factory=Stamps)
    capture_clock: CaptureClock = "arrival"

    def buffer(self, height: int, width: int) -> Image:
        """The pixel buffer, allocated anew only when the picture's size changes."""
        if self.pixels.shape != (height, width, 3):
            self.pixels = np.empty((height, width, 3), np.uint8)
        return self.pixels
