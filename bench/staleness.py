"""How old results are when the model is three times slower than the camera, and where the frames went.

    python bench/staleness.py [--seconds 300] [--fps 30] [--slower 3] [--json FILE]

One camera at a fixed rate, one model that takes `slower` frame intervals (it sleeps, so that the figures do
not depend on this machine's speed), three ways to pass frames from one to the other: the daemon itself, a
FIFO queue without a limit, and a queue of two that drops the newest frame when it is full. The age runs from
capture to publication. Ends with 1 when the daemon's p99 is beyond one inference, one frame and 10 ms, or
when a frame is not accounted for.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from edge.cascade import Cascade, Member
from edge.config import CameraSettings, StreamSettings
from edge.daemon import Daemon
from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import Classification, FrameResult
from edge.wiring import Models

SLACK_MS = 10.0
FIFO_LIMIT = 0
"""Of queue.Queue: none."""


class Ticker:
    """A camera at a fixed rate for a fixed time; a frame's capture is when it was due, and none is late."""

    def __init__(self, fps: float, seconds: float) -> None:
        self._fps, self._frames = fps, round(fps * seconds)

    def open(self) -> SourceInfo:
        """Begin now."""
        self._begin_ns, self._index = time.monotonic_ns(), 0
        return SourceInfo("ticker", 64, 48, self._fps, None, "driver")

    def read(self, frame: Frame) -> bool:
        """Wait for the next frame's time."""
        if self._index == self._frames:
            return False
        due_ns = self._begin_ns + round(self._index * 1e9 / self._fps)
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        frame.stamps.capture = due_ns
        frame.buffer(48, 64)[:] = self._index % 256
        frame.index, frame.capture_clock = self._index, "driver"
        frame.stamps.mark("decode")
        self._index += 1
        return True

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Slow:
    """A classifier that takes so long and looks at nothing."""

    seconds: float
    finds_faces: bool = False
    backend: str = "sleep"
    precision: str = "none"

    def prepare(self, picture: Any, shared: Any = None) -> Any:
        return picture

    def infer(self, pixels: Any) -> Any:
        time.sleep(self.seconds)
        return {}

    def decode(self, heads: Any, picture: Any) -> Classification:
        return Classification(np.ones(1, np.float32), 0, str(int(picture[0, 0, 0])))

    def close(self) -> None:
        pass


@dataclass
class Ages:
    """A sink that keeps what it was given."""

    ms: list[float] = field(default_factory=list)
    infer_ms: list[float] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def open(self, source: SourceInfo) -> None:
        pass

    def write(self, frame: Frame, result: FrameResult) -> None:
        self.ms.append(frame.stamps.age_ms)
        self.infer_ms.append(frame.stamps.stages_ms()["infer"])
        self.indices.append(frame.index)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Outcome:
    """What one way gave. Frames: captured = processed + dropped + in_flight, or `exact` is false."""

    way: str
    captured: int
    processed: int
    dropped: int
    in_flight: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    infer_p99_ms: float

    @property
    def exact(self) -> bool:
        """Whether every frame is accounted for."""
        return self.captured == self.processed + self.dropped + self.in_flight

    @classmethod
    def of(cls, way: str, ages: Ages, captured: int, dropped: int, in_flight: int) -> Outcome:
        p50, p99, most = np.percentile(ages.ms, (50, 99, 100), method="inverted_cdf").tolist()
        infer_p99 = float(np.percentile(ages.infer_ms, 99, method="inverted_cdf"))
        return cls(way, captured, len(ages.ms), dropped, in_flight, p50, p99, most, infer_p99)


def by_daemon(seconds: float, fps: float, infer_s: float) -> Outcome:
    """The daemon, latest wins."""
    ages = Ages()

    def models(settings: StreamSettings, before: Models | None) -> Models:
        return Models((), Cascade([Member("slow", Slow(infer_s))]))  # type: ignore[arg-type]

    camera = CameraSettings(name="ticker", source="ticker", reopen=False)
    settings = StreamSettings(cameras=(camera,), build_plans=False, seconds=seconds)
    daemon = Daemon(
        settings,
        more_sinks=[("ages", ages)],
        make_source=lambda camera, secrets: Ticker(fps, seconds + 1),
        open_models=models,
    )
    counts = daemon.run()
    assert counts.processed == len(ages.ms)
    return Outcome.of("daemon", ages, counts.captured, counts.dropped, counts.in_flight)


def by_queue(way: str, limit: int, seconds: float, fps: float, infer_s: float) -> Outcome:
    """A queue between two threads, frames copied; a frame that finds it full is dropped."""
    frames: queue.Queue[Frame] = queue.Queue(limit)
    ticker, ages, model = Ticker(fps, seconds), Ages(), Cascade([Member("slow", Slow(infer_s))])  # type: ignore[arg-type]
    ticker.open()
    captured, dropped = 0, 0

    def produce() -> None:
        nonlocal captured, dropped
        frame = Frame()
        while ticker.read(frame):
            captured += 1
            if limit and frames.full():
                dropped += 1
            else:
                frames.put(frame)
                frame = Frame()

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        try:
            frame = frames.get(timeout=0.1)
        except queue.Empty:
            continue
        frame.stamps.mark("dequeue")
        result = model.process(frame)
        frame.stamps.mark("publish")
        ages.write(frame, result)
    producer.join()
    return Outcome.of(way, ages, captured, dropped, frames.qsize())


def measure(seconds: float, fps: float, slower: float) -> list[Outcome]:
    """All three, one after the other."""
    infer_s = slower / fps
    ways: list[Callable[[], Outcome]] = [
        lambda: by_daemon(seconds, fps, infer_s),
        lambda: by_queue("FIFO queue", FIFO_LIMIT, seconds, fps, infer_s),
        lambda: by_queue("drop-newest queue of 2", 2, seconds, fps, infer_s),
    ]
    return [way() for way in ways]


def limit_ms(outcome: Outcome, fps: float) -> float:
    """One inference, as it was measured, one frame, and the slack."""
    return outcome.infer_p99_ms + 1e3 / fps + SLACK_MS


def table(outcomes: list[Outcome], title: str) -> Table:
    """For people."""
    names = ("way", "captured", "processed", "dropped", "waiting", "exact", "age p50", "p99", "max, ms")
    shown = Table(*names, title=title, title_justify="left")
    for o in outcomes:
        counts = (o.captured, o.processed, o.dropped, o.in_flight)
        ages = (f"{ms:.1f}" for ms in (o.p50_ms, o.p99_ms, o.max_ms))
        shown.add_row(o.way, *map(str, counts), "yes" if o.exact else "NO", *ages)
    return shown


@click.command()
@click.option("--seconds", default=300.0, show_default=True, help="Of each of the three ways.")
@click.option("--fps", default=30.0, show_default=True)
@click.option("--slower", default=3.0, show_default=True, help="Frame intervals that an inference takes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(seconds: float, fps: float, slower: float, json_file: Path | None) -> None:
    """Measure, print, and hold the daemon against its bound."""
    outcomes = measure(seconds, fps, slower)
    ours, most_ms = outcomes[0], limit_ms(outcomes[0], fps)
    title = f"{fps:g} fps, a model {slower:g} times slower, {seconds:g} s each"
    console = Console(width=110)
    console.print(table(outcomes, title))
    console.print(f"the daemon's p99 is {ours.p99_ms:.1f} ms; at most {most_ms:.1f} ms are allowed")
    if json_file:
        json_file.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    sys.exit(0 if ours.exact and ours.in_flight == 0 and ours.p99_ms <= most_ms else 1)


if __name__ == "__main__":
    main()
