"""Messages that wait for the broker, in SQLite: a row goes only when the broker has acknowledged it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.sinks.happenings import Event
from edge.sinks.storage import Schema, connect, is_in_place

SCHEMA = Schema(
    purpose="an MQTT outbox",
    table="outbox",
    version=1,
    tables="""
    CREATE TABLE IF NOT EXISTS outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        record TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0
    )
    """,
)


@dataclass(frozen=True)
class Message:
    """One row.

    Attributes:
        seq: counts all messages of the outbox from 1, without a gap but for those that were lost.
        record: a JSON object; attempts: how often it was handed to a broker before.
    """

    seq: int
    topic: str
    record: str
    attempts: int

    @property
    def payload(self) -> str:
        """The record with `seq`, and `sent_before`: whether the receiver may have it already."""
        return json.dumps(json.loads(self.record) | {"seq": self.seq, "sent_before": self.attempts > 0})


def adder(
    topic_of: Callable[[Event], str], max_rows: int
) -> Callable[[sqlite3.Connection, Sequence[Event]], int]:
    """What a `Writer` needs to fill an outbox; the oldest beyond `max_rows` are given up, and counted."""

    def add(connection: sqlite3.Connection, events: Sequence[Event]) -> int:
        connection.executemany(
            "INSERT INTO outbox (topic, record) VALUES (?, ?)",
            [(topic_of(event), json.dumps(event.as_record())) for event in events],
        )
        return connection.execute(
            "DELETE FROM outbox WHERE seq <= (SELECT max(seq) FROM outbox) - ?", (max_rows,)
        ).rowcount

    return add


class Outbox:
    """The sender's side. Used by one thread; every change is on the disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where the database cannot be used."""
        self._connection = connect(path, SCHEMA)
        self._path, self._file = path, os.stat(path)

    def take(self, after: int, most: int) -> list[Message]:
        """The next messages after `after`, oldest first; counts the attempt before any is sent.

        Raises:
            OSError: this outbox is not in its place any more: it was damaged or removed, for example.
        """
        if not is_in_place(self._path, self._file):
            raise FileNotFoundError(f"{self._path} is another file now")
        return self._handed_out("seq > ? ORDER BY seq LIMIT ?", (after, most))

    def take_again(self, sequence: Sequence[int]) -> list[Message]:
        """Those of these messages that are still there, as `take`."""
        return self._handed_out(f"seq IN ({','.join('?' * len(sequence))}) ORDER BY seq", sequence)

    def _handed_out(self, which: str, values: Sequence[int]) -> list[Message]:
        rows = self._connection.execute(
            f"SELECT seq, topic, record, attempts FROM outbox WHERE {which}", tuple(values)
        ).fetchall()
        self._change("UPDATE outbox SET attempts = attempts + 1 WHERE seq = ?", [row[0] for row in rows])
        return [Message(*row) for row in rows]

    def acknowledged(self, sequence: Iterable[int]) -> None:
        """Delete what the broker has."""
        self._change("DELETE FROM outbox WHERE seq = ?", sequence)

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def close(self) -> None:
        self._connection.close()

    def _change(self, statement: str, sequence: Iterable[int]) -> None:
        """One transaction for all, because each waits for the disk."""
        rows = [(seq,) for seq in sequence]
        if rows:
            with self._connection:  # commits, or rolls back
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(statement, rows)
