"""Cameras to read from, and a check that nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from camera_stage import Left, MjpegServer, RtspServer, why_no_rtsp


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Threads, descriptors, child processes and shared files are after the test what they were before."""
    import av  # noqa: F401  # what it opens for itself is not the camera's

    before = Left.now()
    yield
    assert Left.settled(before) == before


@pytest.fixture
def rtsp() -> Iterator[RtspServer]:
    """A camera of 640x360 at 25 frames a second, switched on."""
    reason = why_no_rtsp()
    if reason:
        pytest.skip(f"no RTSP server to test with: {reason}")
    server = RtspServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mjpeg() -> Iterator[MjpegServer]:
    """A web camera of 320x240 at 20 frames a second."""
    with MjpegServer() as server:
        yield server
