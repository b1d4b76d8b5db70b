"""Events in SQLite: whole after a kill, bounded, counted when the disk is full, and easy to read."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from stage import INFO, animal, faces, file_size_limit, frame_at, stored_before_kill, until

import sightline
from edge.config import SinkSettings, StreamSettings
from edge.errors import InputError
from edge.run_daemon import events_reader
from edge.sinks.events import SCHEMA, EventsSettings, EventsSink, read_events
from edge.sinks.outbox import SCHEMA as OUTBOX
from edge.sinks.storage import connect
from edge.web.state import EventQuery

ROOT = Path(sightline.__file__).parent


def settings(path: Path, **options: Any) -> EventsSettings:
    return EventsSettings(path=path / "events.sqlite", **({"enter_s": 0.0, "leave_s": 1e6} | options))


def feed(sink: EventsSink, tracks: range) -> None:
    for track in tracks:
        sink.write(frame_at(track / 10), faces(track))


def test_a_visit_is_two_rows_that_belong_together(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path, leave_s=1.0))
    sink.open(INFO)
    for t in range(5):
        sink.write(frame_at(t / 10, "door"), faces(3))
    sink.write(frame_at(5, "door"), faces())
    sink.close()
    left, entered = read_events(tmp_path / "events.sqlite")
    assert (entered.kind, entered.camera, entered.track) == ("face_entered", "door", 3)
    assert (left.kind, left.began, left.seconds) == ("face_left", entered.id, pytest.approx(0.4))
    assert (sink.stored, sink.lost, sink.trouble) == (2, 0, "")


def test_several_cameras_share_one_database_and_a_second_run_goes_on_in_it(tmp_path: Path) -> None:
    for run in range(2):
        sink = EventsSink(settings(tmp_path))
        for camera in ("front", "back"):
            sink.open(INFO)
            sink.write(frame_at(run, camera), faces(1))
        sink.close()
        sink.close()
    assert len(read_events(tmp_path / "events.sqlite")) == 8
    assert len(read_events(tmp_path / "events.sqlite", camera="front", kind="face_entered")) == 2


def test_the_page_reads_what_is_asked_for(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path))
    for camera in ("front", "back"):
        sink.open(INFO)
        sink.write(frame_at(0, camera), faces(1))
    sink.close()
    read = events_reader(StreamSettings.model_construct(sinks=SinkSettings(events=settings(tmp_path))))
    assert read is not None
    assert len(read(EventQuery(limit=10))) == 4
    (event,) = read(EventQuery(limit=10, camera="back", kind="face_left"))
    assert (event["camera"], event["kind"]) == ("back", "face_left")
    assert read(EventQuery(limit=10, label="cat")) == []


def test_a_page_of_older_events_begins_where_the_newer_one_ended(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path))
    sink.open(INFO)
    feed(sink, range(1, 7))
    sink.close()
    path = tmp_path / "events.sqlite"
    everything = read_events(path)
    page = read_events(path, limit=3)
    assert page == everything[:3]
    assert read_events(path, older_than=page[-1].id) == everything[3:], "also of the same moment"
    assert read_events(path, older_than="one that made room") == []
    older = read_events(path, before_s=page[-1].at_s)
    assert older == [event for event in everything if event.at_s < page[-1].at_s]
    assert older


def test_the_oldest_rows_make_room(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path, max_rows=10))
    sink.open(INFO)
    feed(sink, range(1, 31))
    until(lambda: sink.stored == 30)
    assert [event.track for event in read_events(tmp_path / "events.sqlite")] == [*range(30, 20, -1)]
    sink.close()
    assert sink.lost == 0


def test_rows_older_than_max_days_go(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path, max_days=1.0))
    sink.open(INFO)
    feed(sink, range(1, 3))
    until(lambda: sink.stored == 2)
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as other, other:
        other.execute("UPDATE events SET at_s = at_s - 90000 WHERE track = 1")
    feed(sink, range(3, 4))
    until(lambda: sink.stored == 3)
    assert {event.track for event in read_events(tmp_path / "events.sqlite")} == {2, 3}
    sink.close()


def test_the_command_prints_a_table_and_json(tmp_path: Path, command: Callable[..., Any]) -> None:
    sink = EventsSink(settings(tmp_path, hold_s=0.0))
    sink.open(INFO)
    sink.write(frame_at(0, "yard"), animal(0.8))
    sink.close()
    table = command("events", tmp_path / "events.sqlite")
    assert table.code == 0
    for word in ("yard", "class_began", "class_ended", "cat", "0.80"):
        assert word in table.out
    lines = command("events", tmp_path / "events.sqlite", "--json", "--kind", "class_began").out.splitlines()
    (record,) = map(json.loads, lines)
    assert (record["label"], record["camera"]) == ("cat", "yard")


def test_more_rows_than_can_be_counted_are_refused(tmp_path: Path, command: Callable[..., Any]) -> None:
    EventsSink(settings(tmp_path)).open(INFO)
    ended = command("events", tmp_path / "events.sqlite", "--last", 99999999999999999999)
    assert ended.code == 2
    assert "99999999999999999999 is not in the range" in ended.err
    assert command("events", tmp_path / "events.sqlite", "--last", 1_000_000_000).code == 0


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from edge.config import SinkSettings, StreamSettings
from edge.errors import InputError
from edge.run_daemon import events_reader
from edge.sinks.events import read_events
import edge.sinks.happenings
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
try:
    print(len(read_events(Path(sys.argv[1]))))
except InputError as error:
    print(error)
"""


def test_another_user_reads_what_an_ended_stream_wrote_and_hears_what_else_he_may_not() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        path = Path(folder) / "events.sqlite"
        sink = EventsSink(EventsSettings(path=path, enter_s=0.0))
        sink.open(INFO)
        feed(sink, range(1, 4))
        sink.close()
        os.chmod(folder, 0o555)
        assert not path.with_name("events.sqlite-wal").exists()
        assert _as_another_user(path) == "6"
        os.chmod(folder, 0o755)
        with closing(connect(path, SCHEMA)) as other:
            other.execute("UPDATE events SET score = 1")
            path.with_name("events.sqlite-wal").chmod(0)
            os.chmod(folder, 0o555)
            assert "This user may not read" in _as_another_user(path)
        os.chmod(folder, 0o755)


def _as_another_user(path: Path) -> str:
    command = [sys.executable, "-c", AS_ANOTHER_USER, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def test_what_is_no_database_is_refused_by_name(tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "events.sqlite").write_text("no database, but a text of some length" * 100)
    with pytest.raises(InputError, match=r"events.sqlite cannot be used for events: file is not a database"):
        EventsSink(settings(tmp_path)).open(INFO)
    ended = command("events", tmp_path / "nothing.sqlite")
    assert ended.code == 2
    assert "nothing.sqlite cannot be read as a database of events" in ended.err


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    connect(tmp_path / "events.sqlite", OUTBOX).close()
    with pytest.raises(InputError, match="in use for something else, and has no table 'events'"):
        EventsSink(settings(tmp_path)).open(INFO)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as other:
        other.execute("PRAGMA user_version=9")
    with pytest.raises(InputError, match="it has schema 9, this Sightline knows 1"):
        EventsSink(settings(tmp_path)).open(INFO)


def test_full_disk_does_not_stop_the_stream_and_heals(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path, leave_s=0.05))  # each leaves when the next one enters
    sink.open(INFO)
    feed(sink, range(1, 11))
    until(lambda: sink.stored == 19)
    log = tmp_path / "events.sqlite-wal"
    with file_size_limit(log.stat().st_size + 4096):
        begin_s = time.monotonic()
        feed(sink, range(11, 1711))
        assert time.monotonic() - begin_s < 30.0, "the stream went on: 1,700 waits for a disk take minutes"
        until(lambda: sink.trouble)
        assert sink.lost > 0, "what does not fit into memory is counted at once"
    until(lambda: not sink.trouble, timeout_s=20.0)
    sink.write(frame_at(1000), faces(9999))
    sink.close()
    events = read_events(tmp_path / "events.sqlite", kind="face_entered", limit=10_000)
    assert events[0].track == 9999
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = len(read_events(tmp_path / "events.sqlite", limit=10_000))
    assert rows == sink.stored, "what was counted is there"
    assert sink.stored + sink.lost == 2 * 1711, "every event, begun and ended, is on one side of the account"


def test_a_disk_that_stays_full_loses_and_counts_everything_but_ends(tmp_path: Path) -> None:
    sink = EventsSink(settings(tmp_path))
    sink.open(INFO)
    until(lambda: (tmp_path / "events.sqlite-wal").exists())
    with file_size_limit((tmp_path / "events.sqlite").stat().st_size // 2):
        feed(sink, range(1, 21))
        until(lambda: sink.trouble)
        begin_s = time.monotonic()
        sink.close()
        assert time.monotonic() - begin_s < 5.0
    assert (sink.stored, sink.lost) == (0, 40)


def killed(tmp_path: Path, times: int) -> None:
    file = tmp_path / "settings.json"
    file.write_text(settings(tmp_path, max_rows=10**7).model_dump_json())
    chance = random.Random(7)
    for number in range(times):
        stored = stored_before_kill("events", file, f"run {number}", chance.uniform(0.0, 0.3))
        with closing(sqlite3.connect(tmp_path / "events.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = read_events(tmp_path / "events.sqlite", camera=f"run {number}", limit=10**6)
        tracks = {event.track for event in there}
        assert tracks >= set(range(1, stored + 1)), "an acknowledged event is lost"
        assert len(there) == len(tracks), "none is there twice"


def test_after_a_kill_the_database_is_whole_and_every_stored_event_is_there(tmp_path: Path) -> None:
    killed(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_after_fifty_kills_the_database_is_whole_and_every_stored_event_is_there(tmp_path: Path) -> None:
    killed(tmp_path, 50)
