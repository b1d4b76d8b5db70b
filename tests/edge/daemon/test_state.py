"""What a daemon says of its cameras."""

from __future__ import annotations

from daemon_stage import Collector, Sleeper, cameras, daemon_of

from edge.config import StreamSettings
from edge.sources import open_source


def test_a_size_that_changes_in_mid_stream_is_shown() -> None:
    settings = StreamSettings(cameras=cameras("a", lossless=True), build_plans=False, frames=6)
    found: list[tuple[int, ...]] = []
    sink = Collector(on_write=lambda frame: found.append(frame.pixels.shape[1::-1]))
    daemon = daemon_of(settings, {"a": open_source("fault://demo?size=3f..:64x48")}, Sleeper(), sink)
    daemon.run()
    (shown,) = daemon.state.snapshot()["cameras"]
    assert found[0] != found[-1] == (64, 48) == (shown["width"], shown["height"])
