"""A disk that is full when a sink is opened: it begins in trouble and goes on when there is room, as later."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from stage import INFO, faces, frame_at, until

from edge.errors import InputError
from edge.sinks.events import EventsSettings, EventsSink, read_events
from edge.sinks.jsonl import JsonlSink
from edge.sinks.mqtt import MqttSettings, MqttSink
from edge.sinks.snapshots import SnapshotSettings, SnapshotSink

MAKE: dict[str, Callable[[Path], Any]] = {
    "jsonl": lambda folder: JsonlSink(folder / "log.jsonl", max_bytes=1 << 20),
    "events": lambda folder: EventsSink(EventsSettings(path=folder / "events.sqlite", enter_s=0.0)),
    "mqtt": lambda folder: MqttSink(MqttSettings(host="127.0.0.1", port=1, outbox=folder / "outbox.sqlite")),
    # Few pictures, since those that wait while OpenCV is imported fill a small disk anew.
    "snapshots": lambda folder: SnapshotSink(
        SnapshotSettings(folder=folder / "pictures", every_s=0.01, max_files=2)
    ),
}


def fill(disk: Path, most: int = 1 << 16) -> list[Path]:
    """What takes its last file, or its last byte."""
    with suppress(OSError):
        for number in itertools.count():
            (disk / f"filler-{number}").write_bytes(bytes(most))
    return [*disk.glob("filler-*")]


@pytest.mark.parametrize("lacking", ["files", "bytes"])
@pytest.mark.parametrize("kind", MAKE)
def test_a_disk_that_is_full_at_the_start_is_trouble_until_there_is_room(
    small_disk: Callable[..., Path], kind: str, lacking: str
) -> None:
    disk = small_disk(1 << 20, 8) if lacking == "files" else small_disk(1 << 20)
    (disk / "old").mkdir()
    fillers = fill(disk, 0 if lacking == "files" else 1 << 12)
    sink = MAKE[kind](disk / "old" if lacking == "bytes" else disk / "new")
    sink.open(INFO)
    sink.write(frame_at(0), faces(1))
    until(lambda: sink.trouble)
    for path in fillers:
        path.unlink()
    at = iter(range(1, 10_000))

    def is_well() -> bool:
        sink.write(frame_at(next(at)), faces(1))
        return "No space" not in sink.trouble and "full" not in sink.trouble

    until(is_well)
    sink.close()
    assert any((disk / ("old" if lacking == "bytes" else "new")).iterdir())
    if kind == "events":
        assert sink.lost == 0
        assert read_events(next(disk.glob("*/events.sqlite")))


@pytest.mark.parametrize("kind", MAKE)
def test_a_place_that_is_wrong_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file"):
        MAKE[kind](tmp_path / "file").open(INFO)


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_passes_and_what_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    sink = MAKE["jsonl"](tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        if code in (errno.EROFS, errno.EACCES):
            with pytest.raises(InputError, match="Choose another,"):
                sink.open(INFO)
            return
        sink.open(INFO)
        sink.write(frame_at(0), faces(1))
        sink.open(INFO)  # a second camera
        assert (sink.lost, os.strerror(code) in sink.trouble) == (1, True)
    sink.write(frame_at(0), faces(1))
    assert (sink.lost, sink.trouble) == (1, "")
    sink.close()
