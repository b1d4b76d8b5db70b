"""Pixels: the layout of a slot, the way through it, and the colours that come out."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.camera.child.gst_layout import colours, copies
from edge.camera.child.pyav import copy_rows, layout_of
from edge.camera.layout import FORMATS, Layout
from edge.camera.rgb import ToRgb

formats = st.sampled_from(sorted(FORMATS))
sides = st.integers(2, 70)


def noise(width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A picture as a decoder gives it, with whatever padding it likes."""
    frame = av.VideoFrame(width, height, pixel_format)
    random = np.random.default_rng(width * height)
    for plane in frame.planes:
        plane.update(random.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


def slot_with(frame: av.VideoFrame, layout: Layout) -> bytearray:
    slot = bytearray(layout.size)
    for plane, place in zip(frame.planes, layout.planes, strict=True):
        copy_rows(memoryview(plane), plane.line_size, memoryview(slot), place)
    return slot


@given(formats, sides, sides)
def test_planes_are_those_of_ffmpeg(pixel_format: str, width: int, height: int) -> None:
    frame = av.VideoFrame(width, height, pixel_format)
    layout = Layout(pixel_format, width, height)
    assert [plane.rows for plane in layout.planes] == [plane.height for plane in frame.planes]
    fits = [a.row_bytes <= b.line_size for a, b in zip(layout.planes, frame.planes, strict=True)]
    assert all(fits)
    ends = [plane.offset + plane.rows * plane.row_bytes for plane in layout.planes]
    assert [plane.offset for plane in layout.planes] == [0, *ends[:-1]]
    assert layout.size == ends[-1]


@settings(deadline=None)
@given(formats, sides, sides, st.sampled_from(["", "bt601", "bt709"]), st.booleans())
@example("yuv420p", 62, 46, "", False)
@example("yuv420p", 61, 48, "", False)
def test_way_through_the_ring_changes_no_pixel(
    pixel_format: str, width: int, height: int, matrix: str, full_range: bool
) -> None:
    frame = noise(width, height, pixel_format)
    layout = Layout(pixel_format, width, height, matrix, full_range)
    out = np.empty((height, width, 3), np.uint8)
    ToRgb(layout).into(memoryview(slot_with(frame, layout)), out)
    straight = VideoReformatter().reformat(
        frame if pixel_format != "nv12" else frame.reformat(format="yuv420p"),
        format="rgb24",
        src_colorspace=1 if matrix == "bt709" else 5,
        src_color_range=2 if full_range else 1,
        dst_color_range=2,
    )
    np.testing.assert_array_equal(out, straight.to_ndarray())


@pytest.mark.parametrize(("height", "assumed"), [(719, "bt601"), (720, "bt709")])
def test_colours_without_a_matrix_are_those_of_hd_from_720_rows_on(height: int, assumed: str) -> None:
    frame, found = noise(16, height, "yuv420p"), []
    for matrix in ("", assumed):
        layout = Layout("yuv420p", 16, height, matrix)
        found.append(np.empty((height, 16, 3), np.uint8))
        ToRgb(layout).into(memoryview(slot_with(frame, layout)), found[-1])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "yuv422p", "yuyv422"])
@pytest.mark.parametrize(("matrix", "full_range"), [("bt709", False), ("bt601", False), ("bt601", True)])
def test_known_colour_comes_out(pixel_format: str, matrix: str, full_range: bool) -> None:
    """Orange, made into YUV by the textbook's formula."""
    red, green, blue = 230.0, 120.0, 40.0
    k_red, k_blue = (0.2126, 0.0722) if matrix == "bt709" else (0.299, 0.114)
    luma = k_red * red + (1 - k_red - k_blue) * green + k_blue * blue
    of_blue, of_red = (blue - luma) / (2 - 2 * k_blue), (red - luma) / (2 - 2 * k_red)
    y, chroma = (luma, 1.0) if full_range else (16 + luma * 219 / 255, 224 / 255)
    samples = {"y": round(y), "u": round(128 + of_blue * chroma), "v": round(128 + of_red * chroma)}
    layout = Layout(pixel_format, 32, 16, matrix, full_range)
    order = {"nv12": ("y", "uv"), "yuyv422": ("yuyv",)}.get(pixel_format, ("y", "u", "v"))
    slot = bytearray()
    for signs, plane in zip(order, layout.planes, strict=True):
        one = bytes(samples[sign] for sign in signs)
        slot += one * (plane.rows * plane.row_bytes // len(one))
    out = np.empty((16, 32, 3), np.uint8)
    ToRgb(layout).into(memoryview(slot), out)
    np.testing.assert_allclose(out.reshape(-1, 3), [[red, green, blue]] * 512, atol=3)


@pytest.mark.parametrize(
    ("name", "height", "expected"),
    [
        ("yuvj420p", 48, Layout("yuv420p", 64, 48, "", True)),
        ("yuv420p", 48, Layout("yuv420p", 64, 48)),
        ("bgra", 48, Layout("bgra", 64, 48)),
    ],
)
def test_layout_of_a_decoded_picture(name: str, height: int, expected: Layout) -> None:
    assert layout_of(av.VideoFrame(64, height, name)) == expected


@pytest.mark.parametrize(
    ("colorimetry", "expected"),
    [
        ("bt709", ("bt709", False)),
        ("1:4:0:0", ("bt601", True)),
        ("2:3:5:1", ("bt709", False)),
        ("", ("", False)),
    ],
)
def test_colorimetry_of_gstreamer(colorimetry: str, expected: tuple[str, bool]) -> None:
    assert colours(colorimetry) == expected


@given(formats, sides, sides)
def test_padded_buffers_of_gstreamer_are_copied_into_place(
    pixel_format: str, width: int, height: int
) -> None:
    """Each row lands where the layout has it, none overlaps, and all bytes of the slot are written."""
    layout = Layout(pixel_format, width, height)
    size = layout.size + 8 * (height + 1) * 4
    if size == layout.size:
        return
    written = bytearray(layout.size)
    last = -1
    for copy in copies(layout, size):
        assert copy.source > last, "no byte is taken twice"
        last = copy.source + copy.size - 1
        for at in range(copy.target, copy.target + copy.size):
            written[at] += 1
    assert set(written) == {1}
    assert last < size
    with pytest.raises(ValueError, match="too small"):
        copies(layout, layout.size - 1)
