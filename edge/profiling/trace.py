"""Every frame as a trace for Perfetto (ui.perfetto.dev) or chrome://tracing.

The Chrome trace event format ("Trace Event Format", Google, 2016): complete events (`X`) on a row for
the decoding thread and one for the inference thread, the wait in the ring between them as an
asynchronous pair (`b`, `e`), counters (`C`), and the rows' names (`M`). Times are microseconds of the
monotonic clock with three decimals, so that nothing of a nanosecond stamp is lost, and a trace of
another tool on the same clock can be laid beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from edge.errors import InputError
from edge.frame import MODEL_STAGES, Frame, Laps
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.pending import PendingFile

MOST_BYTES = 1_000_000_000
"""Of one file: browsers open no larger ones."""

PROCESS, DECODING, INFERENCE, BESIDE = 1, 1, 2, 3
"""Numbers of the process and of its rows; from `BESIDE` on those of models that ran side by side with others."""

_HEAD = '{"displayTimeUnit":"ms","traceEvents":[\n'
_TAIL = '\n],"otherData":%s}\n'
_ROOM = 2_000
"""For the tail and its facts."""


class TraceSink:
    """Writes to a temporary name; each file appears whole under its own when it is finished.

    A file that would pass `most_bytes` is finished, and the next begins: `trace.json`, `trace.2.json`,
    `trace.3.json`. Each says in `otherData` which part it is; `parts` tells how many there are.

    Args:
        path: of the first file.
        most_bytes: of one file.

    Attributes:
        parts: files begun.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._pending: PendingFile | None = None
        self._file: IO[str] | None = None
        self._failed = False
        self.parts = 0

    def open(self, source: SourceInfo) -> None:
        """Raises InputError where the folder cannot be written."""
        self._source = source
        self._failed, self.parts = False, 0
        self._rows = _Rows()
        self._begin()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append a frame's events; raises InputError when the disk refuses them. `result` is not looked at."""
        text = ",\n".join(self._rows.events(frame))
        try:
            if self._bytes + len(text) + _ROOM > self._most_bytes and self._frames:
                self._finish()
                self._begin()
            self._put(",\n" + text)
        except OSError as error:
            self._failed = True
            raise self._refused(error) from error
        self._frames += 1

    def close(self) -> None:
        """Finish the present file; none without a frame or after a failed write."""
        if self._pending is None or self._file is None:
            return
        try:
            self._finish()
        except OSError as error:
            raise self._refused(error) from error

    @property
    def paths(self) -> list[Path]:
        """Of all files, in order."""
        numbered = [
            self._path.with_suffix(f".{part}{self._path.suffix}") for part in range(2, self.parts + 1)
        ]
        return [self._path, *numbered][: self.parts]

    @property
    def note(self) -> str:
        """What to tell of a trace that was divided; empty for a single file."""
        if self.parts < 2:
            return ""
        return (
            f"The trace was divided into {self.parts} files of at most {self._most_bytes / 1e9:g} GB: "
            f"{self._path.name} to {self.paths[-1].name}."
        )

    def _begin(self) -> None:
        self.parts += 1
        self._pending = PendingFile(self.paths[-1])
        self._file = open(self._pending.path, "w", encoding="utf-8")  # noqa: SIM115  closed by _finish
        self._bytes = self._frames = 0
        self._put(_HEAD + ",\n".join(_names(self._source)))

    def _put(self, text: str) -> None:
        assert self._file is not None, "open comes first"
        self._file.write(text)
        self._bytes += len(text)  # all of it is ASCII: json.dumps escapes the rest

    def _finish(self) -> None:
        """Close the file and put it in its place; raises OSError when the disk is full."""
        assert self._pending is not None
        assert self._file is not None
        (pending, self._pending), (file, self._file) = (self._pending, None), (self._file, None)
        try:
            if not self._failed:
                file.write(_TAIL % json.dumps({"part": self.parts, "frames": self._frames}))
            file.close()
        except OSError:
            pending.discard()
            raise
        if self._frames and not self._failed:
            pending.keep()
        else:
            pending.discard()

    def _refused(self, error: OSError) -> InputError:
        return InputError(
            f"{self._path} cannot be written: {error.strerror}. Free some space or choose another."
        )


class _Rows:
    """Turns frames into events, and keeps each row in order."""

    def __init__(self) -> None:
        self._decoded_ns = 0
        self._published_ns = 0
        self._first = -1
        self._seen = 0

    def events(self, frame: Frame) -> Iterator[str]:
        """Of one frame, as JSON, row by row in order of time."""
        stamps = frame.stamps
        if self._first < 0:
            self._first = frame.index
        facts = json.dumps({"frame": frame.index, **({"image": frame.name} if frame.name else {})})
        # A sensor stamps the next frame while this one is still decoded; the thread can only do one.
        begin_ns = max(stamps.capture, self._decoded_ns)
        self._decoded_ns = max(begin_ns, stamps.decode)
        yield _complete("decode", DECODING, begin_ns, self._decoded_ns, facts)
        yield from _wait(frame)
        yield _complete(f"frame {frame.index}", INFERENCE, stamps.dequeue, stamps.publish, facts)
        yield from _inference(frame)
        yield from self._counters(frame)

    def _counters(self, frame: Frame) -> Iterator[str]:
        """The age, the frames dropped so far (those missing among the indices), and frames a second."""
        self._seen += 1
        at_ns = frame.stamps.publish
        yield _counter("age ms", at_ns, f"{frame.stamps.age_ms:.6f}")
        yield _counter("dropped", at_ns, str(frame.index - self._first + 1 - self._seen))
        if self._published_ns and at_ns > self._published_ns:
            yield _counter("frames a second", at_ns, f"{1e9 / (at_ns - self._published_ns):.3f}")
        self._published_ns = at_ns


def _inference(frame: Frame) -> Iterator[str]:
    """The stages; of several models each one's, inside the model's own bar, then what publishing took."""
    models = frame.stamps.models
    rows = _rows(models.values())
    for (name, laps), row in zip(models.items(), rows, strict=True):
        at_ns = laps.begin_ns
        if len(models) > 1:
            yield _complete(name, row, at_ns, laps.last_ns)
        for stage in MODEL_STAGES:
            # A model of crops has several laps of each stage in turn: they are drawn as one, their sum.
            yield _complete(stage, row, at_ns, at_ns + laps.spent_ns[stage])
            at_ns += laps.spent_ns[stage]
    if not models:
        yield from _stages_alone(frame)
    yield _complete("publish", INFERENCE, frame.stamps.postprocess, frame.stamps.publish)


def _rows(models: Iterable[Laps]) -> list[int]:
    """The row of each model: models that ran side by side cannot share one."""
    free_ns: list[int] = []
    found = []
    for laps in models:
        place = next((i for i, ns in enumerate(free_ns) if ns <= laps.begin_ns), len(free_ns))
        free_ns[place:] = [laps.last_ns, *free_ns[place + 1 :]]
        found.append(INFERENCE if place == 0 else BESIDE + place - 1)
    return found


def _stages_alone(frame: Frame) -> Iterator[str]:
    """Of a frame that nobody kept laps of."""
    at_ns = frame.stamps.dequeue
    for stage in MODEL_STAGES:
        end_ns = getattr(frame.stamps, stage)
        yield _complete(stage, INFERENCE, at_ns, end_ns)
        at_ns = end_ns


def _wait(frame: Frame) -> Iterator[str]:
    """In the ring: frames wait beside each other there, which the rows of a thread cannot show."""
    for phase, at_ns in (("b", frame.stamps.decode), ("e", frame.stamps.dequeue)):
        yield (
            f'{{"name":"wait","cat":"ring","ph":"{phase}","id":{frame.index},"pid":{PROCESS},'
            f'"tid":{DECODING},"ts":{_us(at_ns)}}}'
        )


def _names(source: SourceInfo) -> Iterator[str]:
    """What the rows are called, at the head of every file."""
    yield _metadata("process_name", 0, f"sightline {source.uri}")
    yield _metadata("thread_name", DECODING, f"decode (from {source.capture_clock})")
    yield _metadata("thread_name", INFERENCE, "inference")


def _metadata(kind: str, row: int, name: str) -> str:
    return f'{{"name":"{kind}","ph":"M","pid":{PROCESS},"tid":{row},"args":{json.dumps({"name": name})}}}'


def _complete(name: str, row: int, begin_ns: int, end_ns: int, facts: str = "{}") -> str:
    return (
        f'{{"name":{json.dumps(name)},"cat":"frame","ph":"X","pid":{PROCESS},"tid":{row},'
        f'"ts":{_us(begin_ns)},"dur":{_us(end_ns - begin_ns)},"args":{facts}}}'
    )


def _counter(name: str, at_ns: int, value: str) -> str:
    return (
        f'{{"name":"{name}","ph":"C","pid":{PROCESS},"tid":0,"ts":{_us(at_ns)},"args":{{"value":{value}}}}}'
    )


def _us(ns: int) -> str:
    """Nanoseconds as microseconds, exactly: a float of this size would lose the last digits."""
    return f"{ns // 1000}.{ns % 1000:03d}"
