"""What a daemon says of its cameras."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from daemon_stage import Camera, Collector, Sleeper, cameras, daemon_of, steady

from edge.config import StreamSettings
from edge.daemon_state import DaemonState
from edge.feeder import Feeder
from edge.frame import Frame
from edge.profiler import StageRecorder
from edge.profiling.spread import Spread
from edge.results import Classification, FrameResult
from edge.sources import open_source
from edge.web.state import Percentiles


def test_a_size_that_changes_in_mid_stream_is_shown() -> None:
    settings = StreamSettings(cameras=cameras("a", lossless=True), build_plans=False, frames=6)
    found: list[tuple[int, ...]] = []
    sink = Collector(on_write=lambda frame: found.append(frame.pixels.shape[1::-1]))
    daemon = daemon_of(settings, {"a": open_source("fault://demo?size=3f..:64x48")}, Sleeper(), sink)
    daemon.run()
    (shown,) = daemon.state.snapshot()["cameras"]
    assert found[0] != found[-1] == (64, 48) == (shown["width"], shown["height"])


def test_the_settings_that_are_shown_are_those_that_say_something() -> None:
    """All that there are, most of them as they are anyhow, would be a hundred lines on the page."""
    settings = StreamSettings(
        cameras=({"name": "door", "source": "rtsp://me:hunter2@cam/1", "interval": 2},),
        sinks={"mqtt": {"host": "broker", "username": "me", "password": "hunter2"}},
    )
    assert DaemonState(settings).snapshot()["settings"] == {
        "cameras": [{"name": "door", "source": "rtsp://***@cam/1", "interval": 2}],
        "sinks": {"mqtt": {"host": "broker", "username": "me", "password": "**********"}},
    }
    alone = StreamSettings(source="rtsp://me:hunter2@cam/1", max_age_ms=500)
    assert DaemonState(alone).snapshot()["settings"] == {"source": "rtsp://***@cam/1", "max_age_ms": 500}


def test_a_result_is_put_into_words_when_it_is_asked_for_and_not_for_each_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words: list[str] = []
    record = FrameResult.as_record

    def counted(result: FrameResult) -> dict[str, object]:
        words.append(result.summary())
        return record(result)

    monkeypatch.setattr(FrameResult, "as_record", counted)
    state = DaemonState()
    state.watch([Feeder(steady("a"), Camera)])
    for index in range(5):
        found = Classification(np.ones(1, np.float32), 0, f"cat {index}")
        state.published(Frame(camera="a", index=index), FrameResult({"pets": found}))
    assert words == []
    (shown,) = state.snapshot()["cameras"]
    assert (shown["last"]["frame"], shown["last"]["label"], shown["last_result"]) == (
        4,
        "cat 4",
        "cat 4 1.00",
    )
    assert words == ["cat 4 1.00"]


def published(ages_s: list[float], state: DaemonState) -> float:
    """The results a second of a camera that gave results so many seconds ago."""
    for age_s in ages_s:
        frame = Frame(camera="a")
        frame.stamps.publish = time.monotonic_ns() - round(age_s * 1e9)
        state.published(frame, FrameResult({}))
    (shown,) = state.snapshot()["cameras"]
    return float(shown["fps"])


@pytest.mark.parametrize(
    ("ages_s", "fps"),
    [([], 0), ([0], 0), ([0.4, 0.3, 0.2, 0.1, 0], 10), ([4, 3], 0), ([9, 1.5], 0.13)],
    ids=["none", "one", "five", "long ago", "two"],
)
def test_results_a_second_are_those_of_the_recent_ones(ages_s: list[float], fps: float) -> None:
    state, feeder = DaemonState(), Feeder(steady("a"), Camera)
    state.watch([feeder])
    assert published(ages_s, state) == pytest.approx(fps, abs=0.02 * fps)
    state.watch([feeder])
    assert published([], state) == pytest.approx(fps, abs=0.02 * fps), "a reload that changed nothing"
    state.watch([Feeder(steady("a"), Camera)])
    assert published([], state) == 0, "another source"


def test_the_page_knows_every_percentile_by_its_name() -> None:
    """It passes over what it does not know."""
    state = DaemonState()
    state.watch([Feeder(steady("a"), Camera)])
    published([0], state)
    assert state.snapshot()["latency"]["a"]["stages"]["age"].keys() >= Percentiles.model_fields.keys()


def test_the_loop_does_not_wait_for_the_percentiles_that_somebody_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = DaemonState()
    state.watch([Feeder(steady("a"), Camera)])
    spreads = StageRecorder.spreads

    def meanwhile(recorder: StageRecorder) -> dict[str, Spread]:
        loop = threading.Thread(
            target=state.published, args=(Frame(camera="a"), FrameResult({})), daemon=True
        )
        loop.start()
        loop.join(5)
        assert not loop.is_alive()
        return spreads(recorder)

    monkeypatch.setattr(StageRecorder, "spreads", meanwhile)
    assert state.snapshot()["latency"]["a"]["n"] in (0, 1)
