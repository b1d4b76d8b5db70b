"""A camera's thread: how fast it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from daemon_stage import Camera

from edge.config import CameraSettings
from edge.feeder import Feeder
from edge.frame import CaptureClock
from edge.protocols import SourceInfo


class Stated(Camera):
    """It gives its frames as fast as they are read, and says that there is one in 20 seconds."""

    def open(self) -> SourceInfo:
        return replace(super().open(), fps=0.05)


@pytest.mark.parametrize(
    ("clock", "lossless", "at_once"), [("file", False, 1), ("file", True, 3), ("driver", False, 3)]
)
def test_a_file_begins_at_once_and_goes_on_at_its_own_speed_and_nothing_else_waits(
    clock: CaptureClock, lossless: bool, at_once: int
) -> None:
    camera = CameraSettings(name="a", source="x", lossless=lossless)
    feeder = Feeder(camera, lambda: Stated(fps=0, clock=clock))
    feeder.start()
    for _ in range(at_once):
        assert feeder.ring.take(10) is not None
        feeder.ring.release(True)
    if at_once == 1:
        assert feeder.ring.take(0.3) is None
    feeder.ask_to_stop()
    assert feeder.join(5), "a wait for the next frame ends, too"
