"""The trace: valid by the format's rules, exact to the nanosecond, whole on every end, divided when large."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge.errors import InputError
from edge.frame import MODEL_STAGES, Frame, Laps
from edge.profiling.trace import TraceSink
from edge.protocols import SourceInfo
from edge.results import FrameResult

INFO = SourceInfo('clip "ä".mp4', 160, 120, 25.0, None, "file")
NOTHING = FrameResult({})
MS = 1_000_000
STEPS = ("decode", "dequeue", "preprocess", "infer", "postprocess", "publish")


def frame_of(index: int, models: tuple[str, ...] = ("faces",)) -> Frame:
    """Steps of 1 to 6 ms and some odd nanoseconds; several models share the stages evenly."""
    frame = Frame(index=index)
    begin = 10**15 + index * 40 * MS
    frame.stamps.capture = begin
    for step, at in zip(STEPS, (1, 3, 6, 10, 15, 21), strict=True):
        setattr(frame.stamps, step, begin + at * MS + 7)
    stages = dict(zip(MODEL_STAGES, (3 * MS, 4 * MS, 5 * MS), strict=True))
    at_ns = frame.stamps.dequeue
    for name in models:
        laps = frame.stamps.models[name] = Laps(at_ns)
        laps.spent_ns = {stage: ns // len(models) for stage, ns in stages.items()}
        at_ns = laps.last_ns = at_ns + sum(laps.spent_ns.values())
    return frame


def trace_of(path: Path, frames: list[Frame], most_bytes: int = 10**9) -> TraceSink:
    sink = TraceSink(path, most_bytes)
    sink.open(INFO)
    for frame in frames:
        sink.write(frame, NOTHING)
    sink.close()
    return sink


def events_of(path: Path) -> list[dict[str, Any]]:
    """The events of a file, with exact numbers, after they were found to obey the format."""
    events: list[dict[str, Any]] = json.loads(path.read_text(), parse_float=Decimal)["traceEvents"]
    check(events)
    return events


def check(events: list[dict[str, Any]]) -> None:
    """What the Trace Event Format asks for, and that the bars of a row lie beside or inside each other."""
    waiting: dict[int, Decimal] = {}
    rows: dict[int, list[tuple[Decimal, Decimal]]] = {}
    for event in events:
        assert event["ph"] in "XMCbe"
        assert isinstance(event["name"], str)
        assert event["pid"] == 1
        if event["ph"] == "M":
            continue
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            rows.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "b":
            assert event["id"] not in waiting
            waiting[event["id"]] = event["ts"]
        elif event["ph"] == "e":
            assert event["ts"] >= waiting.pop(event["id"])
        else:
            assert all(isinstance(value, int | Decimal) for value in event["args"].values())
    assert not waiting
    for bars in rows.values():
        assert [begin for begin, _ in bars] == sorted(begin for begin, _ in bars)
        open_ends: list[Decimal] = []
        for begin, end in bars:
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1]
            open_ends.append(end)


def bars(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["name"] == name and event["ph"] == "X"]


def test_a_frame_is_drawn_to_the_nanosecond(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_of(path, [frame_of(0), frame_of(1)])
    events = events_of(path)
    decode = bars(events, "decode")[0]
    assert (decode["ts"], decode["dur"]) == (Decimal("1000000000000.000"), Decimal("1000.007"))
    assert bars(events, "infer")[1]["dur"] == 4000
    assert bars(events, "publish")[0]["dur"] == 6000
    assert bars(events, "frame 1")[0]["args"] == {"frame": 1}
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert rows == {1: "decode (from file)", 2: "inference"}
    assert next(e for e in events if e["name"] == "process_name")["args"]["name"] == f"sightline {INFO.uri}"


def test_each_model_has_its_own_bar(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_of(path, [frame_of(0, ("faces", "masks"))])
    events = events_of(path)
    faces, masks = bars(events, "faces")[0], bars(events, "masks")[0]
    assert faces["dur"] == masks["dur"] == 6000
    assert masks["ts"] == faces["ts"] + faces["dur"]
    assert masks["tid"] == faces["tid"], "one after the other"
    assert [event["dur"] for event in bars(events, "preprocess")] == [1500, 1500]
    trace_of(path, [frame_of(0, ("faces",))])
    assert not bars(events_of(path), "faces"), "the frame's own is that of its only model"


def test_models_side_by_side_have_rows_of_their_own(tmp_path: Path) -> None:
    frame, path = frame_of(0, ("faces", "masks")), tmp_path / "trace.json"
    masks = frame.stamps.models["masks"]
    masks.last_ns -= masks.begin_ns - frame.stamps.dequeue
    trace_of(path, [frame])
    rows = {name: {bar["tid"] for bar in bars(events_of(path), name)} for name in ("faces", "masks", "infer")}
    assert rows == {"faces": {2}, "masks": {3}, "infer": {2, 3}}


def test_a_frame_without_laps_has_its_stages(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_of(path, [frame_of(0, ())])
    assert [bars(events_of(path), stage)[0]["dur"] for stage in MODEL_STAGES] == [3000, 4000, 5000]


def test_dropped_frames_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_of(path, [frame_of(3), frame_of(4), frame_of(7)])
    dropped = [e["args"]["value"] for e in events_of(path) if e["name"] == "dropped"]
    assert dropped == [0, 0, 2]


def test_captures_that_overlap_the_decoding_before_stay_in_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    frames = [frame_of(0), frame_of(1)]
    frames[1].stamps.capture = frames[0].stamps.decode - MS // 2
    trace_of(path, frames)
    first, second = bars(events_of(path), "decode")
    assert second["ts"] == first["ts"] + first["dur"]


def test_a_large_trace_is_divided_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out" / "trace.json"
    sink = trace_of(path, [frame_of(index) for index in range(20)], most_bytes=8_000)
    assert [p.name for p in sink.paths[:3]] == ["trace.json", "trace.2.json", "trace.3.json"]
    assert sorted(path.parent.iterdir()) == sorted(sink.paths)
    assert f"divided into {sink.parts} files" in sink.note
    seen: list[int] = []
    for part, file in enumerate(sink.paths, 1):
        assert file.stat().st_size <= 8_000
        seen += [event["args"]["frame"] for event in bars(events_of(file), "decode")]
        assert json.loads(file.read_text())["otherData"]["part"] == part
    assert seen == list(range(20))


def test_one_file_needs_no_note_and_nothing_appears_before_close(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    sink = TraceSink(path)
    sink.open(INFO)
    sink.write(frame_of(0), NOTHING)
    assert not path.exists()
    sink.close()
    sink.close()
    assert path.exists()
    assert sink.note == ""


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    trace_of(tmp_path / "trace.json", [])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_no_half_trace(tmp_path: Path) -> None:
    sink = TraceSink(tmp_path / "trace.json")
    sink.open(INFO)
    sink.write(frame_of(0), NOTHING)

    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    sink._put = full  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"trace\.json cannot be written: No space left"):
        sink.write(frame_of(1), NOTHING)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_ids_and_times_stay_in_order_over_a_long_run(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_of(path, [frame_of(index) for index in range(500)])
    ages = [event["ts"] for event in events_of(path) if event["name"] == "age ms"]
    assert all(before < after for before, after in pairwise(ages))


@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium here")
def test_chromium_parses_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace_of(path, [frame_of(index) for index in range(50)])
    page = tmp_path / "page.html"
    page.write_text(
        "<title>-</title><script>const trace = "
        + path.read_text().replace("</", "<\\/")
        + ";document.title = trace.traceEvents.filter(e => e.ph == 'X' && e.name == 'decode').length</script>"
    )
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--no-first-run", f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert "<title>50</title>" in done.stdout
