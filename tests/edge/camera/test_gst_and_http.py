"""Cameras that need no network but this machine's: GStreamer pipelines, MJPEG and files over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from camera_stage import PATIENCE_S, MjpegServer, Reader, start_s, wait_until, why_no_gstreamer
from daemon_stage import Sleeper

from edge import run
from edge.backlog import BacklogCounts
from edge.camera.connection import Deadlines
from edge.camera.decoder import SYSTEM_PYTHON
from edge.camera.source import CameraSource
from edge.cascade import Cascade, Member
from edge.config import CameraSettings
from edge.errors import SourceError, SourceRefused
from edge.feeder import Feeder
from edge.frame import Frame
from edge.pipeline import Limits, Pipeline
from edge.pixels import Image
from edge.sources import open_source

RED = "gst://videotestsrc is-live=true pattern=red ! video/x-raw,format={},width={},height={},framerate=30/1"

needs_gstreamer = pytest.mark.skipif(bool(why_no_gstreamer()), reason=f"no GStreamer: {why_no_gstreamer()}")
pytestmark = pytest.mark.usefixtures("nothing_left")


@needs_gstreamer
@pytest.mark.parametrize(("pixel_format", "width", "height"), [
    ("NV12", 320, 240), ("I420", 322, 241), ("YUY2", 320, 240), ("BGRx", 321, 241), ("Y42B", 323, 240),
])  # fmt: skip
def test_pipeline_in_any_pixel_format_gives_rgb(pixel_format: str, width: int, height: int) -> None:
    camera, frame = CameraSource(RED.format(pixel_format, width, height)), Frame()
    info = camera.open()
    assert (info.width, info.height, info.fps, info.capture_clock) == (width, height, 30.0, "arrival")
    assert camera.read(frame)
    camera.close()
    assert frame.pixels.shape == (height, width, 3)
    np.testing.assert_allclose(frame.pixels.reshape(-1, 3), [[255, 0, 0]] * width * height, atol=4)


@needs_gstreamer
def test_slow_reader_gets_the_newest_frame_and_every_frame_is_accounted_for() -> None:
    camera, frame = CameraSource(RED.format("NV12", 320, 240)), Frame()
    camera.open()
    for _ in range(5):
        time.sleep(0.25)
        assert camera.read(frame)
        assert frame.stamps.decode - frame.stamps.capture < 200_000_000, "the newest, not the oldest"
        health = camera.health()
        assert health.captured == health.delivered + health.dropped == frame.index + 1
    assert health.delivered == 5
    assert health.dropped > 10
    camera.close()
    health = camera.health()
    assert health.state == "closed"
    assert health.captured == health.delivered + health.dropped


@needs_gstreamer
def test_size_that_changes_in_mid_stream_needs_no_new_child() -> None:
    """A pipeline of two parts: 10 frames of 320x240, then frames of 160x120."""
    parts = "videotestsrc num-buffers=10 ! video/x-raw,width=320,height=240,framerate=30/1 ! join. "
    parts += "videotestsrc is-live=false ! video/x-raw,width=160,height=120,framerate=30/1 ! join. "
    camera, frame = CameraSource(f"gst://{parts} concat name=join"), Frame()
    assert camera.open().width == 320
    child, sizes = camera.child_pid, []
    while camera.read(frame) and (160, 120) not in sizes:
        sizes.append((frame.pixels.shape[1], frame.pixels.shape[0]))
    assert sizes[0] == (320, 240)
    assert camera.child_pid == child
    assert (camera.health().width, camera.health().height) == (160, 120)
    camera.close()


@needs_gstreamer
def test_killed_child_is_replaced() -> None:
    camera = CameraSource(RED.format("NV12", 320, 240))
    with Reader(camera) as reader:
        reader.frame_after(0)
        before = camera.child_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        killed_s = time.monotonic()
        reader.frame_after(killed_s + 0.1)
        assert reader.gap_s(killed_s) <= 1.0 + start_s()
        health = camera.health()
        assert (health.reconnects, health.state) == (1, "streaming")
        assert health.last_error == "its decoder was ended by SIGKILL"
        assert health.captured == health.delivered + health.dropped
        assert camera.child_pid != before


READS_FOR_EVER = """
import sys
from edge.camera.source import CameraSource
from edge.frame import Frame
camera = CameraSource(sys.argv[1])
camera.open()
print(camera.child_pid, flush=True)
while camera.read(Frame()):
    pass
"""


@pytest.mark.parametrize("is_hung", [False, True])
def test_decoder_does_not_outlive_a_killed_parent(mjpeg: MjpegServer, is_hung: bool) -> None:
    command = [sys.executable, "-c", READS_FOR_EVER, mjpeg.uri()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if is_hung:
            os.kill(child, signal.SIGSTOP)
        parent.kill()
    wait_until(lambda: not is_running(child), patience_s=5.0)


def is_running(pid: int) -> bool:
    """There, and no zombie that waits for whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@needs_gstreamer
def test_crash_loop_is_degraded_and_tried_rarely() -> None:
    camera = CameraSource("gst://videotestsrc is-live=true num-buffers=2 ! video/x-raw,width=64,height=64")
    with Reader(camera) as reader:
        wait_until(lambda: camera.health().state == "degraded")
        tries = camera.health().reconnects
        time.sleep(1.0)
        assert camera.health().reconnects <= tries + 1
        assert camera.health().last_error == "its stream ended"
    assert reader.error is None


@needs_gstreamer
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gst://nosuchsrc ! identity", "cannot build this pipeline: no element"),
        ("gst://nvnosuchsrc ! identity", 'no element "nvnosuchsrc", which comes with JetPack'),
        ("gst://videotestsrc ! video/x-raw,format=NV12 ! x264dec", "cannot build this pipeline"),
        ("gst://rtspsrc location=rtsp://a:hunter22@h/ user-pw=hunter22 ! nosuch", "no element"),
    ],
)
def test_wrong_pipelines_are_refused_at_once_without_secrets(uri: str, message: str) -> None:
    camera = CameraSource(uri, keep_trying=True)
    with pytest.raises(SourceError, match=message) as raised:
        camera.open()
    assert "hunter22" not in f"{raised.value} {camera!r} {camera.health()}"


@pytest.mark.parametrize("interpreter", ["/gone/python3", "/bin/false"])
def test_interpreter_that_is_none(interpreter: str) -> None:
    camera = CameraSource(RED.format("NV12", 64, 64), interpreter=interpreter, connect_timeout_s=1.0)
    with pytest.raises(SourceError, match=r"cannot be started|ended with exit code 1|gave no picture"):
        camera.open()


def slow_to_start(folder: Path, seconds: float) -> str:
    """An interpreter that takes so long before it does anything, as on a machine that is busy."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nsleep {seconds}\nexec {SYSTEM_PYTHON} "$@"\n')
    script.chmod(0o755)
    return str(script)


@needs_gstreamer
def test_the_start_of_the_decoder_is_not_the_cameras_time(tmp_path: Path) -> None:
    """Else a child would be killed shortly before its first frame, again and again: 21 s were seen instead of 9."""
    deadlines = Deadlines(first_frame_s=4.0, start_s=60.0)
    source = CameraSource(
        "gst://videotestsrc is-live=true ! video/x-raw,width=64,height=48",
        interpreter=slow_to_start(tmp_path, 4.5), deadlines=deadlines, keep_trying=True,
    )  # fmt: skip
    try:
        source.open()
        assert source.read(Frame())
        assert (source.health().reconnects, source.health().last_error) == (0, "")
    finally:
        source.close()


@needs_gstreamer
def test_a_decoder_that_never_starts_is_replaced(tmp_path: Path) -> None:
    deadlines = Deadlines(start_s=1.0)
    source = CameraSource(
        "gst://videotestsrc", interpreter=slow_to_start(tmp_path, 600.0), deadlines=deadlines,
        connect_timeout_s=3.0,
    )  # fmt: skip
    with pytest.raises(SourceError, match="its decoder did not start within 1 s"):
        source.open()


def test_mjpeg_over_http(mjpeg: MjpegServer) -> None:
    camera, frame = open_source(mjpeg.uri()), Frame()
    info = camera.open()
    assert (info.width, info.height, info.capture_clock) == (320, 240, "arrival")
    for _ in range(3):
        assert camera.read(frame)
    camera.close()
    np.testing.assert_allclose(frame.pixels[100, 100], [255, 0, 0], atol=4)


def test_slow_mjpeg_is_not_late_by_the_timestamps_that_ffmpeg_makes_up(mjpeg: MjpegServer) -> None:
    mjpeg.period_s = 0.2
    camera = CameraSource(mjpeg.uri())
    feeder = Feeder(CameraSettings(name="web", source=mjpeg.uri()), lambda: camera)
    feeder.start()
    wait_until(lambda: feeder.health().counts.captured >= 8)  # at 25 a second they would be 1 s late
    health = feeder.health()
    feeder.ask_to_stop()
    assert feeder.join(PATIENCE_S)
    assert (health.state, health.last_error, health.backlog) == ("live", "", BacklogCounts())
    assert camera.health().fps == 0.0, "it states none"
    assert health.info is not None
    assert (health.info.fps, feeder.ring.lossless) == (0.0, False)


def test_a_web_camera_of_a_picture_a_second_stays_connected(mjpeg: MjpegServer) -> None:
    mjpeg.period_s = 1.0
    deadlines = Deadlines(silence_s=0.3, connect_s=2.5)  # as 1.8 and 5 s for a picture each 2.3 s
    with Reader(CameraSource(mjpeg.uri(), deadlines=deadlines)) as reader:
        wait_until(lambda: len(reader.came_s) > 5)
        health = reader.camera.health()
    assert (health.state, health.reconnects, health.last_error) == ("streaming", 0, "")


class Busy(CameraSource):
    """Its reader comes late for each picture."""

    def read(self, frame: Frame) -> bool:
        time.sleep(0.2)
        return super().read(frame)


def test_frames_lost_in_the_decoder_are_in_the_sum(mjpeg: MjpegServer) -> None:
    source = Busy(mjpeg.uri())
    source.open()
    assert all(source.read(Frame()) for _ in range(3))
    source.close()
    lost = source.health().dropped
    summary = Pipeline(source, Cascade([Member("sleeper", Sleeper())]), limits=Limits(frames=4)).run()
    health = source.health()
    assert health.delivered == 3 + summary.counts.captured
    assert summary.counts.lost_before == health.dropped > lost + 3 > 6, "opened again it counts on"
    assert f" dropped, {health.dropped} more lost in the decoder. Age" in run._in_words(summary, [])


def test_size_of_mjpeg_changes_in_mid_stream(mjpeg: MjpegServer) -> None:
    with Reader(CameraSource(mjpeg.uri())) as reader:
        reader.frame_after(0)
        mjpeg.width, mjpeg.height = 200, 150
        wait_until(lambda: reader.sizes[-1] == (200, 150))
    assert reader.error is None


def test_silent_web_camera_is_lost_and_comes_back(mjpeg: MjpegServer) -> None:
    camera = CameraSource(mjpeg.uri())
    with Reader(camera) as reader:
        wait_until(lambda: len(reader.came_s) > 5)  # its pace is known
        mjpeg.streaming.clear()
        silent_s = time.monotonic()
        assert wait_until(lambda: camera.health().state == "lost") - silent_s <= 2.0 + start_s()
        assert "no picture for" in camera.health().last_error
        mjpeg.streaming.set()
        back_s = time.monotonic()
        assert reader.frame_after(back_s) - back_s <= 1.5 + start_s()


def test_password_with_every_sign_reaches_the_camera_and_no_other_eye(mjpeg: MjpegServer) -> None:
    camera = CameraSource(mjpeg.uri("/private?token=s3cr3t-token", mjpeg.login))
    info = camera.open()
    pid = camera.child_pid
    with open(f"/proc/{pid}/cmdline", "rb") as argv, open(f"/proc/{pid}/environ", "rb") as environment:
        seen = (argv.read() + environment.read()).decode()
    camera.close()
    for text in (seen, info.uri, repr(camera), repr(camera.health())):
        assert "s3cr3t-token" not in text
        assert "w%2Frd" not in text
        assert mjpeg.password not in text


@pytest.mark.parametrize("login", ["", "viewer:wr0ngpassword@"])
def test_refused_password_is_said_at_once(mjpeg: MjpegServer, login: str) -> None:
    camera = CameraSource(mjpeg.uri("/private", login), keep_trying=True)
    with pytest.raises(SourceRefused, match=r"refuses the user or the password.*401") as raised:
        camera.open()
    assert "wr0ng" not in str(raised.value)


def test_missing_stream_and_closed_port(mjpeg: MjpegServer) -> None:
    patience_s = 1.0 + start_s()
    with pytest.raises(SourceError, match=r"no picture within \d+ s.*no such stream"):
        CameraSource(mjpeg.uri("/gone"), connect_timeout_s=patience_s).open()
    with pytest.raises(SourceError, match="Connection refused"):
        CameraSource("http://127.0.0.1:9/", connect_timeout_s=patience_s).open()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_takes_the_connection_and_says_nothing(scheme: str) -> None:
    """FFmpeg calls it 'Invalid data found when processing input'."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        camera = CameraSource(
            f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/main",
            deadlines=Deadlines(connect_s=0.5), connect_timeout_s=2.0 + start_s(),
        )  # fmt: skip
        with pytest.raises(SourceError, match=r"it did not answer within 0\.5 s"):
            camera.open()


def write_clip(path: Path, pictures: list[Image], fps: int = 25, **options: str) -> bytes:
    """A clip of pictures of one size."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        for index, pixels in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_file_over_http_is_read_frame_by_frame_to_its_end(
    mjpeg: MjpegServer, tmp_path: Path, ending: str
) -> None:
    plain = [np.full((48, 64, 3), 40 + 4 * index, np.uint8) for index in range(40)]
    mjpeg.clip = write_clip(tmp_path / f"clip.{ending}", plain, fps=10, movflags="faststart")
    source, frame = open_source(mjpeg.uri("/clip.mp4")), Frame()
    info = source.open()
    assert info.fps == 10, "MPEG-TS states none; its H.264 does"
    assert (info.capture_clock, info.frames) == ("file", 0), "it has an end, and does not say when"
    brightness = []
    while source.read(frame):
        brightness.append(int(frame.pixels.mean()))
    source.close()
    np.testing.assert_allclose(brightness, [40 + 4 * index for index in range(40)], atol=3)


def test_a_file_that_begins_without_its_index_needs_a_server_with_byte_ranges(
    mjpeg: MjpegServer, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 480, 640, 3), np.uint8)  # more than FFmpeg keeps
    mjpeg.clip = write_clip(tmp_path / "clip.mp4", list(noise))
    with pytest.raises(SourceError) as raised:
        open_source(mjpeg.uri("/clip.mp4")).open()
    assert "gave no picture. Its last answer: " in str(raised.value), "not that it waited"
    assert "an MP4 from a server without byte ranges must begin with its index" in str(raised.value)


def test_stop_ends_open_and_read_for_good(mjpeg: MjpegServer) -> None:
    mjpeg.streaming.clear()
    camera = CameraSource(mjpeg.uri(), keep_trying=True)
    with Reader(camera) as reader:
        time.sleep(0.5)
        begin_s = time.monotonic()
        camera.stop()
        wait_until(lambda: reader.error is not None)
        assert time.monotonic() - begin_s < 1.0
    assert "was stopped" in str(reader.error)
    with pytest.raises(SourceError, match="was stopped"):
        camera.open()
    assert not camera.read(Frame())
