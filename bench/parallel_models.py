"""Two models on one frame: one after the other, side by side on two threads, and as the daemon chooses by trying.

    python bench/parallel_models.py [--rounds 10] [--seconds 3] [--json FILE]

Real bundles, one thread each, on kept pictures of 1280x720 (so that decoding takes nothing but a copy). For
each pair of models the three ways take turns, `rounds` times: first as fast as it goes (frames a second), then
from a camera of 30 frames a second, of which the newest is taken (age from capture to publication). The figures
are of all rounds together; `won` is the median of the rounds' own ratios. Each frame must be accounted for.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from edge.cascade import Cascade
from edge.config import ModelTable, StreamSettings
from edge.files import write_text
from edge.frame import Frame
from edge.pipeline import Limits, Pipeline
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sources import open_source

KEPT = 30
FPS = 30.0
WAYS: dict[str, bool | None] = {"in turn": False, "side by side": True, "chosen": None}
PAIRS: dict[str, tuple[ModelTable, ...]] = {
    "face-320x192 + cifar10-base, tflite int8": (
        ModelTable(bundle="face-320x192", backend="tflite"),
        ModelTable(bundle="cifar10-base", backend="tflite"),
    ),
    "face-320x192 + cifar10-nano, tflite int8": (
        ModelTable(bundle="face-320x192", backend="tflite"),
        ModelTable(bundle="cifar10-nano", backend="tflite"),
    ),
    "face-640 + face-320, tflite int8": (
        ModelTable(bundle="face-640", backend="tflite"),
        ModelTable(bundle="face-320", backend="tflite"),
    ),
    "face-320x192 + cifar10-base, onnx fp16": (
        ModelTable(bundle="face-320x192", backend="onnx", precision="fp16"),
        ModelTable(bundle="cifar10-base", backend="onnx", precision="fp16"),
    ),
}


class Kept:
    """Pictures in memory, as from a camera of `fps`, or from a file where that is 0."""

    def __init__(self, pictures: list[np.ndarray[Any, Any]], fps: float, seconds: float) -> None:
        self._pictures, self._fps, self._seconds = pictures, fps, seconds

    def open(self) -> SourceInfo:
        """Begin now."""
        self._begin_ns, self._index = time.monotonic_ns(), 0
        height, width = self._pictures[0].shape[:2]
        return SourceInfo("kept", width, height, self._fps or FPS, None, "driver" if self._fps else "file")

    def read(self, frame: Frame) -> bool:
        """The next picture, when it is due."""
        due_ns = self._begin_ns + round(self._index * 1e9 / self._fps) if self._fps else time.monotonic_ns()
        if due_ns - self._begin_ns >= self._seconds * 1e9:
            return False
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        frame.stamps.capture = due_ns
        picture = self._pictures[self._index % len(self._pictures)]
        np.copyto(frame.buffer(*picture.shape[:2]), picture)
        frame.index, self._index = self._index, self._index + 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Ages:
    """A sink that keeps the ages, and checks that the stages add up to them."""

    ms: list[float] = field(default_factory=list)

    def open(self, source: SourceInfo) -> None:
        """Nothing to open."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Keep it."""
        assert abs(sum(frame.stamps.stages_ms().values()) - frame.stamps.age_ms) < 1e-6
        self.ms.append(frame.stamps.age_ms)

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Way:
    """What one way gave: frames a second by round, and the ages of all rounds."""

    cascade: Cascade
    fps: list[float] = field(default_factory=list)
    ages: Ages = field(default_factory=Ages)


def measure(
    tables: tuple[ModelTable, ...], pictures: list[Any], rounds: int, seconds: float
) -> dict[str, Way]:
    """All ways of one pair, in turn."""
    settings = StreamSettings(models=tables).chosen()
    ways = {name: Way(Cascade.open(settings, parallel=parallel)) for name, parallel in WAYS.items()}
    for number in range(rounds):
        for name in sorted(ways, key=lambda name: (list(WAYS).index(name) + number) % len(WAYS)):
            way = ways[name]
            fast = Pipeline(Kept(pictures, 0, seconds), way.cascade, limits=Limits(), lossless=True).run()
            way.fps.append(fast.fps)
            live = Pipeline(Kept(pictures, FPS, seconds), way.cascade, [way.ages]).run().counts
            assert live.captured == live.processed + live.dropped + live.in_flight, live
    return ways


def table_of(ways: dict[str, Way]) -> Table:
    """One row a way."""
    heads = ("way", "frames/s", "won", "age p50, ms", "p99, ms", "n", "chosen")
    table = Table(*heads, box=None, pad_edge=False)
    for name, way in ways.items():
        ratio = statistics.median(a / b for a, b in zip(way.fps, ways["in turn"].fps, strict=True))
        p50, p99 = np.percentile(way.ages.ms, [50, 99])
        chosen = {True: "side by side", False: "in turn", None: "trying"}[way.cascade.choice.side_by_side]
        fps = f"{statistics.median(way.fps):.0f}"
        table.add_row(name, fps, f"{ratio:.2f}", f"{p50:.2f}", f"{p99:.2f}", str(len(way.ages.ms)), chosen)
    return table


@click.command()
@click.option("--rounds", default=10, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Of each way, round and source.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(rounds: int, seconds: float, json_file: Path | None) -> None:
    """Measure all pairs."""
    console, pictures, found = Console(width=110), _pictures(), {}
    for name, tables in PAIRS.items():
        ways = measure(tables, pictures, rounds, seconds)
        console.print(f"\n{name}")
        console.print(table_of(ways))
        found[name] = {
            way: {"fps": kept.fps, "age_ms": np.percentile(kept.ages.ms, [50, 90, 99]).tolist()}
            for way, kept in ways.items()
        }
        for way_ in ways.values():
            way_.cascade.close()
    console.print(f"\n{os.cpu_count()} cores; load average of the last 5 minutes: {os.getloadavg()[1]:.1f}")
    if json_file:
        write_text(json_file, json.dumps(found, indent=2) + "\n")


def _pictures() -> list[Any]:
    kept, frame = [], Frame()
    with closing(open_source(f"demo://?width=1280&height=720&frames={KEPT}")) as source:
        source.open()
        while source.read(frame):
            kept.append(frame.pixels.copy())
    return kept


if __name__ == "__main__":
    main()
