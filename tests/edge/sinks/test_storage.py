"""Databases that a power cut has damaged are set aside; what belongs to something else is refused and left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from stage import INFO, faces, frame_at, until

from edge.errors import InputError
from edge.sinks.events import SCHEMA, EventsSettings, EventsSink, read_events
from edge.sinks.mqtt import MqttSettings, MqttSink
from edge.sinks.outbox import SCHEMA as OUTBOX
from edge.sinks.outbox import Outbox
from edge.sinks.storage import LOG_BYTES, Schema, Writer, connect, set_aside

PAGE = 4096


def events(path: Path) -> EventsSink:
    return EventsSink(EventsSettings(path=path, enter_s=0.0, leave_s=0.05))


def filled(path: Path, count: int = 300) -> int:
    """A database of so many visits; its size."""
    sink = events(path)
    sink.open(INFO)
    for track in range(1, count + 1):
        sink.write(frame_at(track), faces(track))
    sink.close()
    assert sink.stored == 2 * count
    return path.stat().st_size


def zero(path: Path, begin: int, end: int) -> None:
    with open(path, "r+b") as file:
        file.seek(begin)
        file.write(bytes(end - begin))


@pytest.mark.parametrize(
    ("begin", "end"),
    [(0, 10**9), (0, 512), (0, PAGE), (100, PAGE), (PAGE, 10**9)],
    ids=["all", "sector", "first page", "schema", "all but the first page"],
)
def test_damaged_events_are_set_aside_and_told_and_new_ones_begin(
    tmp_path: Path, begin: int, end: int
) -> None:
    path, aside = tmp_path / "events.sqlite", tmp_path / "events.sqlite.damaged"
    size = filled(path)
    zero(path, begin, min(end, size))
    left = path.read_bytes()
    sink = events(path)
    sink.open(INFO)
    sink.write(frame_at(0), faces(7))
    sink.write(frame_at(0.01), faces(7, 8))
    until(lambda: sink.stored == 2)
    assert "events.sqlite was damaged, as after a power cut: it is events.sqlite.damaged now" in sink.damage
    assert sink.trouble == "", "it works again"
    sink.close()
    assert sink.lost == 0
    assert {event.track for event in read_events(path)} == {7, 8}
    assert aside.read_bytes() == left


def test_a_truncated_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    filled(path)
    os.truncate(path, PAGE)
    sink = events(path)
    sink.open(INFO)
    sink.close()
    assert (path.with_name("events.sqlite.damaged").stat().st_size, read_events(path)) == (PAGE, [])


def test_a_damaged_outbox_is_set_aside_and_the_sender_takes_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    connect(path, OUTBOX).close()
    zero(path, 0, path.stat().st_size)
    sink = MqttSink(MqttSettings(host="127.0.0.1", port=1, outbox=path, enter_s=0.0))
    sink.open(INFO)
    sink.write(frame_at(0), faces(1))
    until(lambda: sink.stored == 1)
    assert "outbox.sqlite.damaged" in sink.damage
    sink.close()
    before = Outbox(path)
    assert len(before.take(0, 10)) == 2
    set_aside(path)
    connect(path, OUTBOX).close()
    with pytest.raises(OSError, match=r"outbox\.sqlite is another file now"):
        before.take(0, 10)
    before.close()


def test_one_that_is_set_aside_keeps_its_own_log_and_replaces_an_older_one(tmp_path: Path) -> None:
    path, aside = tmp_path / "real" / "events.sqlite", tmp_path / "real" / "events.sqlite.damaged"
    (tmp_path / "events.sqlite").symlink_to(path)
    with closing(connect(path, SCHEMA)) as other:
        other.execute("CREATE TABLE first (n)")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"killed{suffix}")
    for suffix in ("", "-wal"):
        shutil.move(tmp_path / f"killed{suffix}", f"{path}{suffix}")
    assert set_aside(tmp_path / "events.sqlite") == aside
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "events.sqlite.damaged",
        "events.sqlite.damaged-wal",
    ]
    path.write_bytes(b"second")
    set_aside(path)
    assert [p.name for p in path.parent.iterdir()] == ["events.sqlite.damaged"]
    assert aside.read_bytes() == b"second"
    assert (tmp_path / "events.sqlite").is_symlink()


def test_what_is_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE urls (url)")
    damaged = bytearray(path.read_bytes())
    damaged[100:PAGE] = bytes(PAGE - 100)
    picture = b"\xff\xd8\xff\xe0" + bytes(PAGE)
    begun = b"\0\0\0\1" + bytes(PAGE)
    for content in (path.read_bytes(), bytes(damaged), picture, b"a text\n" * 1000, begun):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"events\.sqlite cannot be used for events"):
            events(path).open(INFO)
        assert path.read_bytes() == content
        assert [p.name for p in tmp_path.iterdir()] == ["events.sqlite"]


@pytest.mark.parametrize("how", ["removed", "with its folder", "moved away"])
def test_what_happens_after_a_database_was_taken_away_goes_into_a_new_one(tmp_path: Path, how: str) -> None:
    path = tmp_path / "out" / "events.sqlite"
    sink = events(path)
    sink.open(INFO)
    sink.write(frame_at(0), faces(1))
    until(lambda: sink.stored == 1)
    if how == "with its folder":
        shutil.rmtree(path.parent)
    for file in list(path.parent.glob("*")):
        file.unlink() if how == "removed" else file.rename(tmp_path / file.name)
    sink.write(frame_at(1), faces(2))
    sink.close()
    assert (sink.stored, sink.lost, sink.trouble) == (4, 0, "")
    assert {event.track for event in read_events(path)} == {1, 2}


NUMBERS = Schema("numbers", "numbers", 1, "CREATE TABLE IF NOT EXISTS numbers (value)")


def test_a_commit_waits_for_the_disk_and_the_log_does_not_stay_as_large_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    with closing(connect(path, NUMBERS)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
        for size in (3 * LOG_BYTES, 1, 1):
            connection.execute("INSERT INTO numbers VALUES (zeroblob(?))", (size,))
        assert path.with_name("numbers.sqlite-wal").stat().st_size <= LOG_BYTES


def test_a_disk_that_does_not_answer_holds_up_the_end_no_longer_than_it_may(tmp_path: Path) -> None:
    asked, answers = threading.Event(), threading.Event()

    def store(connection: object, rows: object) -> int:
        asked.set()
        answers.wait(20)
        return 0

    writer: Writer[int] = Writer(tmp_path / "numbers.sqlite", NUMBERS, store, backlog=3)
    writer.open()
    writer.put(0)
    assert asked.wait(10)
    for number in (1, 2):
        writer.put(number)
    begin_s = time.monotonic()
    writer.close((3, 4), timeout_s=0.3)
    assert time.monotonic() - begin_s < 5
    assert writer.lost == 4, "two that waited and the last two"
    answers.set()
    until(lambda: writer.stored)
