"""What the sinks of events share: they watch the results, and a thread commits what began or ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.happenings import Event, EventRules, Watch
from edge.sinks.storage import Schema, Writer


class EventWriter:
    """A `Sink` that hands every event to a database's thread.

    Args:
        store: as `Writer`'s.

    Attributes:
        stored: events on the disk; lost: events that could not be written, or were given up.
        trouble: why, for the moment; empty when all is well.
        damage: what of the database was found damaged and set aside; empty where nothing was.
    """

    def __init__(
        self,
        rules: EventRules,
        path: Path,
        schema: Schema,
        store: Callable[[sqlite3.Connection, Sequence[Event]], int],
    ) -> None:
        self._watch = Watch(rules)
        self._writer: Writer[Event] = Writer(path, schema, store)
        self._opened = False

    @property
    def stored(self) -> int:
        return self._writer.stored

    @property
    def lost(self) -> int:
        return self._writer.lost

    @property
    def trouble(self) -> str:
        return self._writer.trouble

    @property
    def damage(self) -> str:
        return self._writer.damage

    def open(self, source: SourceInfo) -> None:
        """Once for each camera."""
        self.prepare()

    def prepare(self) -> None:
        """Raises InputError where the database cannot be used."""
        if not self._opened:
            self._writer.open()
            self._opened = True

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Hand what began or ended to the database's thread; never waits for the disk."""
        for event in self._watch.update(frame, result):
            self._writer.put(event)

    def close(self) -> None:
        """End what is still there, and commit."""
        if self._opened:
            self._opened = False
            self._writer.close(last=self._watch.finish())
