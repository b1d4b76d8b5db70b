"""Snapshots: the right moments, a bounded folder, and a stream that never waits for them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from stage import INFO, animal, faces, frame_at, until

from edge.errors import InputError
from edge.frame import Frame
from edge.sinks.snapshots import SnapshotSettings, SnapshotSink


def opened(folder: Path, **options: Any) -> SnapshotSink:
    sink = SnapshotSink(SnapshotSettings(folder=folder, **({"enter_s": 0.0, "hold_s": 0.0} | options)))
    sink.open(INFO)
    return sink


def noise(seconds: float) -> Frame:
    """A frame that makes a JPEG of about 300 kB."""
    frame = frame_at(seconds, shape=(480, 640))
    frame.pixels[:] = np.random.default_rng(round(seconds)).integers(0, 256, frame.pixels.shape)
    return frame


def test_a_picture_when_a_face_enters_and_none_when_it_leaves(tmp_path: Path) -> None:
    sink = opened(tmp_path, draw=False)
    sink.open(INFO)
    frame = frame_at(0, "front/door")
    frame.pixels[:] = (200, 40, 90)
    for at, result in ((0, faces(7)), (1, faces(7)), (9, faces())):
        frame.stamps.capture = frame_at(at).stamps.capture
        sink.write(frame, result)
    sink.close()
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z_front-door_face_entered_7_[0-9a-f]{8}\.jpg", path.name)
    np.testing.assert_allclose(cv2.imread(str(path))[:, :, ::-1].mean((0, 1)), (200, 40, 90), atol=3)
    assert sink.stored == 1


def test_results_are_drawn_into_the_picture_and_not_into_the_frame(tmp_path: Path) -> None:
    sink, frame = opened(tmp_path), frame_at(0)
    sink.write(frame, animal(0.9))
    sink.close()
    (path,) = tmp_path.iterdir()
    assert np.ptp(cv2.imread(str(path))) > 100
    assert (frame.pixels == 120).all()


@pytest.mark.timeout(60)
def test_an_encoder_that_fails_in_any_way_says_so_goes_on_and_lets_the_stream_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path, every_s=0.001, draw=False)
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "cvtColor", Mock(side_effect=MemoryError))
        for at in range(10):
            sink.write(noise(at), faces())
        until(lambda: sink.trouble == "MemoryError")
        until(lambda: sink.stored + sink.lost == 10)
    sink.write(noise(11), faces())
    sink.close()
    assert (sink.stored, sink.lost, sink.trouble) == (1, 10, "")


def test_one_so_often_of_each_camera(tmp_path: Path) -> None:
    sink = opened(tmp_path, on_events=False, every_s=1.0)
    for at in range(31):
        for camera in ("a", "b"):
            sink.write(frame_at(at / 10, camera), animal(0.9))
            until(lambda: sink._queue.empty())
    sink.close()
    names = [path.name.split("_")[1] for path in tmp_path.iterdir()]
    assert sorted(names) == ["a"] * 4 + ["b"] * 4


def test_the_oldest_make_room_by_number_also_those_of_an_earlier_run(tmp_path: Path) -> None:
    for name in ("holiday.jpg", ".holiday.jpg"):
        (tmp_path / name).write_bytes(b"not ours")
    (tmp_path / ".20250101T000000.000Z_interval.x1.jpg").write_bytes(b"begun by a run that was killed")
    for run in range(2):
        sink = opened(tmp_path, on_events=False, every_s=0.001, max_files=3)
        for at in range(5):
            sink.write(frame_at(run * 10 + at), animal(0.9))
            until(lambda sink=sink, done=at + 1: sink.stored == done)
        sink.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert (len(names), names[0], names[-1]) == (5, ".holiday.jpg", "holiday.jpg")


def test_pictures_of_a_clock_that_was_ahead_make_room_first(tmp_path: Path) -> None:
    """As before NTP has set it; or this run's clock is behind, and all that is there seems to come later."""
    for name in ("20990101T000000.000Z_x.jpg", "20990102T000000.000Z_x.jpg", "20250101T000000.000Z_x.jpg"):
        (tmp_path / name).write_bytes(b"a picture")
    opened(tmp_path, max_files=2).close()
    opened(tmp_path, max_files=1).close()
    assert [path.name for path in tmp_path.iterdir()] == ["20250101T000000.000Z_x.jpg"]


def test_a_picture_that_another_program_removes_during_the_start_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000.000Z_door_interval.jpg").symlink_to(tmp_path / "gone")
    sink = opened(tmp_path, on_events=False, every_s=1.0)
    sink.write(frame_at(0), animal(0.9))
    sink.close()
    assert (sink.stored, sink.lost) == (1, 0)


def test_the_oldest_make_room_by_bytes(tmp_path: Path) -> None:
    sink = opened(tmp_path, on_events=False, every_s=0.001, max_bytes=1_000_000)
    for at in range(8):
        sink.write(noise(at), animal(0.9))
        until(lambda done=at + 1: sink.stored == done)
        assert sum(path.stat().st_size for path in tmp_path.glob("*.jpg")) <= 1_000_000
    sink.close()
    assert 2 <= len(list(tmp_path.iterdir())) < 8


def test_a_full_disk_is_counted_and_the_stream_goes_on(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(800 << 10)
    sink = opened(folder, on_events=False, every_s=0.001)
    begin_s = time.monotonic()
    for at in range(5):
        sink.write(noise(at), animal(0.9))
        assert time.monotonic() - begin_s < 20
        until(lambda done=at + 1: sink.stored + sink.lost == done)
    assert sink.lost > 0
    assert "No space left" in sink.trouble
    for path in folder.iterdir():
        path.unlink()
    sink.write(noise(9), animal(0.9))
    sink.close()
    (path,) = folder.iterdir()
    assert cv2.imread(str(path)) is not None
    assert sink.trouble == ""


def test_a_folder_that_was_read_only_for_a_while_is_bounded_as_before(
    small_disk: Callable[[int], Path],
) -> None:
    folder = small_disk(20 << 20)
    sink = opened(folder, on_events=False, every_s=0.001, max_files=3)

    def take(at: int) -> None:
        done = sink.stored + sink.lost
        sink.write(noise(at), animal(0.9))
        until(lambda: sink.stored + sink.lost > done)

    for at in range(3):
        take(at)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for at in range(3, 8):
        take(at)
    assert (sink.stored, sink.lost) == (3, 5)
    assert "Read-only file system" in sink.trouble
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    for at in range(8, 13):
        take(at)
    sink.close()
    assert (sink.stored, sink.trouble) == (8, "")
    assert len(list(folder.iterdir())) == 3


def test_a_stream_that_is_faster_than_the_encoder_loses_pictures_not_time(tmp_path: Path) -> None:
    sink, frame = opened(tmp_path, on_events=False, every_s=0.001), noise(0)
    begin_s = time.monotonic()
    for _ in range(200):
        frame.stamps.capture += 10_000_000
        sink.write(frame, animal(0.9))
    assert time.monotonic() - begin_s < 5.0
    sink.close()
    assert sink.lost > 0
    assert sink.stored + sink.lost == 200


def test_a_picture_that_somebody_removes_costs_no_other(tmp_path: Path) -> None:
    sink = opened(tmp_path, on_events=False, every_s=0.001, max_files=1)
    for at in range(2):
        sink.write(frame_at(at), animal(0.9))
        until(lambda done=at + 1: sink.stored + sink.lost == done)
        for path in tmp_path.iterdir():
            path.unlink()
    sink.close()
    assert (sink.stored, sink.trouble) == (2, "")


def test_names_sort_by_time_and_are_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    sink = opened(tmp_path, on_events=False, every_s=0.001)
    for at, wall_s in enumerate((0.9, 1.2, 1.007, 2)):
        monkeypatch.setattr(time, "time", lambda wall_s=wall_s: wall_s)
        if wall_s < 2:
            sink.write(frame_at(at), animal(0.9))
    sink.close()
    opened(tmp_path, max_files=1).close()
    monkeypatch.undo()
    time.tzset()
    assert [path.name for path in tmp_path.iterdir()] == ["19700101T000001.200Z_interval.jpg"]


def test_settings_and_folders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no picture would ever be taken"):
        SnapshotSettings(folder=tmp_path, on_events=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        opened(tmp_path / "file" / "shots")
