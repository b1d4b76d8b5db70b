"""Results as JSON, one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from edge.errors import InputError
from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.pending import PendingFile


class JsonlSink:
    """Writes to a temporary name; the file appears under its own at the end, unless it has no line.

    A line: `frame` (index in the stream), `image` (its name, if it has one), what the models say,
    `stages_ms`, `age_ms` and `capture_clock` (what the age is counted from). What the models say:

    * one model: `model`, its name, and its fields;
    * several: `models`, an object with each one's fields by name.

    The fields of a classifier are `label`, `score` and `index` of the best class, and `scores`; those of
    a detector `faces`, a list, best first, of `box` ([x0, y0, x1, y1] in pixels of the frame), `score`,
    `track` (the same number for the same face over time; absent while it is new) and `classes` (by the
    name of a classifier of crops: `label` and `score`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: PendingFile | None = None
        self._file: IO[str] | None = None
        self._lines = 0
        self._failed = False

    def open(self, source: SourceInfo) -> None:
        """Raises InputError where the folder cannot be written."""
        self._pending = PendingFile(self._path)
        self._file = open(self._pending.path, "w", encoding="utf-8")  # noqa: SIM115  closed by close
        self._lines, self._failed = 0, False

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append one line; raises InputError when the disk refuses it."""
        assert self._file is not None, "open comes first"
        try:
            self._file.write(json.dumps(self._line(frame, result)) + "\n")
        except OSError as error:
            self._failed = True
            raise self._refused(error) from error
        self._lines += 1

    def close(self) -> None:
        """Put the file in its place; none after a failed write. Raises InputError for a full disk."""
        pending, self._pending = self._pending, None
        if pending is None or self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            pending.discard()
            raise self._refused(error) from error
        if self._lines and not self._failed:
            pending.keep()
        else:
            pending.discard()

    def _refused(self, error: OSError) -> InputError:
        return InputError(
            f"{self._path} cannot be written: {error.strerror}. Free some space or choose another."
        )

    def _line(self, frame: Frame, result: FrameResult) -> dict[str, Any]:
        stages = {name: round(ms, 3) for name, ms in frame.stamps.stages_ms().items()}
        return {
            "frame": frame.index,
            **({"image": frame.name} if frame.name else {}),
            **result.as_record(),
            "stages_ms": stages,
            "age_ms": round(frame.stamps.age_ms, 3),
            "capture_clock": frame.capture_clock,
        }
