"""The stream as an H.264 file with the results drawn in."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import InputError
from edge.frame import Frame
from edge.pixels import Image, Placement, fit
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.overlay import draw
from edge.sinks.pending import PendingFile

if TYPE_CHECKING:
    import av

SUFFIXES = (".mp4", ".mkv", ".mov")

STILLS_FPS = Fraction(2)
"""For pictures, which have no rate of their own: half a second each."""

LIVE_FPS = Fraction(25)
"""For a live stream that states no rate; its pictures have the times of their capture all the same."""

LIVE_TICK = Fraction(1, 1000)
"""Seconds: the time base of a live stream."""

LONGEST_GAP_S = 86_400
"""A longer absence is shown as so long: FFmpeg refuses an MP4 with 37 hours between two pictures of this time base."""

OPTIONS = {"preset": "veryfast", "crf": "21"}
ITU709 = 1


def check_suffix(path: Path) -> None:
    """Raises InputError where the name of a video does not say its format."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"'{path}' must end in {', '.join(SUFFIXES)}: the format is chosen by it.")


@dataclass(frozen=True)
class _Shot:
    """One frame on its way to the encoder, with its own copy of the pixels.

    Attributes:
        at: its place in time, in ticks of the video's time base, from any origin.
    """

    pixels: Image
    at: int
    result: FrameResult
    age_ms: float


class VideoSink:
    """Draws and encodes in its own thread; frames keep their place in time, dropped ones leave a gap.

    Live frames have the times of their capture, so that a camera's real rate and its absences are seen; those of a
    file follow from their index and the file's rate.

    Args:
        path: the file, `.mp4`, `.mkv` or `.mov`.
        title: shown on the picture, the model's name for example.
        lossless: wait for the encoder instead of leaving out frames when it is slow; pictures
            without a frame rate always wait.
        backlog: frames that may wait for the encoder.

    Attributes:
        left_out: frames that the encoder was too slow for.
    """

    def __init__(self, path: Path, title: str = "", lossless: bool = False, backlog: int = 4) -> None:
        check_suffix(path)
        self._path = path
        self._title = title
        self._lossless = lossless
        self._queue: queue.Queue[_Shot | None] = queue.Queue(backlog)
        self._spare: deque[Image] = deque(maxlen=backlog + 2)
        self._worker: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._told = False  # whether `write` has raised the failure already
        self._encoded = 0
        self.left_out = 0

    def open(self, source: SourceInfo) -> None:
        """Start the encoder's thread; raises InputError where the folder cannot be written."""
        self._pending = PendingFile(self._path)
        self._failure, self._told, self._encoded, self.left_out = None, False, 0, 0
        self._waits = self._lossless or source.is_pictures
        self._is_live = source.capture_clock != "file"
        unstated = STILLS_FPS if source.is_pictures else LIVE_FPS
        rate = Fraction(source.fps).limit_denominator(1001) if source.fps else unstated
        tick = LIVE_TICK if self._is_live else 1 / rate
        self._worker = threading.Thread(target=self._work, args=(rate, tick), name="encode", daemon=True)
        self._worker.start()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Queue a copy of the frame, or leave it out when the encoder is behind, unless lossless.

        Raises InputError when the encoder or the disk has failed.
        """
        if self._failure is not None:
            self._told = True
            raise self._refused(self._failure)
        if self._queue.full() and not self._waits:
            self.left_out += 1
            return
        at = round(frame.stamps.capture * LIVE_TICK.denominator / 1e9) if self._is_live else frame.index
        self._queue.put(_Shot(self._copy(frame.pixels), at, result, frame.stamps.age_ms))

    def close(self) -> None:
        """Encode what waits and put the file in its place; none without frames or after a failure."""
        if self._worker is None:
            return
        self._queue.put(None)
        self._worker.join()
        self._worker = None
        if self._encoded and self._failure is None:
            self._pending.keep()
            return
        self._pending.discard()
        if self._failure is not None and not self._told:
            raise self._refused(self._failure)

    def _copy(self, pixels: Image) -> Image:
        """A copy in a buffer that the encoder has given back, if it fits."""
        buffer = self._spare.popleft() if self._spare else None
        if buffer is None or buffer.shape != pixels.shape:
            buffer = np.empty_like(pixels)
        np.copyto(buffer, pixels)
        return buffer

    def _refused(self, error: BaseException) -> InputError:
        reason = getattr(error, "strerror", None) or str(error)
        return InputError(f"{self._path} cannot be written: {reason}. Free some space or choose another.")

    def _work(self, rate: Fraction, tick: Fraction) -> None:
        """The encoder's thread. After a failure it gives back the disk, and empties the queue, so that nobody waits."""
        shots = iter(self._queue.get, None)
        try:
            self._encode(shots, rate, tick)
        except BaseException as error:
            self._failure = error
            self._pending.discard()
            deque(shots, maxlen=0)

    def _encode(self, shots: Iterator[_Shot], rate: Fraction, tick: Fraction) -> None:
        import av

        first = next(shots, None)
        if first is None:
            return
        height, width = _even(first.pixels)
        with av.open(str(self._pending.path), "w") as container:
            stream = container.add_stream("libx264", rate=rate, options=OPTIONS)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = ITU709, 1
            stream.codec_context.time_base = tick
            pts, seen, most = -1, first.at, int(LONGEST_GAP_S / tick)
            for shot in _chain(first, shots):
                pts += min(max(1, shot.at - seen), most)  # onwards, though a driver's stamp may step back
                seen = max(seen, shot.at)
                container.mux(stream.encode(self._picture(shot, width, height, pts)))
                self._encoded += 1
            container.mux(stream.encode(None))

    def _picture(self, shot: _Shot, width: int, height: int, pts: int) -> av.VideoFrame:
        """The drawn picture in the encoder's size and format, `pts` ticks after the first."""
        import av

        even_h, even_w = _even(shot.pixels)
        frame = shot.pixels[:even_h, :even_w]
        pixels = np.ascontiguousarray(fit(frame, height, width, "letterbox"))
        shown = Placement.of(frame.shape[0], frame.shape[1], height, width, "letterbox")
        draw(pixels, shot.result, shot.age_ms, self._title, shown)
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=ITU709)
        picture.pts = pts
        self._spare.append(shot.pixels)
        return picture


def _even(pixels: Image) -> tuple[int, int]:
    """Height and width, rounded down to even numbers: the encoder halves the colours' size."""
    height, width = pixels.shape[:2]
    return max(2, height - height % 2), max(2, width - width % 2)


def _chain(first: _Shot, rest: Iterator[_Shot]) -> Iterator[_Shot]:
    yield first
    yield from rest
