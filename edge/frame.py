"""A frame and its history.

Stamps are `time.monotonic_ns()` readings taken at the END of each step, so the differences between
neighbours are the stages' durations and add up to the age. Wall-clock time is for display alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge.pixels import Image

CaptureClock = Literal["sensor", "driver", "arrival", "file"]
"""What the capture stamp is: exposure, the driver's buffer, arrival by network, or reading a file."""

STAGES = ("decode", "wait", "preprocess", "infer", "postprocess", "publish")
"""The stages between capture and publication, in order; `wait` lies between decode and dequeue."""


MODEL_STAGES = ("preprocess", "infer", "postprocess")
"""The stages that a model takes part in; with several models each is their sum."""


@dataclass
class Laps:
    """Divides what one model takes of a frame among its stages, without a gap.

    Attributes:
        last_ns: the end of the previous lap, on the monotonic clock; at first the model's begin.
        spent_ns: by stage (`MODEL_STAGES`); a stage may have several laps, one for each face.
    """

    last_ns: int
    spent_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODEL_STAGES, 0))

    def lap(self, stage: str) -> None:
        """All the time since the previous lap was spent in `stage`."""
        now_ns = time.monotonic_ns()
        self.spent_ns[stage] += now_ns - self.last_ns
        self.last_ns = now_ns

    @property
    def begin_ns(self) -> int:
        """When its time began."""
        return self.last_ns - sum(self.spent_ns.values())

    def stages_ms(self) -> dict[str, float]:
        """Duration by stage (`MODEL_STAGES`) in milliseconds."""
        return {stage: spent / 1e6 for stage, spent in self.spent_ns.items()}


@dataclass
class Stamps:
    """When each step of one frame ended, in nanoseconds of the monotonic clock; 0 is 'not yet'.

    Attributes:
        media: the stream's own timestamp of the frame in nanoseconds, from any origin; None where it has
            none. Its drift against the monotonic clock shows what waits upstream, see `edge.backlog`.
        models: by name, what each model took of the stages in `MODEL_STAGES`. With several models those
            stages are sums: their stamps stand where they would if all models did one stage after
            the other, so that the stages still add up to the age, to the nanosecond. Of models that ran
            side by side, on several threads, the sum is that of the thread which was done last.
    """

    capture: int = 0
    decode: int = 0
    dequeue: int = 0
    preprocess: int = 0
    infer: int = 0
    postprocess: int = 0
    publish: int = 0
    media: int | None = None
    models: dict[str, Laps] = field(default_factory=dict)

    def finish_models(self, path: Iterable[Laps]) -> None:
        """Stamp preprocess, infer and postprocess from laps, each of which began when the one before it ended.

        The first one began with `dequeue`.
        """
        laps, at_ns = list(path), self.dequeue
        for stage in MODEL_STAGES:
            at_ns += sum(lap.spent_ns[stage] for lap in laps)
            setattr(self, stage, at_ns)

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
        camera: the name of the camera it comes from; empty where the stream has only one source.
        stamps: its history.
        capture_clock: what `stamps.capture` means.
    """

    pixels: Image = field(default_factory=_no_pixels)
    index: int = 0
    name: str = ""
    camera: str = ""
    stamps: Stamps = field(default_factory=Stamps)
    capture_clock: CaptureClock = "arrival"

    def buffer(self, height: int, width: int) -> Image:
        """The pixel buffer, allocated anew only when the picture's size changes."""
        if self.pixels.shape != (height, width, 3):
            self.pixels = np.empty((height, width, 3), np.uint8)
        return self.pixels
