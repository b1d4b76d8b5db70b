"""Pictures of what happens: a JPEG when an event begins, or every so often, with a bounded folder."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from edge.errors import DiskFailed, InputError, reason_of
from edge.files import whole_file
from edge.frame import Frame
from edge.pixels import Image
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.happenings import BEGINNINGS, Event, EventRules, Watch
from edge.sinks.overlay import draw

BACKLOG = 4
"""Copies of frames that may wait for the encoder."""

_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z_.+\.jpg")
"""The files that are ours to remove; whatever else lies in the folder stays."""


class SnapshotSettings(EventRules):
    """`[sinks.snapshots]`.

    Attributes:
        folder: for the pictures, `TIME_CAMERA_REASON.jpg`, the time in UTC.
        on_events: one at the beginning of each event.
        every_s: one so often of each camera; None for none.
        draw: the results into the picture.
        quality: of the JPEG, 1 to 100.
        max_files, max_bytes: of the folder; the oldest pictures make room.
    """

    folder: Path
    on_events: bool = True
    every_s: float | None = Field(default=None, gt=0)
    draw: bool = True
    quality: int = Field(default=85, ge=1, le=100)
    max_files: int = Field(default=1000, ge=1)
    max_bytes: int = Field(default=500_000_000, ge=1_000_000)

    @model_validator(mode="after")
    def _takes_any(self) -> SnapshotSettings:
        if not self.on_events and self.every_s is None:
            raise ValueError("without on_events and every_s no picture would ever be taken: set one of them")
        return self


@dataclass(frozen=True)
class _Shot:
    """One frame on its way to the encoder, with its own copy of the pixels."""

    name: str
    pixels: Image
    result: FrameResult
    age_ms: float


class SnapshotSink:
    """Encodes and writes in its own thread; the stream never waits for it.

    Attributes:
        stored: pictures written; lost: those that the encoder was too slow or the disk too full for.
        trouble: why the last picture could not be written; empty when it could.
    """

    def __init__(self, settings: SnapshotSettings) -> None:
        self._settings = settings
        self._watch = Watch(settings)
        self._folder = _Folder(settings.folder, settings.max_files, settings.max_bytes)
        self._queue: queue.Queue[_Shot | None] = queue.Queue(BACKLOG)
        self._next_ns: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self.stored = 0
        self.lost = 0
        self.trouble = ""

    def open(self, source: SourceInfo) -> None:
        """Once for each camera."""
        self.prepare()

    def prepare(self) -> None:
        """A full disk is trouble, as later. Raises InputError where the folder is a wrong one."""
        if self._thread is None:
            try:
                self._folder.open()
            except DiskFailed as error:
                self.trouble = str(error)
            self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
            self._thread.start()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Copy the frame if it is to be kept."""
        events = self._watch.update(frame, result) if self._settings.on_events else []
        reasons = [_reason(event) for event in events if event.kind in BEGINNINGS]
        if self._is_due(frame):
            reasons.append("interval")
        if reasons:
            self._take(frame, result, reasons[0])

    def close(self) -> None:
        """Write what waits."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _is_due(self, frame: Frame) -> bool:
        every_s, now_ns = self._settings.every_s, frame.stamps.capture
        if every_s is None or now_ns < self._next_ns.get(frame.camera, 0):
            return False
        self._next_ns[frame.camera] = now_ns + round(every_s * 1e9)
        return True

    def _take(self, frame: Frame, result: FrameResult, reason: str) -> None:
        """One picture, however much began with it; the first event names it."""
        if self._queue.full():
            self.lost += 1
            return
        name = _file_name(frame.camera, reason)
        self._queue.put(_Shot(name, frame.pixels.copy(), result, frame.stamps.age_ms))

    def _work(self) -> None:
        for shot in iter(self._queue.get, None):
            try:
                self._folder.add(shot.name, self._encoded(shot))
                self.stored, self.trouble = self.stored + 1, ""
            except Exception as error:  # whatever it is: an ended thread would hold up the stream's end
                self.lost, self.trouble = self.lost + 1, reason_of(error)

    def _encoded(self, shot: _Shot) -> bytes:
        import cv2

        if self._settings.draw:
            draw(shot.pixels, shot.result, shot.age_ms)
        pixels = cv2.cvtColor(shot.pixels, cv2.COLOR_RGB2BGR)
        done, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, self._settings.quality])
        if not done:
            height, width = pixels.shape[:2]
            raise InputError(f"A picture of {width}x{height} pixels is too large for a JPEG.")
        return bytes(np.asarray(content, np.uint8))


class _Folder:
    """The pictures by age, and what they take together."""

    def __init__(self, path: Path, max_files: int, max_bytes: int) -> None:
        self._path, self._max_files, self._max_bytes = path, max_files, max_bytes
        self._sizes: deque[tuple[str, int]] = deque()
        self._bytes = 0

    def open(self) -> None:
        """Look what is there; remove what a killed run had begun to write."""
        try:
            with whole_file(self._path / ".writable"):  # raises InputError where nothing can be written
                pass
            (self._path / ".writable").unlink()
        except DiskFailed:
            self._look()
            raise
        self._look()

    def _look(self) -> None:
        if not self._path.is_dir():
            return
        for begun in self._path.glob(".*.jpg"):
            if _NAME.match(begun.name[1:]):
                begun.unlink(missing_ok=True)
        # What is dated later than now was written under another clock, before this run, and is no newer than what
        # this one will write: it goes first.
        now, names = _time_in_name(), [p.name for p in self._path.iterdir() if _NAME.fullmatch(p.name)]
        names.sort(key=lambda name: (name < now, name))
        self._sizes.clear()
        for name in names:
            with suppress(FileNotFoundError):  # removed meanwhile
                self._sizes.append((name, (self._path / name).stat().st_size))
        self._bytes = sum(size for _, size in self._sizes)
        self._make_room(0, 0)

    def add(self, name: str, content: bytes) -> None:
        """Remove the oldest as far as needed, then write."""
        self._make_room(1, len(content))
        with whole_file(self._path / name) as temporary:
            temporary.write_bytes(content)
        self._sizes.append((name, len(content)))
        self._bytes += len(content)

    def _make_room(self, files: int, size: int) -> None:
        while self._sizes and (
            len(self._sizes) + files > self._max_files or self._bytes + size > self._max_bytes
        ):
            name, freed = self._sizes[0]
            (self._path / name).unlink(missing_ok=True)
            self._sizes.popleft()
            self._bytes -= freed


def _reason(event: Event) -> str:
    return "_".join(filter(None, [event.kind, event.label, str(event.track or ""), event.id[:8]]))


def _file_name(camera: str, reason: str) -> str:
    """Sorts by time; a letter that file systems may not take becomes a dash."""
    parts = [re.sub(r"[^\w.-]", "-", part)[:60] for part in (camera, reason) if part]
    return f"{'_'.join([_time_in_name(), *parts])}.jpg"


def _time_in_name() -> str:
    now = datetime.fromtimestamp(time.time(), timezone.utc)
    return now.strftime("%Y%m%dT%H%M%S.") + f"{now.microsecond // 1000:03d}Z"
