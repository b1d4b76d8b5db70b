"""Where the time of a frame goes: percentiles by stage, and what streaming costs over its parts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.frame import MODEL_STAGES, STAGES, Frame, Stamps
from edge.machine import package_versions, this_machine
from edge.profiling.histogram import Histogram
from edge.profiling.report import SCHEMA_VERSION, write_report
from edge.profiling.spread import PERCENTS, ModelSpreads, Spread, missing
from edge.protocols import Source, SourceInfo
from edge.results import FrameResult

if TYPE_CHECKING:
    from rich.table import Table

    from edge.cascade import Cascade

WARM_UP_S = 0.2
"""Before the first inference is timed. OpenBLAS's threads spin for 50 ms after they start."""

PACKAGES = ("sightline", "numpy", "opencv-python-headless", "av", "ai-edge-litert", "onnxruntime")


class StageRecorder:
    """A sink that counts each frame's stage durations and age, and writes their spreads as JSON.

    Its memory is fixed: a histogram of 37 KB for each stage, and for each model's. As the last of the
    sinks it sees what the others cost, in the stage `publish`.

    Args:
        path: of the JSON file written by `close`; None for none.
        settings: what was run (source, model, backend ...), stored in the file.
    """

    def __init__(self, path: Path | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._settings = dict(settings or {})
        self._clear("file")

    def open(self, source: SourceInfo) -> None:
        """Start anew."""
        self._clear(source.capture_clock)

    def _clear(self, clock: str) -> None:
        self._clock = clock
        self._stages = {name: Histogram() for name in (*STAGES, "age")}
        self._record = [histogram.record for histogram in self._stages.values()]
        self._of_models: dict[str, dict[str, Histogram]] = {}

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Count the frame's durations; `result` is not looked at."""
        at = frame.stamps
        decode, wait, preprocess, infer, postprocess, publish, age = self._record
        decode(at.decode - at.capture)
        wait(at.dequeue - at.decode)
        preprocess(at.preprocess - at.dequeue)
        infer(at.infer - at.preprocess)
        postprocess(at.postprocess - at.infer)
        publish(at.publish - at.postprocess)
        age(at.publish - at.capture)
        for name, laps in at.models.items():
            of_model = self._of_models.get(name) or self._new_model(name)
            for stage, spent_ns in laps.spent_ns.items():
                of_model[stage].record(spent_ns)

    def close(self) -> None:
        """Write the file, if there is one to write and anything to say."""
        if self._path is not None and self.n:
            write_report(self._path, self.report())

    @property
    def n(self) -> int:
        """Frames counted."""
        return self._stages["age"].n

    def spreads(self, percents: Sequence[float] = PERCENTS) -> dict[str, Spread]:
        """By stage, in order, with `age` last; empty before the first frame."""
        return _spreads(self._stages, percents) if self.n else {}

    def model_spreads(self, percents: Sequence[float] = PERCENTS) -> ModelSpreads:
        """By model and stage, what each model takes of `MODEL_STAGES`; their sums are the stages."""
        known = dict(self._of_models).items()  # which the stream goes on filling: a new one may be empty yet
        counted = ((name, stages) for name, stages in known if all(found.n for found in stages.values()))
        return {name: _spreads(stages, percents) for name, stages in counted}

    def report(self) -> dict[str, Any]:
        """The content of the JSON file: machine, versions, settings, and milliseconds by stage and model."""
        stages, models = self.spreads(), self.model_spreads()
        return report_of(self._settings, self._clock, self.n, stages, models)

    def _new_model(self, name: str) -> dict[str, Histogram]:
        self._of_models[name] = {stage: Histogram() for stage in MODEL_STAGES}
        return self._of_models[name]


def _spreads(histograms: Mapping[str, Histogram], percents: Sequence[float]) -> dict[str, Spread]:
    return {stage: Spread.of_histogram(found, percents) for stage, found in histograms.items()}


def report_of(
    settings: Mapping[str, Any], clock: str, n: int, stages: Mapping[str, Spread], models: ModelSpreads
) -> dict[str, Any]:
    """The part of a report that every one has, after `edge.profiling.report.Report`."""
    asked = next(iter(stages.values())).percentiles if stages else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "taken_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": asdict(this_machine()),
        "versions": package_versions(PACKAGES),
        "settings": dict(settings),
        "capture_clock": clock,
        "n": n,
        "frames_needed": missing(asked, n),
        "stages_ms": {name: spread.as_json() for name, spread in stages.items()},
        "models_ms": {
            name: {stage: spread.as_json() for stage, spread in of_model.items()}
            for name, of_model in models.items()
        },
    }


def stage_table(
    spreads: Mapping[str, Spread], n: int, models: ModelSpreads | None = None, title: str = "Latency by stage"
) -> Table:
    """The spreads as a table for people, milliseconds; of several models, each one's part by stage.

    A percentile for which n is too small is `-`, and the caption says how many frames it needs.
    """
    from rich.table import Table

    first = next(iter(spreads.values()))
    table = Table(title=f"{title}, ms ({_frames(n)})", title_justify="left", caption_justify="left")
    table.caption = _caption(missing(first.percentiles, n))
    table.add_column("stage")
    for name in first.as_json():
        table.add_column(name, justify="right")
    for stage, spread in spreads.items():
        if stage == "age":
            table.add_section()
        table.add_row(stage, *_cells(spread))
        for model, of_model in models.items() if models and len(models) > 1 else ():
            if stage in of_model:
                table.add_row(f"  {model}", *_cells(of_model[stage]), style="dim")
    return table


def _frames(n: int) -> str:
    return f"{n} frame" if n == 1 else f"{n} frames"


def _caption(needed: Mapping[str, int]) -> str | None:
    """`- too few frames: p99.9 needs 2995`, or nothing."""
    needs = ", ".join(f"{name} needs {frames}" for name, frames in needed.items())
    return f"- too few frames: {needs}" if needs else None


def _cells(spread: Spread) -> Iterable[str]:
    return ("-" if value is None else f"{value:.2f}" for value in spread.as_json().values())


def streaming_table(cost: StreamingCost) -> Table:
    """What streaming costs over its parts, for people."""
    from rich.table import Table

    alone = cost.alone
    table = Table(title=f"Streaming against its parts ({_frames(alone.n)})", title_justify="left")
    for name in ("", "wall ms", "cpu ms"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("decode alone", f"{alone.decode_ms:.2f}", f"{alone.decode_cpu_ms:.2f}")
    table.add_row("infer alone", f"{alone.infer_ms:.2f}", f"{alone.infer_cpu_ms:.2f}")
    table.add_section()
    table.add_row(
        f"bound on {alone.cores} cores", f"{1e3 / alone.bound_fps:.2f}", f"{alone.bound_fps:.0f} fps"
    )
    table.add_row("streamed", f"{1e3 / cost.fps:.2f}", f"{cost.fps:.0f} fps")
    table.add_row("ratio", f"{cost.ratio:.2f}", "")
    return table


@dataclass(frozen=True)
class Alone:
    """The two halves of a stream, each timed by itself: one after the other, on one thread.

    Attributes:
        n: frames measured.
        decode_ms, infer_ms: wall time of a frame; decoding includes the conversion to RGB,
            inference includes resizing before and decoding the result after.
        decode_cpu_ms, infer_cpu_ms: processor time of a frame, over all threads.
        cores: that this process may use.
    """

    n: int
    decode_ms: float
    infer_ms: float
    decode_cpu_ms: float
    infer_cpu_ms: float
    cores: int

    @property
    def bound_fps(self) -> float:
        """No two-thread stream can be faster: min(1/t_decode, 1/t_infer, cores/(cpu_decode + cpu_infer))."""
        by_cpu = self.cores / (self.decode_cpu_ms + self.infer_cpu_ms)
        return 1e3 * min(1 / self.decode_ms, 1 / self.infer_ms, by_cpu)


@dataclass(frozen=True)
class StreamingCost:
    """What a stream reaches of what its halves allow. 1.0 is the most that two threads can do."""

    alone: Alone
    fps: float

    @property
    def ratio(self) -> float:
        """Frames a second over `alone.bound_fps`."""
        return self.fps / self.alone.bound_fps

    def as_json(self) -> dict[str, Any]:
        """All figures, for the report."""
        figures = {
            **asdict(self.alone),
            "bound_fps": self.alone.bound_fps,
            "fps": self.fps,
            "ratio": self.ratio,
        }
        return {name: round(value, 4) for name, value in figures.items()}


class _Stopwatch:
    """Adds up wall and processor time of the pieces put into `with`."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.wall_s += time.perf_counter() - self._wall
        self.cpu_s += time.process_time() - self._cpu


def measure_alone(source: Source, models: Cascade, frames: int, warm_up_s: float = WARM_UP_S) -> Alone:
    """Time decoding and inference of the first `frames` frames without any overlap.

    Raises:
        SourceError: the source cannot be read.
    """
    import cv2

    cv2.setNumThreads(1)
    decode, infer, frame = _Stopwatch(), _Stopwatch(), Frame()
    try:
        models.start(source.open())
        n = 0
        while n < frames and _timed_read(decode, source, frame):
            if n == 0:
                _warm_up(models, frame, warm_up_s)
            with infer:
                _infer(models, frame)
            n += 1
    finally:
        source.close()
    per_frame = 1e3 / n
    return Alone(
        n=n,
        decode_ms=decode.wall_s * per_frame,
        infer_ms=infer.wall_s * per_frame,
        decode_cpu_ms=decode.cpu_s * per_frame,
        infer_cpu_ms=infer.cpu_s * per_frame,
        cores=this_machine().cores,
    )


def _warm_up(models: Cascade, frame: Frame, seconds: float) -> None:
    """Infer until caches are warm, clocks are up and the libraries' own threads have gone to sleep."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        _infer(models, frame)


def _infer(models: Cascade, frame: Frame) -> None:
    frame.stamps = Stamps()
    models.process(frame)


def _timed_read(watch: _Stopwatch, source: Source, frame: Frame) -> bool:
    with watch:
        return source.read(frame)
