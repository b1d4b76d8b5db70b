"""Events in SQLite: who appeared when, and which class stayed for how long."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import Field

from edge.errors import InputError
from edge.sinks.event_writer import EventWriter
from edge.sinks.happenings import Event, EventKind, EventRules
from edge.sinks.storage import BUSY_S, Schema

SCHEMA = Schema(
    purpose="events",
    table="events",
    version=1,
    tables="""
    CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        at_s REAL NOT NULL,
        camera TEXT NOT NULL,
        model TEXT NOT NULL,
        label TEXT NOT NULL,
        track INTEGER,
        score REAL NOT NULL,
        seconds REAL NOT NULL,
        began TEXT
    );
    CREATE INDEX IF NOT EXISTS events_at ON events (at_s)
    """,
)

COLUMNS = ("id", "kind", "at_s", "camera", "model", "label", "track", "score", "seconds", "began")
_DAY_S = 86_400.0


class EventsSettings(EventRules):
    """`[sinks.events]`.

    Attributes:
        path: the database; it is continued where it exists.
        max_rows: the oldest beyond it are removed.
        max_days: older ones are removed, by the wall clock; leave it out where the clock may jump.
    """

    path: Path
    max_rows: int = Field(default=100_000, ge=1)
    max_days: float | None = Field(default=None, gt=0)


class EventsSink(EventWriter):
    """Writes every event as one row; committed rows survive a kill and a power cut.

    An end names its beginning in `began`; a beginning without an end is still there, or was when the
    program was killed. `read_events` reads the file, also while it is written.
    """

    def __init__(self, settings: EventsSettings) -> None:
        super().__init__(settings, settings.path, SCHEMA, self._store)
        self._settings = settings

    def _store(self, connection: sqlite3.Connection, events: Sequence[Event]) -> int:
        columns, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        connection.executemany(
            f"INSERT OR IGNORE INTO events ({columns}) VALUES ({marks})",
            [tuple(getattr(event, name) for name in COLUMNS) for event in events],
        )
        connection.execute(
            "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (self._settings.max_rows,)
        )
        if self._settings.max_days is not None:
            oldest_s = time.time() - self._settings.max_days * _DAY_S
            connection.execute("DELETE FROM events WHERE at_s < ?", (oldest_s,))
        return 0  # to forget what is old is no loss


def read_events(
    path: Path,
    camera: str | None = None,
    kind: EventKind | None = None,
    label: str | None = None,
    since_s: float = 0.0,
    limit: int = 100,
    before_s: float = math.inf,
    older_than: str | None = None,
) -> list[Event]:
    """The newest events of a database, newest first; of what is None, all.

    Args:
        since_s, before_s: seconds since 1970, from the one on and before the other; limit: how many at most.
        older_than: an event's id; those that were written before it. Of one that is not there any more, none: what
            is older went first.

    Raises:
        InputError: there is no such file, it holds no events, or this user may not read it.
    """
    wanted = {"camera": camera, "kind": kind, "label": label}
    conditions = [f"{name} = :{name}" for name, value in wanted.items() if value is not None]
    if older_than is not None:
        conditions.append("seq < (SELECT seq FROM events WHERE id = :older_than)")
    where = " AND ".join(["at_s >= :since_s", "at_s < :before_s", *conditions])
    query = f"SELECT {', '.join(COLUMNS)} FROM events WHERE {where} ORDER BY seq DESC LIMIT :limit"
    values = wanted | {"since_s": since_s, "before_s": before_s, "older_than": older_than, "limit": limit}
    try:
        rows = _rows(path, query, values)
    except sqlite3.Error as error:
        raise InputError(f"{path} cannot be read as a database of events: {error}. {_hint(path)}.") from error
    return [Event(**dict(zip(COLUMNS, row, strict=True))) for row in rows]


def _rows(path: Path, query: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
    try:
        return _rows_of(f"{path.absolute().as_uri()}?mode=ro", query, values)
    except sqlite3.OperationalError:
        # To open a write-ahead log takes a file beside it, which another user may not be allowed to make. Where
        # there is no log, nobody writes.
        if os.path.exists(_beside(path, "-wal")) or not os.access(path, os.R_OK):
            raise
        return _rows_of(f"{path.absolute().as_uri()}?immutable=1", query, values)


def _rows_of(uri: str, query: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(uri, timeout=BUSY_S, uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def _hint(path: Path) -> str:
    """What to do about a database that cannot be read."""
    log = _beside(path, "-wal")
    for file in (path, log, _beside(path, "-shm")):
        if os.path.exists(file) and not os.access(file, os.R_OK):
            return f"This user may not read {file}: ask as the user that wrote it"
    if os.path.exists(log) and not os.access(path.absolute().parent, os.W_OK):
        return f"This user may not write to {path.absolute().parent}, which its open log takes: ask as its writer"
    return "Expected the `path` of [sinks.events]"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
