"""SQLite for months on a device: whole after a kill, bounded, and never in the way of the stream.

Write-ahead log with `synchronous=FULL`: a committed row survives SIGKILL and a power cut. Commits wait
for the disk, so they are made by a thread of their own.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edge.errors import DiskFailed, InputError
from edge.files import behind_links, check_writable, refusal

BUSY_S = 5.0
"""How long a commit waits for another process that writes to the same file."""

RETRY_S = 0.5
"""After a failed commit, a full disk for example."""

BATCH = 500
"""Rows of one transaction at most."""

LOG_BYTES = 4 << 20
"""To which the write-ahead log is cut back after a checkpoint."""

_SECTOR = 512
"""Bytes: the least that a power cut fills with zeros."""

_USER_VERSION = slice(60, 64)
"""Where a file says the version of its schema; what never had one is not ours."""

_PASSING = ("database or disk is full", "disk I/O error", "database is locked")
"""SQLITE_FULL, SQLITE_IOERR, SQLITE_BUSY: what a `Writer` that runs tries again."""

Row = TypeVar("Row")


class DatabaseDamaged(InputError):
    """A database of ours that is damaged, by a power cut for example."""


@dataclass(frozen=True)
class Schema:
    """The tables of a database file.

    Attributes:
        table: the one by which a file of this purpose is known.
        version: of `tables`, kept in the file; one with a newer version is refused.
        tables: SQL that makes them where they are not there yet. `IF NOT EXISTS`, for two threads or
            processes may open a new file at once.
    """

    purpose: str
    table: str
    version: int
    tables: str


def connect(path: Path, schema: Schema) -> sqlite3.Connection:
    """Open a database for writing, made if it is not there; every statement commits by itself.

    Raises:
        DiskFailed: the disk is full, or does not answer; or another process holds the file.
        DatabaseDamaged: it is ours or begins with zeros, and cannot be read.
        InputError: it cannot be written, is no SQLite database, has a newer schema, or holds something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            _prepare(connection, schema)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise _kind(path, error)(
            f"{path} cannot be used for {schema.purpose}: {error}. Expected an SQLite database of this "
            "Sightline, or a path where one can be made. Move a damaged or foreign file away, free some "
            "space, or choose another path."
        ) from error
    return connection


def is_in_place(path: Path, file: os.stat_result | None) -> bool:
    """Whether a database that is open still has its name; what goes into one that was removed or moved is lost."""
    try:
        return file is not None and os.path.samestat(os.stat(path), file)
    except FileNotFoundError:
        return False


def _prepare(connection: sqlite3.Connection, schema: Schema) -> None:
    """Nothing is written to a database of something else."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > schema.version:
        raise sqlite3.DatabaseError(f"it has schema {version}, this Sightline knows {schema.version}")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    if schema.table not in tables and (tables or version):
        raise sqlite3.DatabaseError(f"it is in use for something else, and has no table '{schema.table}'")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
    if version < schema.version:
        connection.executescript(
            f"BEGIN IMMEDIATE; {schema.tables}; PRAGMA user_version={schema.version}; COMMIT"
        )


def _kind(path: Path, error: Exception) -> type[InputError]:
    """What an error of the system or of SQLite means."""
    if isinstance(error, OSError):
        return refusal(error)
    if isinstance(error, sqlite3.OperationalError):
        return DiskFailed if str(error) in _PASSING or _has_no_room(path.parent) else InputError
    return DatabaseDamaged if _is_ours_and_damaged(path, error) else InputError


def _has_no_room(folder: Path) -> bool:
    """Where SQLite cannot make its files it does not say why."""
    try:
        check_writable(folder, "another path")
    except InputError as error:
        return isinstance(error, DiskFailed)
    return False


def _is_ours_and_damaged(path: Path, error: Exception) -> bool:
    """What a power cut has left of a database; neither a file nor a database of something else."""
    with open(path, "rb") as file:
        sector = file.read(_SECTOR)
    return any(sector[_USER_VERSION]) if _is_corrupt(error) else _is_no_database(error) and not any(sector)


def _is_corrupt(error: Exception) -> bool:
    """SQLITE_CORRUPT, by its text: Python has the code from 3.11 on."""
    return isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error)


def _is_no_database(error: Exception) -> bool:
    """SQLITE_NOTADB."""
    return "not a database" in str(error)


def set_aside(path: Path) -> Path:
    """Give a damaged database and its log another name, in the place of one that was set aside before.

    `sqlite3 FILE .recover` finds there what can still be read.

    Raises:
        OSError: it cannot be renamed.
    """
    path = behind_links(path)
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("-wal", "-shm", ""):  # the database last: the log that is there then could be of a new one
        found, kept = (Path(f"{base}{suffix}") for base in (path, aside))
        if found.exists():
            os.replace(found, kept)
        else:
            kept.unlink(missing_ok=True)
    return aside


class Writer(Generic[Row]):
    """A thread that commits rows in the order in which they come.

    A commit that fails (disk full) is tried again twice a second; meanwhile rows wait in memory, and
    those beyond `backlog` are lost and counted. So the stream goes on, and nothing is lost by a disk that
    is full for a moment.

    Args:
        store: called in a transaction, puts rows into the tables; returns how many older rows it had to
            give up to keep the database bounded, if that is a loss.

    Attributes:
        stored: rows that are on the disk for certain.
        lost: rows that are not, or were given up.
        trouble: why the last commit failed; empty when all is well.
        damage: what was found damaged and set aside; empty where nothing was.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        store: Callable[[sqlite3.Connection, Sequence[Row]], int],
        backlog: int = 1000,
    ) -> None:
        self._path, self._schema, self._store = path, schema, store
        self._queue: queue.Queue[Row] = queue.Queue(backlog)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: os.stat_result | None = None  # of the connection
        self.stored = 0
        self.lost = 0
        self.trouble = self.damage = ""

    def open(self) -> None:
        """A disk that is full is trouble, as later; raises InputError where the database is a wrong one."""
        try:
            self._try_out()
        except DiskFailed as error:
            self.trouble = str(error)
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        """Hand a row over; never waits. It is counted as lost where the backlog is full."""
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self.lost += 1

    def close(self, last: Sequence[Row] = (), timeout_s: float = 2.0) -> None:
        """Commit what waits, and the `last` rows; what cannot be committed now is lost and counted."""
        if self._thread is None:
            return
        deadline_s = time.monotonic() + timeout_s
        for row in last:  # these may be more than the backlog
            try:
                self._queue.put(row, timeout=0.0 if self.trouble else max(0.0, deadline_s - time.monotonic()))
            except queue.Full:
                self.lost += 1
        self._ending.set()
        self._thread.join(max(0.1, deadline_s - time.monotonic()))
        if self._thread.is_alive():  # the disk does not answer
            self.lost += self._queue.qsize()
        self._thread = None

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        batch: list[Row] = []
        while batch or not (self._ending.is_set() and self._queue.empty()):
            batch = batch or self._next()
            last_attempt = self._ending.is_set()
            try:
                connection = self._current(connection)
                if batch:
                    self._commit(connection, batch)
                self.trouble, batch = "", []
            except (sqlite3.Error, InputError, OSError) as error:
                self.trouble = str(error)
                _close(connection)
                connection = None
                if isinstance(error, DatabaseDamaged) or _is_corrupt(error):
                    self._set_aside(error)
                if last_attempt:
                    self._give_up(batch)
                    break
                self._ending.wait(RETRY_S)
        _close(connection)

    def _current(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        """The connection, or a new one where there is none to the file that has the name now."""
        if connection is None or not is_in_place(self._path, self._file):
            _close(connection)
            connection = connect(self._path, self._schema)
            self._file = os.stat(self._path)
        return connection

    def _try_out(self) -> None:
        try:
            connect(self._path, self._schema).close()
        except DatabaseDamaged as error:
            self._set_aside(error)
            connect(self._path, self._schema).close()

    def _set_aside(self, error: Exception) -> None:
        try:
            aside = set_aside(self._path)
            self.damage = (
                f"{self._path} was damaged, as after a power cut: it is {aside.name} now, a new one begins"
            )
        except OSError as refused:
            self.trouble = f"{error} It cannot be renamed: {refused.strerror}."

    def _next(self) -> list[Row]:
        """The rows that wait, or after a moment none."""
        try:
            rows = [self._queue.get(timeout=0.1)]
        except queue.Empty:
            return []
        while len(rows) < BATCH and not self._queue.empty():
            rows.append(self._queue.get_nowait())  # there is no other consumer
        return rows

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            given_up = self._store(connection, batch)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.lost += given_up
        self.stored += len(batch)

    def _give_up(self, batch: Sequence[Row]) -> None:
        self.lost += len(batch)
        while not self._queue.empty():
            self._queue.get_nowait()
            self.lost += 1


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()
