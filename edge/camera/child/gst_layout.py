"""GStreamer's words for pictures, in ours. Standard library only."""

from __future__ import annotations

from typing import Any, NamedTuple

from edge.camera.layout import Layout

FORMATS = {
    "I420": "yuv420p",
    "NV12": "nv12",
    "YUY2": "yuyv422",
    "UYVY": "uyvy422",
    "Y42B": "yuv422p",
    "Y444": "yuv444p",
    "GRAY8": "gray",
    "RGB": "rgb24",
    "BGR": "bgr24",
    "RGBA": "rgba",
    "RGBx": "rgba",
    "BGRA": "bgra",
    "BGRx": "bgra",
}

_NAMED = {"bt709": ("bt709", False), "bt601": ("bt601", False)}
_MATRICES = {"3": "bt709", "4": "bt601"}
_FULL = "1"
"""Of `range:matrix:transfer:primaries`, which is how a colorimetry without a name is written."""


class Copy(NamedTuple):
    """Bytes that go from a buffer into a slot: where from, where to, how many."""

    source: int
    target: int
    size: int


def layout_of_caps(structure: Any) -> Layout:
    """From the first structure of raw video caps, which has `get_value`."""
    matrix, full_range = colours(structure.get_value("colorimetry") or "")
    name = FORMATS[structure.get_value("format")]
    return Layout(name, structure.get_value("width"), structure.get_value("height"), matrix, full_range)


def colours(colorimetry: str) -> tuple[str, bool]:
    """Matrix ("" where it is not stated) and whether luma has its full range.

    >>> colours("bt709"), colours("1:4:0:0"), colours("2:3:5:1"), colours("")
    (('bt709', False), ('bt601', True), ('bt709', False), ('', False))
    """
    if colorimetry in _NAMED:
        return _NAMED[colorimetry]
    luma_range, _, rest = colorimetry.partition(":")
    return _MATRICES.get(rest.partition(":")[0], ""), luma_range == _FULL


def copies(layout: Layout, size: int) -> list[Copy]:
    """What to copy out of a buffer of `size` bytes: all at once, or row by row where rows are padded.

    GStreamer pads a row to a multiple of four bytes; chroma planes of 4:2:0 begin after an even number of
    rows. Raises ValueError for a buffer that is too small.
    """
    if size == layout.size:
        return [Copy(0, 0, size)]
    found, begin = [], 0
    for plane in layout.planes:
        stride = -(-plane.row_bytes // 4) * 4
        for row in range(plane.rows):
            found.append(Copy(begin + row * stride, plane.offset + row * plane.row_bytes, plane.row_bytes))
        begin += stride * (plane.rows + _added_rows(layout, plane.rows))
    if found[-1].source + found[-1].size > size:
        raise ValueError(f"a buffer of {size} bytes is too small for {layout}")
    return found


def _added_rows(layout: Layout, rows: int) -> int:
    """Luma of 4:2:0 is rounded up to an even number of rows."""
    return rows % 2 if layout.format in ("yuv420p", "nv12") and rows == layout.height else 0
