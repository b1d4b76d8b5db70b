"""A file that takes its name only when its sink is closed."""

from __future__ import annotations

from pathlib import Path

from edge.files import whole_file


class _Discarded(Exception):
    """Tells the context that the file shall not be kept."""


class PendingFile:
    """`whole_file` for writers that open and close in different calls.

    Attributes:
        path: the temporary name to write to, with the suffix of the final one.
    """

    def __init__(self, target: Path) -> None:
        """Raises InputError where the folder cannot be written."""
        self._context = whole_file(target)
        self.path: Path = self._context.__enter__()

    def keep(self) -> None:
        """Flush the file to the disk and give it its name."""
        self._context.__exit__(None, None, None)

    def discard(self) -> None:
        """Leave nothing behind; what stood under the name before stays."""
        self._context.__exit__(_Discarded, _Discarded(), None)
