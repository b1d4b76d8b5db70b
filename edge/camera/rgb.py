"""From a slot of the ring to RGB: the one conversion on the way, by FFmpeg's swscale on one thread."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.camera.layout import Layout
from edge.pixels import Image

if TYPE_CHECKING:
    import av

HD_HEIGHT = 720
"""From this height on, video without a stated colour matrix is BT.709, as players assume; else BT.601."""

_MATRICES = {"bt709": 1, "bt601": 5}
_LIMITED, _FULL = 1, 2
"""swscale's and FFmpeg's numbers."""


class ToRgb:
    """Converts the pictures of one ring."""

    def __init__(self, layout: Layout) -> None:
        from av import __version__
        from av.video.reformatter import VideoReformatter

        self._layout = layout
        assumed = "bt709" if layout.height >= HD_HEIGHT else "bt601"
        options: dict[str, Any] = {
            "format": "rgb24",
            "src_colorspace": _MATRICES[layout.matrix or assumed],
            "src_color_range": _FULL if layout.full_range else _LIMITED,
            "dst_color_range": _FULL,
        }
        if int(__version__.partition(".")[0]) >= 17:
            options["threads"] = 1  # from then on it takes all cores unless told not to
        self._convert: Any = functools.partial(VideoReformatter().reformat, **options)
        self._own: av.VideoFrame | None = None

    def into(self, slot: memoryview, out: Image) -> None:
        """Convert the bytes of a slot into `out`, uint8 (height, width, 3)."""
        rgb = self._convert(self._lent(slot))
        plane: Any = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
        np.copyto(out, rows[:, : rgb.width * 3].reshape(out.shape))

    def _lent(self, slot: memoryview) -> av.VideoFrame:
        """The slot as FFmpeg's frame: without a copy for what PyAV takes so, else with one."""
        import av

        layout, pixels = self._layout, np.frombuffer(slot, np.uint8)
        shape = _lendable(layout)
        if shape is not None:
            return av.VideoFrame.from_numpy_buffer(pixels.reshape(shape), layout.format)
        parts = [pixels[p.offset :][: p.rows * p.row_bytes].reshape(p.rows, -1) for p in layout.planes]
        name = layout.format
        if name == "nv12":
            name, parts = "yuv420p", [parts[0], parts[1][:, 0::2], parts[1][:, 1::2]]
        self._own = self._own or av.VideoFrame(layout.width, layout.height, name)
        planes: Any = self._own.planes
        for plane, part in zip(planes, parts, strict=True):
            rows = np.frombuffer(plane, np.uint8)[: part.shape[0] * plane.line_size]
            np.copyto(rows.reshape(-1, plane.line_size)[:, : part.shape[1]], part)
        return self._own


def _lendable(layout: Layout) -> tuple[int, ...] | None:
    """The shape in which PyAV takes such a picture without a copy; None where it does not.

    NV12 it would take too, but swscale needs 2.4 ms for 1280x720 then, and 0.4 ms for planes of their own.
    """
    height, width = layout.height, layout.width
    if layout.format == "yuv420p":  # PyAV takes the height for a multiple of four
        return None if height % 4 or width % 2 else (height * 3 // 2, width)
    if layout.format == "gray":
        return height, width
    samples = {"rgb24": 3, "bgr24": 3, "rgba": 4, "bgra": 4}.get(layout.format)
    return (height, width, samples) if samples else None
