"""`sightline predict`: its lines, and pictures of every kind."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from daemon_stage import Camera

Command = Callable[..., Any]
RED, GREY = (0, 0, 255), 90  # BGR
BOX = (80, 80, 320, 320)
"""What the detector of `conftest` draws around the marker of `marked`, in pixels."""


def marked(height: int = 480, width: int = 640) -> Any:
    """BGR, with one red square that makes one cell of the detector's input pure red."""
    picture = np.full((height, width, 3), GREY, np.uint8)
    picture[160:240, 160:240] = RED
    return picture


def predict(
    command: Command, bundle: Path, source: Path, tmp_path: Path, *options: str
) -> list[dict[str, Any]]:
    results = tmp_path / "results.jsonl"
    ended = command("predict", bundle, source, "--jsonl", results, *options)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_a_detectors_line(command: Command, faces_bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), marked())
    (line,) = predict(command, faces_bundle, tmp_path / "one.png", tmp_path)
    assert list(line) == ["image", "width", "height", "boxes"]
    assert (line["image"], line["width"], line["height"]) == ("one.png", 640, 480)
    ((*box, score),) = line["boxes"]
    assert box == pytest.approx(BOX, abs=0.1)
    assert 0.99 < score <= 1


def test_a_classifiers_line(command: Command, colour_bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), marked())
    (line,) = predict(command, colour_bundle, tmp_path / "one.png", tmp_path)
    assert list(line) == ["image", "scores"]
    assert sum(line["scores"]) == pytest.approx(1, abs=1e-5)


def test_pictures_of_several_folders_keep_names_that_tell_them_apart(
    command: Command, colour_bundle: Path, tmp_path: Path
) -> None:
    for folder in ("cats", "dogs"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "0.png"), marked())
    (tmp_path / "dogs" / "._0.png").write_bytes(b"what another system leaves beside a picture")

    def names(source: Path) -> list[str]:
        return [line["image"] for line in predict(command, colour_bundle, source, tmp_path)]

    assert names(tmp_path / "*" / "*.png") == ["cats/0.png", "dogs/0.png"]
    assert names(tmp_path / "**" / "*.png") == ["cats/0.png", "dogs/0.png"]
    assert names(tmp_path / "dogs" / "*.png") == ["0.png"]
    assert names(tmp_path / "dogs") == ["0.png"]


def test_what_has_no_end_is_refused(command: Command, colour_bundle: Path, tmp_path: Path) -> None:
    ended = command("predict", colour_bundle, "demo://", "--jsonl", tmp_path / "r.jsonl")
    assert (ended.code, "demo:// has no end" in ended.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_camera_is_refused_and_closed_again(
    command: Command, colour_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Camera(fails_after=3)
    monkeypatch.setattr("edge.predict.open_source", lambda uri: endless)
    ended = command("predict", colour_bundle, "rtsp://me:hunter22@door/", "--jsonl", tmp_path / "r.jsonl")
    assert (ended.code, "test camera has no end" in ended.err) == (2, True), ended.err
    assert "sightline run" in ended.err
    assert "hunter22" not in ended.err
    assert (endless.closed.is_set(), list(tmp_path.iterdir())) == (True, [])


def test_video_that_does_not_say_how_many_frames_it_has(
    command: Command, colour_bundle: Path, tmp_path: Path
) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        for _ in range(5):
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert len(predict(command, colour_bundle, tmp_path / "clip.mkv", tmp_path)) == 5


def test_the_threshold_decides_what_is_a_face(command: Command, faces_bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), marked())
    for threshold, found in (("0.0", 64), ("0.5", 1), ("1.0", 0)):
        (line,) = predict(
            command, faces_bundle, tmp_path / "one.png", tmp_path, "--score-threshold", threshold
        )  # fmt: skip
        assert 0 <= len(line["boxes"]) <= found
        assert len(line["boxes"]) > 0 or found == 0


@pytest.mark.parametrize("threshold", ["1.5", "-0.1", "high", "nan"])
def test_thresholds_that_are_none(
    command: Command, faces_bundle: Path, tmp_path: Path, threshold: str
) -> None:
    ended = command(
        "predict", faces_bundle, tmp_path, "--jsonl", tmp_path / "x", "--score-threshold", threshold
    )
    assert ended.code == 2
    assert "threshold" in ended.err
    assert "Traceback" not in ended.err


def test_a_classifier_has_no_threshold(command: Command, colour_bundle: Path, tmp_path: Path) -> None:
    ended = command("predict", colour_bundle, tmp_path, "--jsonl", tmp_path / "x", "--score-threshold", "0.5")
    assert ended.code == 2
    assert "A score threshold is for detectors, and mean-colour is a model for classification" in ended.err


def exif(jpeg: bytes, orientation: int) -> bytes:
    """The same file with the tag that says how the camera was held."""
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + tag + bytes(4)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


TURN_BACK = {
    1: lambda upright: upright,
    3: lambda upright: cv2.rotate(upright, cv2.ROTATE_180),
    6: lambda upright: cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE),
    8: lambda upright: cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE),
}


def odd_pictures(folder: Path) -> None:
    """The marked picture in many forms, and pictures of extreme shapes."""
    folder.mkdir()
    upright = marked()
    for orientation, turn in TURN_BACK.items():
        jpeg = cv2.imencode(".jpg", turn(upright), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        (folder / f"marked-exif{orientation}.jpg").write_bytes(exif(jpeg, orientation))
    alpha = np.full((480, 640, 1), 40, np.uint8)
    cv2.imwrite(str(folder / "marked-rgba.png"), np.concatenate([upright, alpha], axis=2))
    cv2.imwrite(str(folder / "marked-16bit.png"), upright.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "plain-grey.png"), upright[:, :, 0])
    cv2.imwrite(str(folder / "plain-grey16.png"), upright[:, :, 0].astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "plain-pixel.png"), np.full((1, 1, 3), GREY, np.uint8))
    cv2.imwrite(str(folder / "plain-line.png"), np.full((1, 4000, 3), GREY, np.uint8))
    cv2.imwrite(str(folder / "plain-pole.jpg"), np.full((4000, 1, 3), GREY, np.uint8))


def test_pictures_of_every_kind(command: Command, faces_bundle: Path, tmp_path: Path) -> None:
    odd_pictures(tmp_path / "album")
    lines = {line["image"]: line for line in predict(command, faces_bundle, tmp_path / "album", tmp_path)}
    assert len(lines) == 11
    for name, line in lines.items():
        if name.startswith("marked"):
            assert (line["width"], line["height"]) == (640, 480), name
            ((*box, _),) = line["boxes"]
            assert box == pytest.approx(BOX, abs=0.1), name
        else:
            assert line["boxes"] == [], name
    assert (lines["plain-pixel.png"]["width"], lines["plain-pixel.png"]["height"]) == (1, 1)
    assert (lines["plain-pole.jpg"]["width"], lines["plain-pole.jpg"]["height"]) == (1, 4000)


def test_one_red_pixel_is_a_picture_too(command: Command, faces_bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "pixel.png"), np.full((1, 1, 3), RED, np.uint8))
    (line,) = predict(command, faces_bundle, tmp_path / "pixel.png", tmp_path)
    for x0, y0, x1, y1, _ in line["boxes"]:
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1


def png_header(side: int) -> bytes:
    """A grey PNG that promises side x side pixels and holds a few rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side + 1) * 3)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_beyond_the_decoders_limit_is_refused(
    command: Command, faces_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "huge.png").write_bytes(png_header(40_000))
    ended = command("predict", faces_bundle, tmp_path / "huge.png", "--jsonl", tmp_path / "out.jsonl")
    assert ended.code == 2
    assert "huge.png cannot be decoded" in ended.err
    assert "at most 2^30 pixels" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.slow  # it takes 2.4 GB
def test_a_picture_of_400_million_pixels(command: Command, faces_bundle: Path, tmp_path: Path) -> None:
    picture = np.full((20_000, 20_000, 3), GREY, np.uint8)
    picture[5000:7500, 5000:7500] = RED
    cv2.imwrite(str(tmp_path / "large.jpg"), picture)
    del picture
    (line,) = predict(command, faces_bundle, tmp_path / "large.jpg", tmp_path)
    ((*box, _),) = line["boxes"]
    assert box == pytest.approx((2500, 2500, 10_000, 10_000), abs=1)
