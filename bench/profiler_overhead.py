"""What it costs to record every frame: frames a second with the recorder and without, in turn.

    python bench/profiler_overhead.py [--bundle cifar10-convnetjs] [--frames 600] [--rounds 20]

Streams the demo source, rendered once and kept in memory, losslessly through the bundle: off, on, on,
off, ... Prints the share of throughput that recording takes, the median over the rounds with a
bootstrap interval, and what one frame's recording takes alone, beside a frame's processor time: this tells
something on a busy machine too, the throughput does not.
Ends with 1 when the lower end of the interval is above 1 %.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import closing

import click
import numpy as np

from edge.bundle import DEFAULT_BUNDLE
from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.frame import Frame, Laps
from edge.pipeline import Limits, Pipeline
from edge.profiler import StageRecorder
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sources import open_source

GOAL = 0.01
KEPT = 30


class Kept:
    """Frames of the demo source, decoded beforehand: recording weighs most where the rest is cheapest."""

    def __init__(self) -> None:
        source, frame = open_source(f"demo://?frames={KEPT}"), Frame()
        self._info, self._pictures, self._index = source.open(), [], 0
        while source.read(frame):
            self._pictures.append(frame.pixels.copy())
        source.close()

    def open(self) -> SourceInfo:
        self._index = 0
        return self._info

    def read(self, frame: Frame) -> bool:
        frame.stamps.mark("capture")
        frame.pixels, frame.index = self._pictures[self._index % KEPT], self._index
        self._index += 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None: ...


def fps(source: Kept, models: Cascade, frames: int, recording: bool) -> tuple[float, float]:
    """Of one run; and its processor time a frame, in milliseconds."""
    sinks, begin_s = [StageRecorder()] if recording else [], time.process_time()
    found = Pipeline(source, models, sinks, Limits(frames=frames), lossless=True).run().fps
    return found, (time.process_time() - begin_s) * 1e3 / frames


def record_alone_us(models: Cascade, times: int = 20_000) -> float:
    """Microseconds of processor time that `StageRecorder.write` takes for one frame."""
    recorder, frame = StageRecorder(), Frame()
    for step in ("capture", "decode", "dequeue"):
        frame.stamps.mark(step)
    at_ns = frame.stamps.dequeue
    for member in models.members:
        frame.stamps.models[member.name] = laps = Laps(at_ns)
        laps.lap("infer")
        at_ns = laps.last_ns
    frame.stamps.finish_models(frame.stamps.models.values())
    frame.stamps.mark("publish")
    begin_s = time.thread_time()
    for _ in range(times):
        recorder.write(frame, FrameResult({}))
    return (time.thread_time() - begin_s) / times * 1e6


@click.command()
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True)
@click.option("--frames", default=600, show_default=True)
@click.option("--rounds", default=20, show_default=True)
def main(bundle: str, frames: int, rounds: int) -> None:
    """Measure in turn, and hold the cost against the goal."""
    settings, source = StreamSettings(model=bundle), Kept()
    costs: list[float] = []
    frame_ms: list[float] = []
    with closing(Cascade.open(settings.chosen())) as models:
        fps(source, models, frames, recording=True)  # warms up caches and clocks
        for number in range(rounds):
            order = (False, True) if number % 2 == 0 else (True, False)
            found = {recording: fps(source, models, frames, recording) for recording in order}
            costs.append(1 - found[True][0] / found[False][0])
            frame_ms.append(found[False][1])
        alone_us = record_alone_us(models)
    drawn = np.median(np.random.default_rng(0).choice(costs, (10_000, rounds)), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    click.echo(
        f"recording takes {statistics.median(costs):.2%} of the throughput (95 % interval {low:.2%} to "
        f"{high:.2%}, {rounds} rounds of {frames} frames). Goal: {GOAL:.0%}\n"
        f"alone {alone_us:.1f} us of processor time a frame, {alone_us / statistics.median(frame_ms) / 1e3:.2%} of "
        f"what a frame takes without decoding ({statistics.median(frame_ms):.2f} ms)"
    )
    sys.exit(1 if low > GOAL else 0)


if __name__ == "__main__":
    main()
