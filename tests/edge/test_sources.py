"""Sources: every frame once, in order, in RGB; and a clear word about what cannot be read."""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edge.errors import MissingPackageError, SourceError
from edge.frame import Frame
from edge.protocols import Source
from edge.sources import open_source

WIDTH, HEIGHT, FRAMES = 70, 46, 40  # rows of 210 bytes, which the decoder pads


def brightness_of(index: int) -> int:
    return 40 + 4 * index


def write_clip(path: Path, frames: int = FRAMES, rotate: bool = False) -> Path:
    """A clip whose left half is red-dominant, and whose green brightness tells the frame's index."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), brightness_of(index), np.uint8)
            pixels[:, : WIDTH // 2, 0] = 240
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def read_all(source: Source, into: list[Frame] | None = None) -> list[Frame]:
    """All frames, each with its own pixels."""
    frames = [] if into is None else into
    while source.read(frame := Frame()):
        frames.append(frame)
    return frames


def test_video_gives_every_frame_once_in_order_and_in_rgb(clip: Path) -> None:
    source = open_source(str(clip))
    info = source.open()
    assert (info.width, info.height, info.fps, info.frames) == (WIDTH, HEIGHT, 25.0, FRAMES)
    frames = read_all(source)
    source.close()
    source.close()
    assert [frame.index for frame in frames] == list(range(FRAMES))
    for frame in frames:
        assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
        right, left = frame.pixels[20, -12], frame.pixels[20, 8]
        np.testing.assert_allclose(right, brightness_of(frame.index), atol=4)
        np.testing.assert_allclose(left, [240, right[1], right[1]], atol=14)
        assert 0 < frame.stamps.capture <= frame.stamps.decode


def test_video_fills_the_frames_own_buffer(clip: Path) -> None:
    source, frame = open_source(str(clip)), Frame()
    source.open()
    source.read(frame)
    buffer = frame.pixels
    first = buffer.copy()
    source.read(frame)
    source.close()
    assert frame.pixels is buffer
    assert not np.array_equal(first, buffer)


def test_video_is_turned_as_the_file_says(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one, minus_one, zero, unit = (
        (0x10000).to_bytes(4, "big"),
        b"\xff\xff\x00\x00",
        bytes(4),
        b"\x40\x00\x00\x00",
    )
    # A phone held upright: the display matrix turns the picture a quarter clockwise.
    content[matrix : matrix + 36] = zero + one + zero + minus_one + zero * 4 + unit
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    source = open_source(str(turned))
    info = source.open()
    frames = read_all(source)
    source.close()
    assert (info.width, info.height) == (HEIGHT, WIDTH)
    red, grey = frames[0].pixels[8, 20], frames[0].pixels[-12, 20]
    assert red[0] > 200 > 100 > grey[0], "the left half has become the upper one"


@pytest.mark.parametrize(("suffix", "part"), [(".mp4", 0.6), (".mp4", 0.8), (".mkv", 0.4), (".mkv", 0.6)])
def test_truncated_video_gives_what_decodes_and_then_says_so(
    clip: Path, tmp_path: Path, suffix: str, part: float
) -> None:
    whole = clip if suffix == ".mp4" else write_clip(tmp_path / "whole.mkv")
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(len(content) * part)])
    source = open_source(str(cut))
    source.open()
    frames: list[Frame] = []
    with pytest.raises(SourceError, match="cut short or damaged") as caught:
        read_all(source, into=frames)
    source.close()
    assert 0 < len(frames) < FRAMES
    assert f" {len(frames)} " in str(caught.value)


def test_truncated_between_two_packets_is_noticed_too(clip: Path, tmp_path: Path) -> None:
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: packets[30].pos])
    source = open_source(str(cut))
    source.open()
    with pytest.raises(SourceError, match=f"of {FRAMES} frames"):
        read_all(source)
    source.close()


def test_whole_matroska_without_a_frame_count_is_no_error(tmp_path: Path) -> None:
    source = open_source(str(write_clip(tmp_path / "whole.mkv")))
    assert source.open().frames == 0
    assert len(read_all(source)) == FRAMES
    source.close()


def test_video_without_its_index_or_its_frames(clip: Path, tmp_path: Path) -> None:
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(clip.read_bytes()[:600])
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_source(str(headless)).open()
    text = tmp_path / "notes.txt"
    text.write_text("a shopping list")
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_source(str(text)).open()


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        tone.sample_rate = 8000
        container.mux(stream.encode(tone))
    with pytest.raises(SourceError, match="no video stream"):
        open_source(str(path)).open()


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures of different colours and sizes, and a file that is none."""
    colours = {"c_blue.png": (255, 0, 0), "a_red.png": (0, 0, 255), "b_green.jpg": (0, 255, 0)}
    for number, (name, bgr) in enumerate(colours.items()):
        cv2.imwrite(str(tmp_path / name), np.full((20 + number, 30, 3), bgr, np.uint8))
    (tmp_path / "readme.txt").write_text("not a picture")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "*.*g"])
def test_images_come_sorted_by_name_in_rgb(album: Path, pattern: str) -> None:
    source = open_source(str(album / pattern))
    info = source.open()
    assert (info.frames, info.fps, info.width) == (3, 0.0, 0)
    frames = read_all(source)
    source.close()
    assert [(frame.index, frame.name) for frame in frames] == [
        (0, "a_red.png"),
        (1, "b_green.jpg"),
        (2, "c_blue.png"),
    ]
    assert [int(frame.pixels[5, 5].argmax()) for frame in frames] == [0, 1, 2]


def test_one_image_knows_its_size(album: Path) -> None:
    source = open_source(str(album / "a_red.png"))
    info = source.open()
    assert (info.width, info.height, info.frames) == (30, 21, 1)
    assert len(read_all(source)) == 1


def test_each_frame_has_its_own_picture_in_rgb_whatever_the_file_holds(tmp_path: Path) -> None:
    grey = np.full((6, 9), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "a_grey.png"), grey)
    cv2.imwrite(str(tmp_path / "b_grey16.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "c_alpha.png"), np.full((6, 9, 4), (10, 20, 30, 128), np.uint8))
    source = open_source(str(tmp_path))
    source.open()
    frames = read_all(source)
    source.close()
    assert [frame.pixels.shape for frame in frames] == [(6, 9, 3)] * 3
    assert [frame.pixels[0, 0].tolist() for frame in frames] == [[77] * 3, [77] * 3, [30, 20, 10]]


def test_an_image_too_large_for_the_memory_is_named(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise cv2.error("Failed to allocate 3000000000 bytes")

    monkeypatch.setattr(cv2, "imdecode", no_memory)
    with pytest.raises(SourceError, match=r"a_red\.png cannot be decoded: .*Make it smaller"):
        open_source(str(album)).open()


def test_damaged_image_is_named(album: Path) -> None:
    whole = (album / "b_green.jpg").read_bytes()
    (album / "b_green.jpg").write_bytes(whole[:20])
    source, frame = open_source(str(album)), Frame()
    source.open()
    assert source.read(frame)
    with pytest.raises(SourceError, match=r"b_green\.jpg is not an image"):
        source.read(frame)


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="is not an image"):
        open_source(str(path)).open()


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(SourceError, match="holds no images"):
        open_source(str(tmp_path)).open()
    with pytest.raises(SourceError, match="holds no images"):
        open_source(str(tmp_path / "*.jpg")).open()


@pytest.mark.parametrize(
    ("uri", "message"), [("ftp://host/a.mp4", "Unknown kind"), ("gone.mp4", "No such source")]
)
def test_unknown_sources(uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(uri)


def test_demo_depends_on_the_index_alone_and_moves_smoothly() -> None:
    uri = "demo://?frames=8&width=320&height=180&fps=2"
    first, second = open_source(uri), open_source(uri)
    info = first.open()
    second.open()
    assert (info.width, info.height, info.fps, info.frames) == (320, 180, 2.0, 8)
    frames, again = read_all(first), read_all(second)
    assert len(frames) == 8
    for one, other in zip(frames, again, strict=True):
        assert one.pixels.shape == (180, 320, 3)
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert all((one.pixels != other.pixels).any() for one, other in pairwise(frames))


def test_demo_has_no_jump_between_two_photographs() -> None:
    source = open_source("demo://?frames=150&width=160&height=90&fps=30")
    source.open()
    frames = read_all(source)
    source.close()
    steps = [np.abs(one.pixels.astype(int) - other.pixels).mean() for one, other in pairwise(frames)]
    assert frames[0].pixels.std() > 20
    assert np.abs(frames[0].pixels.astype(int) - frames[149].pixels).mean() > 30, "the photograph has changed"
    assert max(steps) < 8, "no cut: a fade spreads over many frames"


@pytest.mark.parametrize("query", ["frames=many", "speed=2", "width=4", "fps=0"])
def test_demo_refuses_unknown_options(query: str) -> None:
    with pytest.raises(SourceError, match="is not an option of demo://"):
        open_source(f"demo://?{query}")


def test_demo_without_scikit_image_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    with pytest.raises(MissingPackageError, match=r"'\.\[demo\]'"):
        open_source("demo://").open()
