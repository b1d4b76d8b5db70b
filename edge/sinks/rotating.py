"""A log of JSON lines that goes on for months: cut into parts of a size, the oldest of which are removed."""

from __future__ import annotations

import errno
import mmap
import os
import re
from pathlib import Path

from edge.errors import DiskFailed, InputError
from edge.files import refusal

_BLOCK = 1 << 16
_ZEROED = re.compile(rb"\0{512,}([^\0\n][^\n]*)?(\n\{|\n?\Z)")
"""What a power cut makes of a log's beginning: zeros, a disk's sector at least, the rest of a line, and lines."""

_UNWRITTEN = 8 << 20
"""Bytes at the end of a log in which zeros are looked for: more than a kernel keeps from the disk."""


class RotatingFile:
    """Appends JSON objects, a line each, to `path`; a full part becomes `path.1`, what was that `path.2`.

    A line is on the file as soon as it is written, so that others can follow it. After a kill in the
    middle of a line, the next run cuts its beginning off. Others may move the file away, remove or empty it:
    the next line begins a new one, or stands at its beginning.

    Args:
        max_bytes: of a part; a longer line has one of its own.
        keep: full parts that stay.

    Attributes:
        lost: lines that the disk refused.
        trouble: why it refused the last one; empty when all is well.
        damage: what was found damaged and set aside; empty where nothing was.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        """A full disk is trouble, as later; raises InputError for a wrong place, or a file of something else."""
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._handle, self._size, self._closed = -1, 0, False
        self.lost = 0
        self.trouble = self.damage = ""
        try:
            self._open()
        except OSError as error:
            self.trouble = (
                f"Cannot write {path}: {error.strerror}. Choose another, in a folder that you may write to."
            )
            if refusal(error) is not DiskFailed:
                raise InputError(self.trouble) from error

    @property
    def is_open(self) -> bool:
        """Between the beginning and `close`; also while the disk is full."""
        return not self._closed

    def write(self, line: str) -> None:
        """Append a line, given without its end; counted as lost where the disk refuses it."""
        content = line.encode() + b"\n"
        try:
            self._follow()
            if self._handle < 0 or (self._size and self._size + len(content) > self._max_bytes):
                self._next_part()
            self._append(content)
            self.trouble = ""
        except OSError as error:
            self.lost += 1
            self.trouble = f"{self._path} cannot be written: {error.strerror}"

    def close(self) -> None:
        """No more lines; harmless when called twice."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _follow(self) -> None:
        """Let go of a file that was moved away or removed; of one that was emptied, know its size."""
        if self._handle < 0:
            return
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            self._release()
            return
        if os.path.samestat(there, os.fstat(self._handle)):
            self._size = there.st_size
        else:
            self._release()

    def _append(self, content: bytes) -> None:
        written = os.write(self._handle, content)
        if written < len(content):
            os.ftruncate(self._handle, self._size)  # a full disk takes a part of it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._size = _end_of_last_line(handle)
            zeroed = _is_zeroed(handle, self._size)
            # What would be cut off below is no torn line.
            if not zeroed and os.pread(handle, 1, 0) not in (b"", b"{"):
                raise FileExistsError(errno.EEXIST, "it is there and holds no JSON objects")
            os.ftruncate(handle, self._size)
        except OSError:
            os.close(handle)
            raise
        self._handle = handle
        if zeroed:
            self._set_aside()

    def _set_aside(self) -> None:
        """What can still be read of a part that holds zeros stays, in the place of an older part."""
        self.damage = f"{self._path} held zeros in the place of lines, as after a power cut: these are gone"
        if self._size:
            self._next_part()

    def _next_part(self) -> None:
        if self._handle >= 0:
            self._release()
            self._part(self._keep).unlink(missing_ok=True)
            for number in range(self._keep - 1, -1, -1):
                if self._part(number).exists():
                    os.replace(self._part(number), self._part(number + 1))
        self._open()

    def _part(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _is_zeroed(handle: int, end: int) -> bool:
    """Whether zeros stand in the place of lines of a log, whose last whole line ends at `end`."""
    first = os.pread(handle, 1, 0)
    if first not in (b"\0", b"{"):
        return False
    with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as content:
        if first == b"\0":
            return _ZEROED.match(content) is not None
        return content.find(b"\0", max(0, end - _UNWRITTEN), end) >= 0


def _end_of_last_line(handle: int) -> int:
    """Where the last whole line of a file ends, in bytes from its beginning."""
    end = os.fstat(handle).st_size
    while end > 0:
        begin = max(0, end - _BLOCK)
        found = os.pread(handle, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
