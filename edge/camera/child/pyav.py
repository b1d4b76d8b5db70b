"""The child that decodes with PyAV (FFmpeg): RTSP, HTTP and V4L2.

python -m edge.camera.child.pyav DESCRIPTOR, which its parent does; the address comes over the link.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Any

import av
import av.logging

from edge.camera.child.ring import RingWriter
from edge.camera.child.work import Failed, Request, Work
from edge.camera.layout import FORMATS, Layout, Plane

_BT709 = (1,)
_BT601 = (5, 6)
_FULL_RANGE = 2
_NO_TIMESTAMPS = 0x80
"""FFmpeg's numbers, of colour matrices, of the range of luma and of a format's flag."""

_INDEX_LAST = (
    "an MP4 from a server without byte ranges must begin with its index: ffmpeg -c copy -movflags +faststart"
)

_REMEMBERED = 64
"""Packets whose arrival is kept until their frame comes out of the decoder."""

_DRIVER_NS = 10_000_000_000
"""A driver's stamp that is older than this, or of the future, is not of the monotonic clock."""


def main() -> None:
    """Serve the parent."""
    av.logging.set_level(av.logging.PANIC)
    work = Work()
    work.run(lambda request, ring: _decode(work, request, ring))


def _decode(work: Work, request: Request, ring: RingWriter) -> None:
    """Connect, and capture until the stream ends."""
    timeout = (request["connect_s"], request["read_s"])
    late_s, is_connected = time.monotonic() + request["connect_s"], False
    try:
        with av.open(
            request["address"], format=request["format"], options=request["options"], timeout=timeout
        ) as container:
            if not container.streams.video:
                raise Failed("it has no video, only other streams", "permanent")
            stream, is_connected = container.streams.video[0], True
            stream.codec_context.thread_count = request["threads"]
            has_clock = _has_clock(container.format)
            # MPEG-TS states no rate; the H.264 in it may.
            rate = stream.average_rate or stream.codec_context.framerate or 0
            work.connected(float(rate) if has_clock else 0.0)
            for picture, capture_ns in _pictures(container, stream, request["driver_stamps"]):
                _capture(picture, capture_ns, picture.time if has_clock else None, ring)
    except av.FFmpegError as error:
        failed = _explained(error)
        if not is_connected and time.monotonic() >= late_s:  # of which FFmpeg says 'Invalid data', for RTSP
            failed = Failed(f"it did not answer within {request['connect_s']:g} s")
        if request["lossless"] and not ring.captured and _may_lack_its_index(error):
            failed = Failed(f"{failed} ({_INDEX_LAST})")
        raise failed from error


def _has_clock(container_format: av.ContainerFormat) -> bool:
    """Whether the stream bears timestamps; of JPEGs in a row (`mpjpeg`) FFmpeg makes them up, at 25 frames a second."""
    return not (container_format.flags & _NO_TIMESTAMPS or container_format.name.endswith("pipe"))


def _may_lack_its_index(error: av.FFmpegError) -> bool:
    """What FFmpeg says of a file that it cannot go back in, after it has read to its end or had no more time."""
    return isinstance(error, (av.error.InvalidDataError, av.error.ExitError)) or error.errno == errno.EIO


def _explained(error: av.FFmpegError) -> Failed:
    reason = error.strerror or type(error).__name__
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return Failed(f"the camera refuses the user or the password ({reason})", "permanent")
    if isinstance(error, av.error.HTTPNotFoundError):
        return Failed(f"the camera is there, and has no such stream ({reason}); look at the address's path")
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return Failed(reason, "absent")
    if isinstance(error, av.error.ExitError):
        return Failed("it did not answer in time")
    if error.errno == errno.EBUSY:
        return Failed("another program is using it (Device or resource busy)")
    kind = "permanent" if error.errno in (errno.EACCES, errno.EPERM) else "passing"
    return Failed(reason, kind)


def _pictures(container: Any, stream: Any, driver_stamps: bool) -> Iterator[tuple[av.VideoFrame, int]]:
    """The pictures that decode, each with the time its packet arrived, or the driver's stamp."""
    arrived: dict[int | None, int] = {}
    for packet in container.demux(stream):
        now_ns = time.monotonic_ns()
        arrived[packet.pts] = _driver_ns(packet, now_ns) if driver_stamps else now_ns
        if len(arrived) > _REMEMBERED:
            del arrived[next(iter(arrived))]
        try:
            for picture in stream.codec_context.decode(packet):
                if not picture.is_corrupt:
                    yield picture, arrived.pop(picture.pts, now_ns)
        except av.error.InvalidDataError:  # damaged on the way: the next key frame mends it
            continue


def _driver_ns(packet: Any, now_ns: int) -> int:
    """V4L2's own stamp of the buffer, if it is of the monotonic clock; else the time of its arrival."""
    if packet.pts is None or packet.time_base is None:
        return now_ns
    stamp_ns = int(packet.pts * packet.time_base * 1_000_000_000)
    return stamp_ns if 0 <= now_ns - stamp_ns < _DRIVER_NS else now_ns


def _capture(picture: av.VideoFrame, capture_ns: int, media_s: float | None, ring: RingWriter) -> None:
    """Copy the decoder's planes into a slot; `media_s` is the stream's own timestamp."""
    picture = _in_a_known_format(picture)
    layout = layout_of(picture)
    slot = ring.slot_for(layout)
    for plane, place in zip(picture.planes, layout.planes, strict=True):
        copy_rows(memoryview(plane), plane.line_size, slot, place)
    ring.publish(capture_ns, time.monotonic_ns(), None if media_s is None else round(media_s * 1e9))


def copy_rows(pixels: memoryview, stride: int, slot: memoryview, place: Plane) -> None:
    """One plane without the padding of its rows, which the usual sizes do not have.

    Row by row in Python where they do: half a millisecond at the most, while NumPy alone takes longer to import
    than all the rest, and a camera waits for it each time its decoder is replaced.
    """
    row_bytes, begin = place.row_bytes, place.offset
    if stride == row_bytes:
        slot[begin : begin + place.rows * row_bytes] = pixels[: place.rows * row_bytes]
        return
    for row in range(place.rows):
        to = begin + row * row_bytes
        slot[to : to + row_bytes] = pixels[row * stride : row * stride + row_bytes]


def _in_a_known_format(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture itself, or converted where its format has no place in the ring (10 bits, palettes)."""
    return picture if _base(picture.format.name) in FORMATS else picture.reformat(format="rgb24")


def _base(name: str) -> str:
    """FFmpeg's `yuvj420p` is `yuv420p` with the full range of luma."""
    return name.replace("yuvj", "yuv")


def layout_of(picture: av.VideoFrame) -> Layout:
    """Where and how a picture of one of `FORMATS` lies in a slot."""
    name = picture.format.name
    matrix = "bt709" if picture.colorspace in _BT709 else "bt601" if picture.colorspace in _BT601 else ""
    full_range = name.startswith("yuvj") or picture.color_range == _FULL_RANGE
    return Layout(_base(name), picture.width, picture.height, matrix, full_range)


if __name__ == "__main__":
    main()
