"""How a picture lies in a slot of the ring: plane after plane, row after row, without padding.

Standard library only: the GStreamer child imports it under the system's Python.
"""

from __future__ import annotations

from typing import NamedTuple

FORMATS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "yuv420p": ((1, 1, 1), (2, 2, 1), (2, 2, 1)),
    "nv12": ((1, 1, 1), (2, 2, 2)),
    "yuv422p": ((1, 1, 1), (2, 1, 1), (2, 1, 1)),
    "yuv444p": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "yuyv422": ((2, 1, 4),),
    "uyvy422": ((2, 1, 4),),
    "gray": ((1, 1, 1),),
    "rgb24": ((1, 1, 3),),
    "bgr24": ((1, 1, 3),),
    "rgba": ((1, 1, 4),),
    "bgra": ((1, 1, 4),),
}
"""The pixel formats that a slot may have, by FFmpeg's names; of each plane: pixels of a row that share one
sample, rows that share one, bytes of a sample."""

LARGEST = 16_384
"""Pixels of a side; more is no camera but a broken header."""


class Plane(NamedTuple):
    """Where a plane lies in its slot: bytes."""

    offset: int
    rows: int
    row_bytes: int


class Layout(NamedTuple):
    """The pictures of one ring.

    Attributes:
        format: one of `FORMATS`.
        width, height: pixels.
        matrix: of the colours: "bt709", "bt601", or empty where the stream states none.
        full_range: luma from 0 to 255, as JPEG has it, instead of 16 to 235.
    """

    format: str
    width: int
    height: int
    matrix: str = ""
    full_range: bool = False

    @classmethod
    def checked(cls, **fields: object) -> Layout:
        """From what a child says; raises ValueError for what cannot be a picture."""
        layout = cls(**fields)  # type: ignore[arg-type]
        sides_fit = all(type(side) is int and 0 < side <= LARGEST for side in (layout.width, layout.height))
        if layout.format not in FORMATS or not sides_fit:
            raise ValueError(f"no picture: {layout}")
        return layout

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The planes of a slot, in order."""
        planes, offset = [], 0
        for shared_x, shared_y, sample_bytes in FORMATS[self.format]:
            plane = Plane(offset, -(-self.height // shared_y), -(-self.width // shared_x) * sample_bytes)
            planes.append(plane)
            offset += plane.rows * plane.row_bytes
        return tuple(planes)

    @property
    def size(self) -> int:
        """Bytes of a picture."""
        last = self.planes[-1]
        return last.offset + last.rows * last.row_bytes
