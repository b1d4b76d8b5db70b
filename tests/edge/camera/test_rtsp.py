"""A real RTSP server under faults: stopped, gone, another size, a wrong password; and a decoder under them.

Limits are those of an idle machine, plus what a decoder's start takes now. `bench/faults.py` holds them to
the second, fifty times.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from camera_stage import Left, Reader, RtspServer, start_s, wait_until, why_no_rtsp

from edge.camera.source import CameraSource
from edge.errors import SourceError
from edge.frame import Frame

LOST_S, BACK_S, KILLED_S, HUNG_S = 2.0, 2.5, 2.0, 3.0
"""A camera is declared lost, and gives frames after its return; a gap with a killed and a hung decoder."""

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def reader(rtsp: RtspServer) -> Iterator[Reader]:
    """Reads that camera, and has frames already."""
    with Reader(CameraSource(rtsp.uri, keep_trying=True)) as reader:
        reader.frame_after(0)
        yield reader
    assert reader.error is None
    health = reader.camera.health()
    assert health.captured == health.delivered + health.dropped
    assert health.delivered == len(reader.came_s)


def test_frames_come_with_their_history(rtsp: RtspServer) -> None:
    camera, frames = CameraSource(rtsp.uri), [Frame() for _ in range(4)]
    info = camera.open()
    assert (info.width, info.height, info.fps, info.frames) == (640, 360, 25.0, None)
    for frame in frames:
        assert camera.read(frame)
        assert frame.capture_clock == "arrival"
        assert 0 < frame.stamps.capture <= frame.stamps.decode <= time.monotonic_ns()
    camera.close()
    assert frames[-1].pixels.max() > 200, "the ball"
    media = [frame.stamps.media or 0 for frame in frames]
    captured = [frame.index for frame in frames]
    assert (media[-1] - media[0]) / 40e6 == pytest.approx(captured[-1] - captured[0], abs=0.1)


def test_half_open_camera_is_lost_soon_and_back_soon(rtsp: RtspServer, reader: Reader) -> None:
    rtsp.freeze()
    frozen_s = time.monotonic()
    lost_s = wait_until(lambda: reader.camera.health().state == "lost") - frozen_s
    time.sleep(0.5)
    rtsp.thaw()
    back_s = time.monotonic()
    assert reader.frame_after(back_s) - back_s <= BACK_S + start_s()
    assert lost_s <= LOST_S + start_s()
    assert reader.camera.health().reconnects == 1


def test_camera_gone_and_back_with_another_size(rtsp: RtspServer, reader: Reader) -> None:
    rtsp.stop()
    gone_s = time.monotonic()
    lost_s = wait_until(lambda: reader.camera.health().state == "lost") - gone_s
    child = reader.camera.child_pid
    time.sleep(1.0)
    back_s = rtsp.start(width=320, height=240)
    assert reader.frame_after(back_s) - back_s <= BACK_S + start_s()
    assert lost_s <= LOST_S / 4 + start_s(), "a stream that ends is not waited for"
    assert reader.sizes[-1] == (320, 240)
    assert reader.camera.child_pid == child, "a camera that refuses to answer needs no new decoder"


@pytest.mark.parametrize(("number", "limit_s"), [(signal.SIGKILL, KILLED_S), (signal.SIGSTOP, HUNG_S)])
def test_decoder_killed_or_hung(rtsp: RtspServer, reader: Reader, number: int, limit_s: float) -> None:
    before = reader.camera.child_pid
    assert before is not None
    hit_s = time.monotonic()
    os.kill(before, number)
    wait_until(lambda: reader.camera.health().reconnects == 1)
    assert reader.gap_s(hit_s) <= limit_s + start_s()
    assert reader.camera.child_pid != before


def test_user_and_password_with_every_sign() -> None:
    reason = why_no_rtsp()
    if reason:
        pytest.skip(f"no RTSP server to test with: {reason}")
    password = "p@ss:w/rd%#? &"
    server = RtspServer(user="viewer", password=password)
    server.start()
    try:
        camera = CameraSource(server.uri_for("viewer", password))
        info = camera.open()
        camera.close()
        assert info.uri == f"rtsp://***@127.0.0.1:{server.port}/stream"
        with pytest.raises(SourceError, match="refuses the user or the password") as raised:
            CameraSource(server.uri_for("viewer", "wr0ng-password"), keep_trying=True).open()
        assert "wr0ng" not in str(raised.value)
    finally:
        server.stop()


def test_gstreamer_decodes_rtsp_as_well(rtsp: RtspServer) -> None:
    camera, frame = CameraSource(rtsp.uri, decoder="gstreamer"), Frame()
    info = camera.open()
    assert (info.width, info.height, info.fps) == (640, 360, 25.0)
    assert camera.read(frame)
    assert frame.pixels.shape == (360, 640, 3)
    camera.close()


@pytest.mark.slow
def test_nothing_is_left_after_many_faults(rtsp: RtspServer) -> None:
    """Descriptors, threads, children and shared files after 20 faults are those after the first."""
    with Reader(CameraSource(rtsp.uri)) as reader:
        reader.frame_after(0)
        before = Left.now()
        for round_number in range(20):
            pid = reader.camera.child_pid
            assert pid is not None
            os.kill(pid, (signal.SIGKILL, signal.SIGSTOP)[round_number % 2])
            wait_until(lambda n=round_number: reader.camera.health().reconnects == n + 1)
            reader.frame_after(time.monotonic() + 0.5)
        assert Left.settled(before) == before
