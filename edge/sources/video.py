"""A video file, decoded by PyAV (FFmpeg) on one thread, at most one copy after the decoder's buffer."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import SourceError
from edge.frame import Frame
from edge.pixels import Image
from edge.protocols import SourceInfo

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

HD_HEIGHT = 720
"""From this height on, video without a stated colour matrix is BT.709, as players assume; else BT.601."""

DURATION_SLACK_S = 0.5
"""How much earlier than its stated duration a whole file without a frame count may end."""

ITU709, ITU601 = 1, 5
"""swscale's numbers of the colour matrices."""


class VideoSource:
    """Every frame of a file's first video stream, in order, as RGB, turned as the file says.

    Args:
        uri: the file.
        decode_threads: FFmpeg's threads for this stream; more add latency, one frame each.
    """

    def __init__(self, uri: str, decode_threads: int = 1) -> None:
        self._uri = uri
        self._decode_threads = decode_threads
        self._container: InputContainer | None = None
        self._pictures: Iterator[av.VideoFrame] = iter(())
        self._waiting: av.VideoFrame | None = None
        self._to_rgb: Any = None
        self._expected = 0
        self._fps = 0.0
        self._index = 0
        self._damaged = 0
        self._reached_s = 0.0

    def open(self) -> SourceInfo:
        """Open the file and decode its first frame, so that a file without any is found out here.

        Raises:
            SourceError: no such file, not a video, or no frame that can be decoded.
        """
        import av

        try:
            self._container = av.open(self._uri)
        except (av.FFmpegError, OSError) as error:
            raise SourceError(_not_a_video(self._uri, error)) from error
        stream = self._first_stream(self._container)
        self._to_rgb = _reformat_on_one_thread()
        self._pictures = self._decode(self._container, stream)
        self._index, self._damaged, self._reached_s = 0, 0, 0.0
        self._waiting = next(self._pictures, None)
        if self._waiting is None:
            raise SourceError(f"{self._uri} holds no frame that can be decoded. Record or copy it anew.")
        return self._info(stream, self._waiting)

    def read(self, frame: Frame) -> bool:
        """Fill `frame` with the next picture; False at the end of a whole file.

        Capture is the moment of this call. The first frame's decoding was done by `open`.

        Raises:
            SourceError: the file ended early or parts were damaged; all that decodes came before.
        """
        frame.stamps.mark("capture")
        picture = self._waiting or next(self._pictures, None)
        self._waiting = None
        if picture is None:
            self._complain_if_truncated()
            return False
        self._copy(picture, frame)
        frame.index, frame.name, frame.capture_clock = self._index, "", "file"
        self._index += 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None:
        """Close the file."""
        self._pictures, self._waiting = iter(()), None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _first_stream(self, container: InputContainer) -> VideoStream:
        if not container.streams.video:
            raise SourceError(f"{self._uri} has no video stream. Expected a video file.")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = self._decode_threads
        self._expected = stream.frames
        return stream

    def _info(self, stream: VideoStream, picture: av.VideoFrame) -> SourceInfo:
        width, height = picture.width, picture.height
        if picture.rotation % 180:
            width, height = height, width
        self._fps = float(stream.average_rate or stream.guessed_rate or 0)
        return SourceInfo(self._uri, width, height, self._fps, self._expected, "file")

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """The frames that decode; damaged packets are counted and passed over."""
        import av

        for packet in self._demux(container):
            if packet is not None and packet.stream_index != stream.index:
                continue
            try:
                yield from stream.codec_context.decode(packet)
            except av.EOFError:
                return
            except av.FFmpegError:
                self._damaged += 1

    def _demux(self, container: InputContainer) -> Iterator[av.Packet[Any] | None]:
        """The packets of all streams, then None once, which makes the decoder give its last frames.

        All streams, because the time that the longest one reached tells whether the file was cut.
        """
        import av

        try:
            for packet in container.demux():
                if packet.size:
                    self._reached_s = max(self._reached_s, _end_s(packet))
                    yield packet
        except (av.FFmpegError, OSError):
            self._damaged += 1
        yield None

    def _copy(self, picture: av.VideoFrame, frame: Frame) -> None:
        """Convert to RGB and copy the rows, without the padding of each, into the frame's buffer.

        PyAV allocates the converted picture anew each time. Given back at once, its memory is there for the next
        one; lent to the frame instead of being copied, it was faulted in for nearly every picture, which took
        longer than the copy (1280x720: 143,000 page faults in 300 frames against 13,000).
        """
        rgb = self._to_rgb(picture, format="rgb24", src_colorspace=_matrix(picture))
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
        pixels: Image = rows[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)
        if picture.rotation:
            pixels = np.rot90(pixels, picture.rotation // 90)
        np.copyto(frame.buffer(*pixels.shape[:2]), pixels)

    def _complain_if_truncated(self) -> None:
        if self._damaged or self._ended_early():
            of = f" of {self._expected}" if self._expected else ""
            raise SourceError(
                f"{self._uri} is cut short or damaged: {self._index}{of} frames could be decoded. "
                "Their results are complete. Record or copy the file anew."
            )

    def _ended_early(self) -> bool:
        """Less came than the header's duration says.

        Fewer frames than the index counts is not enough: an edit list may leave some out.
        """
        duration = self._container.duration if self._container else None
        if duration is None or self._container is None or 0 < self._expected <= self._index:
            return False
        end_s = (max(0, self._container.start_time or 0) + duration) / 1e6
        slack_s = 1.5 / self._fps if self._expected and self._fps else DURATION_SLACK_S
        return self._reached_s < end_s - slack_s


def _reformat_on_one_thread() -> Any:
    """PyAV's conversion of pixel formats; from version 17 on it takes all cores unless told not to."""
    import av
    from av.video.reformatter import VideoReformatter

    reformat = VideoReformatter().reformat
    many = int(av.__version__.partition(".")[0]) >= 17
    return functools.partial(reformat, threads=1) if many else reformat


def _end_s(packet: av.Packet[Any]) -> float:
    """When the packet's picture or sound ends, in seconds of the file."""
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _matrix(picture: av.VideoFrame) -> int | None:
    """The colour matrix to assume where the video states none (2 is 'unspecified')."""
    if picture.colorspace != 2:
        return None
    return ITU709 if picture.height >= HD_HEIGHT else ITU601


def _not_a_video(uri: str, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"{uri} cannot be read as a video: {reason}. Expected a video file that FFmpeg knows; "
        "it is of another kind, or was cut short before its index was written."
    )
