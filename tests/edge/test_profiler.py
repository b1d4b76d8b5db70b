"""Percentiles, the bound on a two-thread stream, and what is counted as whose time."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edge.cascade import Cascade, Member
from edge.frame import MODEL_STAGES, STAGES, Frame, Laps
from edge.profiler import Alone, StageRecorder, StreamingCost, measure_alone, stage_table
from edge.profiling.histogram import Histogram
from edge.profiling.report import read_report
from edge.protocols import SourceInfo
from edge.results import Classification, FrameResult

MS = 1_000_000
INFO = SourceInfo("clip.mp4", 16, 12, 25.0, None, "file")
CAT = Classification(np.array([1.0], np.float32), 0, "cat")
OF_FRAME = FrameResult({"pets": CAT})


def burn(seconds: float) -> None:
    """Use the processor, unlike sleep."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class SlowSource:
    """Frames that cost 2 ms of processor time each."""

    def __init__(self, frames: int) -> None:
        self.left, self.closed = frames, False

    def open(self) -> SourceInfo:
        return INFO

    def read(self, frame: Frame) -> bool:
        if not self.left:
            return False
        self.left -= 1
        burn(0.002)
        frame.buffer(12, 16)[:] = 0
        return True

    def close(self) -> None:
        self.closed = True


class SlowModel:
    """Inference waits 6 ms for a device, and costs the processor next to nothing."""

    calls = 0
    finds_faces = False

    def prepare(self, picture: Any, shared: Any = None) -> Any:
        return picture

    def infer(self, pixels: Any) -> Any:
        self.calls += 1
        time.sleep(0.006)
        return {}

    def decode(self, heads: Any, picture: Any) -> Classification:
        return CAT


def one(model: Any) -> Cascade:
    return Cascade([Member("slow", model)])


def test_parts_are_timed_apart_and_after_the_warm_up() -> None:
    source, model = SlowSource(20), SlowModel()
    alone = measure_alone(source, one(model), frames=12)
    assert (alone.n, source.closed) == (12, True)
    assert model.calls > 12
    assert alone.decode_ms >= 2
    assert alone.infer_ms >= 6
    assert 1.9 <= alone.decode_cpu_ms < 4
    assert alone.infer_cpu_ms < 2


def test_short_source_is_measured_as_far_as_it_goes() -> None:
    assert measure_alone(SlowSource(3), one(SlowModel()), frames=300).n == 3


@pytest.mark.parametrize(
    ("decode", "infer", "decode_cpu", "infer_cpu", "cores", "fps"),
    [
        (5.0, 2.0, 5.0, 2.0, 2, 200.0),  # the decoder is slowest
        (2.0, 8.0, 2.0, 1.0, 2, 125.0),  # the model is
        (2.0, 2.0, 2.0, 6.0, 1, 125.0),  # both want the one core
    ],
)
def test_bound_is_the_tightest_of_three(
    decode: float, infer: float, decode_cpu: float, infer_cpu: float, cores: int, fps: float
) -> None:
    alone = Alone(300, decode, infer, decode_cpu, infer_cpu, cores)
    assert alone.bound_fps == pytest.approx(fps)
    assert StreamingCost(alone, 0.9 * fps).ratio == pytest.approx(0.9)


def recorded(path: Path | None, frames: int = 301) -> StageRecorder:
    """Frame i spends i ms in `infer` and 1 ms in each other stage."""
    recorder = StageRecorder(path, {"model": "pets"})
    recorder.open(INFO)
    for index in range(frames):
        frame = Frame(index=index)
        steps = ("capture", "decode", "dequeue", "preprocess", "infer", "postprocess", "publish")
        for at_ms, step in enumerate(steps):
            late = index - 1 if at_ms >= 4 else 0
            setattr(frame.stamps, step, (1000 + at_ms + late) * MS)
        recorder.write(frame, OF_FRAME)
    recorder.close()
    return recorder


def test_report_names_stages_machine_versions_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    recorded(path)
    report = json.loads(path.read_text())
    assert (report["schema_version"], report["n"], report["capture_clock"]) == (2, 301, "file")
    assert list(report["stages_ms"]) == [*STAGES, "age"]
    infer = report["stages_ms"]["infer"]
    assert list(infer) == ["p50", "p90", "p99", "p99.9", "mean", "max", "jitter"]
    for name, exact in (("p50", 150), ("p90", 270), ("p99", 297)):
        assert infer[name] == pytest.approx(exact, rel=0.005)
    assert (infer["mean"], infer["max"], infer["jitter"]) == (150.0, 300.0, 1.0)
    assert report["stages_ms"]["decode"]["p99"] == 1.0
    assert report["stages_ms"]["age"]["p50"] == pytest.approx(155, rel=0.005)
    assert report["settings"] == {"model": "pets"}
    assert report["versions"]["numpy"] == np.__version__
    assert report["machine"]["cores"] >= 1


def test_a_percentile_that_the_frames_cannot_tell_is_null_and_a_dash(tmp_path: Path) -> None:
    recorder = recorded(tmp_path / "latency.json")
    report = json.loads((tmp_path / "latency.json").read_text())
    assert report["stages_ms"]["age"]["p99.9"] is None
    assert report["frames_needed"] == {"p99.9": 2995}
    stream = io.StringIO()
    Console(file=stream, width=100).print(stage_table(recorder.spreads(), recorder.n))
    assert "- too few frames: p99.9 needs 2995" in stream.getvalue()
    assert all(row.split()[9] == "-" for row in stream.getvalue().splitlines() if row.startswith("│"))


def test_what_run_writes_is_a_report_that_can_be_gated(tmp_path: Path) -> None:
    recorded(tmp_path / "latency.json")
    assert read_report(tmp_path / "latency.json").rows is None


def test_nothing_is_written_about_no_frames(tmp_path: Path) -> None:
    assert recorded(tmp_path / "latency.json", frames=0).spreads() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_told_from_its_first_frame_on(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, record = StageRecorder(), Histogram.record
    recorder.open(INFO)
    told: list[list[str]] = []

    def recorded_and_asked(histogram: Histogram, value_ns: int) -> None:  # another thread asks at any time
        told.append(list(recorder.model_spreads()))
        record(histogram, value_ns)

    monkeypatch.setattr(Histogram, "record", recorded_and_asked)
    frame = Frame()
    frame.stamps.models["small"] = Laps(0)
    recorder.write(frame, OF_FRAME)
    assert not any(told)
    assert list(recorder.model_spreads()) == ["small"]


def test_several_models_share_the_stages_and_stand_apart_in_the_table() -> None:
    recorder = StageRecorder()
    recorder.open(INFO)
    for index in range(50):
        frame = Frame(index=index)
        frame.stamps.mark("dequeue")
        for name in ("small", "large"):
            laps = frame.stamps.models[name] = Laps(frame.stamps.dequeue)
            for stage in MODEL_STAGES:
                laps.lap(stage)
            laps.spent_ns["infer"] += MS if name == "large" else 0
        frame.stamps.finish_models(frame.stamps.models.values())
        recorder.write(frame, OF_FRAME)
    report = recorder.report()
    assert list(report["models_ms"]) == ["small", "large"]
    for stage in MODEL_STAGES:
        parts = sum(report["models_ms"][name][stage]["mean"] for name in ("small", "large"))
        assert parts == pytest.approx(report["stages_ms"][stage]["mean"], abs=2e-4)
    stream = io.StringIO()
    table = stage_table(recorder.spreads(), recorder.n, recorder.model_spreads())
    Console(file=stream, width=100).print(table)
    rows = [line.split()[1] for line in stream.getvalue().splitlines() if line.startswith("│")]
    assert rows == [
        "decode", "wait", "preprocess", "small", "large", "infer", "small", "large",
        "postprocess", "small", "large", "publish", "age",
    ]  # fmt: skip
