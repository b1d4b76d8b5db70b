"""Sinks: complete files under their names, or none at all."""

from __future__ import annotations

import io
import json
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from rich.console import Console

from edge.errors import InputError
from edge.frame import STAGES, Frame
from edge.protocols import Sink, SourceInfo
from edge.results import Classification, Faces, FrameResult
from edge.sinks.jsonl import JsonlSink
from edge.sinks.pending import PendingFile
from edge.sinks.shared import health_of
from edge.sinks.terminal import TerminalSink
from edge.sinks.video import VideoSink
from edge.sources import open_source
from edge.wiring import VideoOfEach

CAT_ALONE = Classification(np.array([0.25, 0.75], np.float32), 1, "cat")
CAT = FrameResult({"pets": CAT_ALONE})
FACES = Faces(
    np.array([[20, 10, 60, 60], [100, 20, 130, 50]], np.float32),
    np.array([0.9, 0.625], np.float32),
    np.array([7, 0]),
    {"masks": (Classification(np.array([0.25, 0.75], np.float32), 1, "mask"),)},
)
INFO = SourceInfo("clip.mp4", 160, 120, 25.0, None, "file")
STILLS = SourceInfo("album/", 0, 0, 0.0, 3, "file")
MS = 1_000_000


def frame_of(
    index: int, height: int = 120, width: int = 160, name: str = "", begin: int = 1000 * MS
) -> Frame:
    """A grey frame whose steps took 1, 2, 3, 4, 5 and 6 milliseconds."""
    frame = Frame(index=index, name=name, capture_clock="file")
    frame.buffer(height, width)[:] = 120
    frame.stamps.capture = begin = begin + index * 40 * MS
    for step, at_ms in zip(
        ("decode", "dequeue", "preprocess", "infer", "postprocess", "publish"),
        (1, 3, 6, 10, 15, 21),
        strict=True,
    ):
        setattr(frame.stamps, step, begin + at_ms * MS)
    return frame


def feed(sink: Sink, frames: list[Frame], info: SourceInfo = INFO) -> None:
    sink.open(info)
    for frame in frames:
        sink.write(frame, CAT)
    sink.close()


def test_jsonl_line_holds_result_and_history(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    captured_s = time.time() - 5
    frame = frame_of(0, begin=time.monotonic_ns() - 5_000 * MS)
    feed(JsonlSink(path), [frame, frame_of(7, name="tom.jpg")])
    first, second = map(json.loads, path.read_text().splitlines())
    told = first.pop("time")
    assert told.endswith("+00:00")
    assert datetime.fromisoformat(told).timestamp() == pytest.approx(captured_s, abs=1.0), "of the capture"
    assert first == {
        "frame": 0,
        "width": 160,
        "height": 120,
        "model": "pets",
        "label": "cat",
        "score": 0.75,
        "index": 1,
        "scores": [0.25, 0.75],
        "stages_ms": dict(zip(STAGES, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True)),
        "age_ms": 21.0,
        "capture_clock": "file",
    }
    assert (second["frame"], second["image"]) == (7, "tom.jpg")


def written_line(tmp_path: Path, result: FrameResult) -> dict[str, Any]:
    sink = JsonlSink(tmp_path / "results.jsonl")
    sink.open(INFO)
    sink.write(frame_of(0), result)
    sink.close()
    line: dict[str, Any] = json.loads((tmp_path / "results.jsonl").read_text())
    return line


def test_jsonl_line_of_faces(tmp_path: Path) -> None:
    line = written_line(tmp_path, FrameResult({"face": FACES}))
    assert line["model"] == "face"
    assert line["faces"] == [
        {
            "box": [20.0, 10.0, 60.0, 60.0],
            "score": 0.9,
            "track": 7,
            "classes": {"masks": {"label": "mask", "score": 0.75}},
        },
        {"box": [100.0, 20.0, 130.0, 50.0], "score": 0.625},
    ]


def test_jsonl_line_of_several_models_has_each_under_its_name(tmp_path: Path) -> None:
    line = written_line(tmp_path, FrameResult({"face": FACES, "pets": CAT_ALONE}))
    assert set(line) == {"frame", "time", "width", "height", "models", "stages_ms", "age_ms", "capture_clock"}
    assert list(line["models"]) == ["face", "pets"]
    assert len(line["models"]["face"]["faces"]) == 2
    assert line["models"]["pets"]["label"] == "cat"


@pytest.mark.parametrize("make", [JsonlSink, VideoSink])
def test_file_appears_at_close_and_nothing_else_stays(tmp_path: Path, make: type) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("of the last run")
    sink = make(path)
    sink.open(INFO)
    sink.write(frame_of(0), CAT)
    assert path.read_text() == "of the last run"
    sink.close()
    sink.close()
    assert b"of the last run" not in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [JsonlSink, VideoSink])
def test_no_result_no_file(tmp_path: Path, make: type) -> None:
    feed(make(tmp_path / "out.mp4"), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [JsonlSink, VideoSink])
def test_folder_that_cannot_be_written_is_found_out_at_open(tmp_path: Path, make: type) -> None:
    (tmp_path / "file").write_text("")
    sink = make(tmp_path / "file" / "out.mp4")
    with pytest.raises(InputError, match="Cannot write"):
        sink.open(INFO)
    sink.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("lines", [1, 1000])  # one stays in the buffer until close, many do not
def test_full_disk_leaves_no_jsonl(tmp_path: Path, lines: int) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl")
    sink.open(INFO)
    assert sink._pending is not None
    assert sink._file is not None
    sink._file.close()
    sink._pending.path.unlink()
    sink._pending.path.symlink_to("/dev/full")
    sink._file = open(sink._pending.path, "w")  # noqa: SIM115  the sink closes it
    with pytest.raises(InputError, match="No space left"):
        write_and_close(sink, lines)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".out.abcdefgh.jsonl").write_text("of a killed run")
    (tmp_path / ".out.more.abcdefgh.jsonl").write_text("of another file")
    first = PendingFile(tmp_path / "out.jsonl")
    second = PendingFile(tmp_path / "out.jsonl")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".out.more.abcdefgh.jsonl", first.path.name, second.path.name}
    first.keep()
    second.discard()
    assert {path.name for path in tmp_path.iterdir()} == {".out.more.abcdefgh.jsonl", "out.jsonl"}


def fill_disk(path: Path) -> None:
    """Every byte written to `path` from now on meets 'No space left on device'."""
    path.unlink()
    path.symlink_to("/dev/full")


def write_and_close(sink: Sink, lines: int) -> None:
    try:
        for index in range(lines):
            sink.write(frame_of(index), CAT)
            time.sleep(0.0001)
    finally:
        sink.close()


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_video_holds_every_frame_with_its_own_time_and_the_bar(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    indices = [3, 4, 7, 20]
    feed(VideoSink(path, "pets", lossless=True), [frame_of(index) for index in indices])
    frames = decoded(path)
    assert [round(frame.time * 25) for frame in frames] == [index - 3 for index in indices]
    pixels = frames[0].to_ndarray(format="rgb24")
    assert pixels.shape == (120, 160, 3)
    assert abs(int(pixels[:80].mean()) - 120) <= 2, "colours survive"
    bar = pixels[-24:]
    assert np.median(bar) < 60
    assert bar.max() > 200, "white text on it"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_live_video_has_the_times_of_capture(tmp_path: Path, suffix: str) -> None:
    """5 frames a second where 25 are stated, an hour away, a stamp that steps back, and three days away."""
    path, frames = tmp_path / f"out{suffix}", []
    for index, at_s in enumerate([7.0, 7.2, 7.4, 3607.4, 3607.3, 3607.8, 262807.8, 262808.0]):
        frames.append(frame_of(index))
        frames[-1].stamps.capture = round(at_s * 1e9)
    sink = VideoSink(path, lossless=True)
    feed(sink, frames, SourceInfo("rtsp://door/", 160, 120, 25.0, None, "arrival"))
    times_s = [frame.time for frame in decoded(path)]
    assert times_s == pytest.approx([0, 0.2, 0.4, 3600.4, 3600.401, 3600.8, 90_000.8, 90_001.0], abs=2e-3), (
        "the longest gap is a day"
    )


@pytest.mark.parametrize("height", [120, 720])  # BT.709 and tagged as such at both sizes
def test_colours_survive_the_way_into_a_video_and_back(tmp_path: Path, height: int) -> None:
    path, colour = tmp_path / "out.mp4", np.array([30, 160, 60])
    written, read = frame_of(0, height, 160), Frame()
    written.pixels[:] = colour
    feed(VideoSink(path, lossless=True), [written])
    source = open_source(str(path))
    source.open()
    source.read(read)
    source.close()
    np.testing.assert_allclose(read.pixels[: height // 2].mean((0, 1)), colour, atol=3)


def test_video_does_not_draw_into_the_frame(tmp_path: Path) -> None:
    frame = frame_of(0)
    feed(VideoSink(tmp_path / "out.mp4", lossless=True), [frame])
    assert (frame.pixels == 120).all()


def test_video_of_pictures_of_different_and_odd_sizes(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    feed(VideoSink(path), [frame_of(0, 121, 161), frame_of(1, 60, 200), frame_of(2)], STILLS)
    frames = decoded(path)
    assert [(frame.width, frame.height) for frame in frames] == [(160, 120)] * 3
    assert [frame.time for frame in frames] == [0.0, 0.5, 1.0]


def test_live_video_leaves_frames_out_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, backlog=1)
    frame = frame_of(0, 720, 1280)
    sink.open(INFO)
    begin_s = time.monotonic()
    for index in range(60):
        frame.index = index
        sink.write(frame, CAT)
    assert time.monotonic() - begin_s < 5
    sink.close()
    assert sink.left_out > 0
    assert len(decoded(path)) == 60 - sink.left_out


def test_what_videos_of_several_cameras_leave_out_is_what_their_sink_has_lost(tmp_path: Path) -> None:
    videos, frame = VideoOfEach(tmp_path / "out.mp4", ""), frame_of(0, 720, 1280)
    for camera in ("door", "yard"):
        videos.open(replace(INFO, camera=camera))
    for index in range(60):
        for frame.camera in ("door", "yard"):
            frame.index = index
            videos.write(frame, CAT)
    videos.close()
    lost = health_of(videos).lost
    assert lost > 0, "no encoder is that fast"
    files = [decoded(tmp_path / f"out-{camera}.mp4") for camera in ("door", "yard")]
    assert sum(map(len, files)) == 120 - lost, "told after the end, too"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("frames", [1, 400])
def test_full_disk_leaves_no_video(tmp_path: Path, frames: int) -> None:
    sink = VideoSink(tmp_path / "out.mp4", lossless=True)
    sink.open(INFO)
    fill_disk(sink._pending.path)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        write_and_close(sink, frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_video_that_failed_gives_its_room_back_while_the_stream_goes_on(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", lossless=True)
    sink.open(INFO)
    fill_disk(sink._pending.path)
    for index in range(400):
        with suppress(InputError):
            sink.write(frame_of(index), CAT)
    until_s = time.monotonic() + 20
    while list(tmp_path.iterdir()):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    sink.close()


def test_smallest_picture_can_be_a_video(tmp_path: Path) -> None:
    feed(VideoSink(tmp_path / "out.mp4"), [frame_of(0, 1, 1)], STILLS)
    assert len(decoded(tmp_path / "out.mp4")) == 1


def test_video_format_is_chosen_by_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.mp4"):
        VideoSink(tmp_path / "out.txt")


def test_faces_stay_in_place_in_a_video_of_another_size(tmp_path: Path) -> None:
    path, marked = (
        tmp_path / "out.mp4",
        Faces(np.array([[40, 20, 120, 80]], np.float32), CAT_ALONE.scores[1:]),
    )
    sink = VideoSink(path)
    sink.open(STILLS)
    sink.write(frame_of(0, 120, 160), FrameResult({"face": Faces(marked.boxes[:0], marked.scores[:0])}))
    sink.write(frame_of(1, 240, 320), FrameResult({"face": Faces(marked.boxes * 2, marked.scores)}))
    sink.close()
    empty, drawn = (frame.to_ndarray(format="rgb24").astype(int) for frame in decoded(path))
    rows, columns = np.nonzero(np.abs(empty - drawn)[24:90].sum(axis=2) > 150)  # below the tag, above the bar
    assert (columns.min(), columns.max()) == pytest.approx((40, 120), abs=3)
    assert rows.max() + 24 == pytest.approx(80, abs=3)


def terminal_output(frames: list[Frame], **console: object) -> str:
    stream = io.StringIO()
    feed(TerminalSink("pets", Console(file=stream, width=100, **console)), frames)  # type: ignore[arg-type]
    return stream.getvalue()


def test_plain_output_is_a_line_a_second_not_a_line_a_frame() -> None:
    lines = terminal_output([frame_of(index) for index in range(100)]).splitlines()
    assert lines[0] == "pets on clip.mp4 160x120 25 fps"
    assert len(lines) == 2
    assert "cat 0.75" in lines[1]


def test_live_panel_shows_rate_age_and_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.terminal.LIVE_PERIOD_S", 0.0)
    text = terminal_output([frame_of(index) for index in range(0, 40, 2)], force_terminal=True)
    last = text[text.rindex("source") :]
    for figure in ("clip.mp4", "cat 0.75", "21.0 ms", "12.5", "19"):
        assert figure in last, figure


def test_plain_output_of_several_models_names_each() -> None:
    stream = io.StringIO()
    sink = TerminalSink("face + pets", Console(file=stream, width=100))
    sink.open(INFO)
    sink.write(frame_of(0), FrameResult({"face": FACES, "pets": CAT_ALONE}))
    sink.close()
    assert "face 2 faces 0.90 mask 0.62  pets cat 0.75  age" in stream.getvalue()
