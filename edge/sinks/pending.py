"""A file that takes its name only when its sink is closed."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from glob import escape
from pathlib import Path

from edge.files import behind_links, whole_file


class _Discarded(Exception):
    """Tells the context that the file shall not be kept."""


class PendingFile:
    """`whole_file` for writers that open and close in different calls.

    What a kill or a power cut left of an earlier one under the same name is removed: nobody could play it or
    knows of it. A lock tells it from one that another process is writing.

    Attributes:
        path: the temporary name to write to, with the suffix of the final one.
    """

    def __init__(self, target: Path) -> None:
        """Raises InputError where the folder cannot be written."""
        _remove_orphans(behind_links(target))
        self._context = whole_file(target)
        self.path: Path = self._context.__enter__()
        self._lock = os.open(self.path, os.O_RDONLY)
        with suppress(OSError):  # some network file systems have no locks; no orphan is removed there either
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def keep(self) -> None:
        """Flush the file to the disk and give it its name."""
        try:
            self._context.__exit__(None, None, None)
        finally:
            os.close(self._lock)

    def discard(self) -> None:
        """Leave nothing behind; what stood under the name before stays."""
        try:
            self._context.__exit__(_Discarded, _Discarded(), None)
        finally:
            os.close(self._lock)


def _remove_orphans(target: Path) -> None:
    for path in target.parent.glob(f".{escape(target.stem)}.????????{escape(target.suffix)}"):
        with suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
