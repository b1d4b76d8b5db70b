"""Results as JSON, one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from edge.clock import in_utc, wall_s
from edge.errors import InputError
from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.pending import PendingFile
from edge.sinks.rotating import RotatingFile


class JsonlSink:
    """Results, one JSON object a line.

    Without `max_bytes` it writes to a temporary name; the file appears under its own at the end, unless it
    has no line, and a full disk ends the stream with an error. With `max_bytes` it is a log for a stream
    without end, see `RotatingFile`: lines are appended under its name, and those that the disk refuses are
    counted while the stream goes on.

    A line: `frame` (index in the stream), `time` (of its capture, ISO 8601 in UTC by the wall clock: for people,
    and to find it in a recording), `camera` and `image` (their names, if they have one), `width` and `height` (of the
    frame, pixels), what the models say, `stages_ms`, `age_ms` and `capture_clock` (what the age is counted from). What
    the models say:

    * one model: `model`, its name, and its fields;
    * several: `models`, an object with each one's fields by name.

    The fields of a classifier are `label`, `score` and `index` of the best class, and `scores`; those of
    a detector `faces`, a list, best first, of `box` ([x0, y0, x1, y1] in pixels of the frame), `score`,
    `track` (the same number for the same face over time; absent while it is new) and `classes` (by the
    name of a classifier of crops: `label` and `score`). `held_ms` is there when the model did not see this
    frame: its last result stands in, of a frame that is so much older.

    Args:
        max_bytes: of one part of a log; keep: full parts that stay beside the one that is written.
    """

    def __init__(self, path: Path, max_bytes: int | None = None, keep: int = 5) -> None:
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._log: RotatingFile | None = None
        self._pending: PendingFile | None = None
        self._file: IO[str] | None = None
        self._lines = 0
        self._failed = False

    @property
    def lost(self) -> int:
        """Lines of a log that the disk refused."""
        return self._log.lost if self._log is not None else 0

    @property
    def trouble(self) -> str:
        """Why the disk refused a log's last line; empty when it did not."""
        return self._log.trouble if self._log is not None else ""

    @property
    def damage(self) -> str:
        """What a power cut did to a log that was there already; empty where it did nothing."""
        return self._log.damage if self._log is not None else ""

    def open(self, source: SourceInfo) -> None:
        """Once for each camera."""
        self.prepare()

    def prepare(self) -> None:
        """Raises InputError where the folder cannot be written."""
        if self._file is not None or (self._log is not None and self._log.is_open):
            return
        if self._max_bytes is not None:
            self._log = RotatingFile(self._path, self._max_bytes, self._keep)
            return
        self._pending = PendingFile(self._path)
        self._file = open(self._pending.path, "w", encoding="utf-8")  # noqa: SIM115  closed by close
        self._lines, self._failed = 0, False

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append one line; raises InputError when the disk refuses it, unless it is a log."""
        line = json.dumps(self._line(frame, result))
        if self._log is not None:
            self._log.write(line)
            return
        assert self._file is not None, "open comes first"
        try:
            self._file.write(line + "\n")
        except OSError as error:
            self._failed = True
            raise self._refused(error) from error
        self._lines += 1

    def close(self) -> None:
        """Put the file in its place; none after a failed write. Raises InputError for a full disk."""
        if self._log is not None:
            self._log.close()
        pending, self._pending = self._pending, None
        file, self._file = self._file, None
        if pending is None or file is None:
            return
        try:
            file.close()
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
        height, width = frame.pixels.shape[:2]
        return {
            "frame": frame.index,
            "time": in_utc(wall_s(frame.stamps.capture)),
            **({"camera": frame.camera} if frame.camera else {}),
            **({"image": frame.name} if frame.name else {}),
            "width": width,
            "height": height,
            **result.as_record(),
            "stages_ms": stages,
            "age_ms": round(frame.stamps.age_ms, 3),
            "capture_clock": frame.capture_clock,
        }
