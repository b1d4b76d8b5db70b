"""The child that decodes with GStreamer: CSI cameras, hardware decoders, any pipeline.

It is run as a script, `python3 .../gstreamer.py DESCRIPTOR`, by the interpreter that has PyGObject: the
system's, as there is no wheel of it. So it imports the standard library, `gi`, and of this project what needs
nothing else. The pipeline comes over the link.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[3])
sys.path.append(_ROOT)  # and away again below: the packages that lie there are of another Python
from edge.camera.child.gst_layout import Copy, copies, layout_of_caps  # noqa: E402
from edge.camera.child.ring import RingWriter  # noqa: E402
from edge.camera.child.work import Failed, Request, Work  # noqa: E402
from edge.camera.layout import Layout  # noqa: E402
from edge.camera.link import TO_MEMORY  # noqa: E402

sys.path.remove(_ROOT)

SINK = "sightline"
POLL_NS = 100_000_000
GRACE_S = 0.35
"""For the pipeline's own good-bye: Argus is wedged by a client that just vanishes."""

FRESH_NS = 2_000_000_000
"""A buffer's stamp that is older than this is not the clock's."""

_CAPS = "video/x-raw,format=(string){I420,NV12,YUY2,UYVY,Y42B,Y444,GRAY8,RGB,BGR,RGBA,BGRA,RGBx,BGRx}"


def main() -> None:
    """Serve the parent."""
    stopping = threading.Event()
    work = Work(lambda: _end_soon(stopping))
    work.run(lambda request, ring: _decode(work, request, ring, stopping))


def _end_soon(stopping: threading.Event) -> None:
    stopping.set()
    time.sleep(GRACE_S)
    os._exit(0)


def _gst() -> Any:
    try:
        importlib.import_module("gi").require_version("Gst", "1.0")
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError) as error:
        raise Failed(
            f"{sys.executable} has no GStreamer for Python ({error}). "
            "Install it with: sudo apt install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base",
            "permanent",
        ) from error
    gst.init(None)
    return gst


def _decode(work: Work, request: Request, ring: RingWriter, stopping: threading.Event) -> None:
    """Run the pipeline until its stream ends, it fails, or the parent wants no more."""
    gst = _gst()
    pipeline = _pipeline(gst, request)
    try:
        sink = pipeline.get_by_name(SINK)
        is_live = _start(gst, pipeline, sink)
        stamps = _Stamps(gst, pipeline, request["driver_stamps"] and is_live)
        pull = _Pull(gst, pipeline, sink)
        sample = pull.first()
        if sample is None:
            return
        work.connected(_fps(sample.get_caps()))
        while sample is not None and not stopping.is_set():
            _capture(sample, stamps, ring)
            sample = pull.next(stopping)
    finally:
        pipeline.set_state(gst.State.NULL)


def _pipeline(gst: Any, request: Request) -> Any:
    """The pipeline with our sink at its end; what is secret is set as a property and never parsed."""
    to_memory = "nvvidconv ! video/x-raw" if gst.ElementFactory.find("nvvidconv") else "identity"
    text = request["pipeline"].replace(TO_MEMORY, to_memory)
    end = f"videoconvert ! {_CAPS} ! appsink name={SINK} max-buffers=2"
    try:
        pipeline = gst.parse_launch(f"{text} ! {end}")
    except Exception as error:  # GLib.Error, which cannot be named before gi is there
        reason = getattr(error, "message", None) or str(error)
        hint = (
            ", which comes with JetPack (package nvidia-l4t-gstreamer)" if 'no element "nv' in reason else ""
        )
        raise Failed(f"GStreamer cannot build this pipeline: {reason}{hint}", "permanent") from error
    for name, properties in request["properties"].items():
        element = pipeline.get_by_name(name)
        for key, value in properties.items():
            element.set_property(key, value)
    return pipeline


def _start(gst: Any, pipeline: Any, sink: Any) -> bool:
    """Play; whether it is live: what is not is held back to its own pace."""
    change = pipeline.set_state(gst.State.PAUSED)
    is_live = bool(change == gst.StateChangeReturn.NO_PREROLL)
    sink.set_property("sync", not is_live)
    if pipeline.set_state(gst.State.PLAYING) == gst.StateChangeReturn.FAILURE:
        raise _error(gst, pipeline, "the pipeline does not start")
    return is_live


class _Pull:
    """Takes samples out of the sink."""

    def __init__(self, gst: Any, pipeline: Any, sink: Any) -> None:
        self._gst, self._pipeline, self._sink = gst, pipeline, sink

    def first(self) -> Any:
        """The first sample, or None at the end; raises Failed. Waits as long as the parent lets it."""
        return self.next(threading.Event())

    def next(self, stopping: threading.Event) -> Any:
        """The next sample; None at the end, or when there is to be no more."""
        gst, bus = self._gst, self._pipeline.get_bus()
        while not stopping.is_set():
            sample = self._sink.emit("try-pull-sample", POLL_NS)
            if sample is not None:
                return sample
            message = bus.pop_filtered(gst.MessageType.ERROR)
            if message is not None:
                raise _failed(*message.parse_error())
            if self._sink.get_property("eos"):
                return None
        return None


def _error(gst: Any, pipeline: Any, otherwise: str) -> Failed:
    message = pipeline.get_bus().timed_pop_filtered(POLL_NS, gst.MessageType.ERROR)
    return Failed(otherwise) if message is None else _failed(*message.parse_error())


def _failed(error: Any, details: str | None) -> Failed:
    """GStreamer's error; its details end with the line that says what really happened."""
    last = (details or "").strip().splitlines()[-1:]
    reason = ": ".join([error.message.rstrip("."), *last])
    kind = "permanent" if "nauthorized" in reason or "not-negotiated" in reason else "passing"
    return Failed(reason, kind)


def _fps(caps: Any) -> float:
    ok, numerator, denominator = caps.get_structure(0).get_fraction("framerate")
    return numerator / denominator if ok and denominator else 0.0


class _Stamps:
    """When a buffer was captured, on the monotonic clock.

    A live pipeline stamps buffers with its clock's time, less that of its start. Where its clock is the
    monotonic one, and the source stamps by the driver, this is the driver's stamp.
    """

    def __init__(self, gst: Any, pipeline: Any, from_driver: bool) -> None:
        clock = pipeline.get_clock()
        is_monotonic = isinstance(clock, gst.SystemClock) and (
            clock.get_property("clock-type") == gst.ClockType.MONOTONIC
        )
        self._base_ns = pipeline.get_base_time() if from_driver and is_monotonic else None
        self._none = gst.CLOCK_TIME_NONE

    def of(self, buffer: Any) -> tuple[int, int | None]:
        """Capture, and the stream's own timestamp, in nanoseconds."""
        now_ns = time.monotonic_ns()
        if buffer.pts == self._none:
            return now_ns, None
        if self._base_ns is not None and 0 <= now_ns - self._base_ns - buffer.pts < FRESH_NS:
            return self._base_ns + buffer.pts, buffer.pts
        return now_ns, buffer.pts


def _capture(sample: Any, stamps: _Stamps, ring: RingWriter) -> None:
    """Copy a sample's pixels into a slot: one copy, straight from GStreamer's memory."""
    buffer = sample.get_buffer()
    capture_ns, media_ns = stamps.of(buffer)
    layout = layout_of_caps(sample.get_caps().get_structure(0))
    _extract(buffer, layout, ring.slot_for(layout))
    ring.publish(capture_ns, time.monotonic_ns(), media_ns)


def _extract(buffer: Any, layout: Layout, slot: memoryview) -> None:
    size = buffer.get_size()
    target = ctypes.addressof(ctypes.c_char.from_buffer(slot))
    for copy in copies(layout, size):
        _copy(buffer, copy, target)


def _copy(buffer: Any, copy: Copy, target: int) -> None:
    """`gst_buffer_extract` into our memory. The hash of a boxed object of PyGObject is its address."""
    _LIBRARY.gst_buffer_extract(hash(buffer), copy.source, target + copy.target, copy.size)


_LIBRARY = ctypes.CDLL("libgstreamer-1.0.so.0")
_LIBRARY.gst_buffer_extract.restype = ctypes.c_size_t
_LIBRARY.gst_buffer_extract.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)


if __name__ == "__main__":
    main()
