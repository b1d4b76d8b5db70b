"""The live pictures: nothing while nobody watches, the newest while somebody does, and never more."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest
from web_stage import RESULT, Feeder, frame_of

from edge.sinks.overlay import ACCENT
from edge.web.live import LiveSink, Picture, Viewer


def picture_of(live: LiveSink, viewer: Viewer, came: threading.Event, timeout_s: float = 20.0) -> Picture:
    assert came.wait(timeout_s), "no picture came"
    came.clear()
    picture = viewer.newest()
    assert picture is not None
    return picture


def decoded(picture: Picture) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def encoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "live"]


def test_without_a_viewer_nothing_is_copied_or_encoded_and_a_frame_costs_microseconds() -> None:
    live, frame, writes = LiveSink(), frame_of("door"), 20_000
    begin_s = time.thread_time()
    for _ in range(writes):
        live.write(frame, RESULT)
    assert (time.thread_time() - begin_s) / writes < 20e-6  # a look-up; 0.3 us on an idle machine
    assert live.encoded == 0
    assert encoders() == []


def test_a_viewer_gets_the_frame_with_the_result_drawn_in() -> None:
    live, came = LiveSink(), threading.Event()
    with live.watch("door", came.set) as viewer:
        live.write(frame_of("door"), RESULT)
        shown = decoded(picture_of(live, viewer, came))
        assert shown.shape == (180, 320, 3)
        corner = shown[18:24, 38:60].astype(int) - ACCENT
        assert (np.abs(corner).sum(axis=2) < 150).any()
        assert viewer.newest() is None  # it was seen
    live.close()


def test_large_frames_are_made_smaller_and_their_boxes_with_them() -> None:
    live, came = LiveSink(width=160), threading.Event()
    with live.watch("door", came.set) as viewer:
        live.write(frame_of("door"), RESULT)
        shown = decoded(picture_of(live, viewer, came))
    live.close()
    assert shown.shape == (90, 160, 3)
    changed = np.abs(shown[14:64].astype(int) - 120).sum(axis=2) > 120  # below the tag, above the bar
    assert np.nonzero(changed)[1].max() == pytest.approx(60, abs=3)


def test_pictures_come_at_the_wanted_rate_whatever_the_camera_does() -> None:
    live = LiveSink(fps=10)
    with live.watch("door", lambda: None), Feeder(live, "door", fps=100):
        time.sleep(1.05)
    live.close()
    assert 3 <= live.encoded <= 13  # a busy machine may give fewer


def test_a_slow_viewer_misses_pictures_and_gets_the_newest() -> None:
    live, came = LiveSink(fps=1000), threading.Event()
    with live.watch("door", came.set) as viewer:
        for index in range(1, 6):
            live.write(frame_of("door", index), RESULT)
            assert came.wait(20)
            came.clear()
            time.sleep(0.002)
        picture = viewer.newest()
        assert picture is not None
        assert picture.number == 5
    live.close()


def test_all_cameras_are_served_by_one_thread_and_none_starves() -> None:
    live, counts = LiveSink(fps=1000), {"a": 0, "b": 0, "c": 0}

    def count(name: str) -> None:
        counts[name] += 1

    with (
        live.watch("a", lambda: count("a")),
        live.watch("b", lambda: count("b")),
        live.watch("c", lambda: count("c")),
        Feeder(live, "a", "b", "c", fps=2000, height=720, width=1280),
    ):
        time.sleep(1.0)
        assert encoders() == ["live"]
    live.close()
    assert encoders() == []
    assert min(counts.values()) > 0.5 * max(counts.values())


def test_the_memory_of_a_camera_goes_with_its_last_viewer_and_a_new_one_sees_nothing_stale() -> None:
    live, came = LiveSink(), threading.Event()
    with live.watch("door", came.set) as viewer:
        live.write(frame_of("door"), RESULT)
        picture_of(live, viewer, came)
    assert live.newest("door") is None
    assert live._channels["door"].spare.nbytes == 0
    with live.watch("door", came.set) as later:
        assert later.newest() is None
        live.write(frame_of("door"), RESULT)
        assert picture_of(live, later, came).number == 2
    live.close()


def test_buffers_are_reused_and_follow_a_change_of_size() -> None:
    live, came, seen = LiveSink(fps=1000), threading.Event(), set()
    with live.watch("door", came.set) as viewer:
        for size in (180, 180, 180, 180, 90):
            live.write(frame_of("door", height=size), RESULT)
            assert decoded(picture_of(live, viewer, came)).shape[0] == size
            seen.add(live._channels["door"].spare.ctypes.data)
            time.sleep(0.002)
    live.close()
    assert len(seen) <= 2


def test_close_ends_the_thread_and_an_open_stream_goes_on_for_those_who_watch() -> None:
    live, came = LiveSink(), threading.Event()
    with live.watch("door", came.set) as viewer:
        live.write(frame_of("door"), RESULT)
        picture_of(live, viewer, came)
        live.close()
        live.close()
        assert encoders() == []
        live.write(frame_of("door"), RESULT)  # a late frame starts nothing
        assert encoders() == []
        with Feeder(live, "door"):
            picture_of(live, viewer, came)
    live.close()


def test_the_only_camera_of_a_stream_has_a_name() -> None:
    live, came = LiveSink(), threading.Event()
    with live.watch("camera", came.set) as viewer:
        live.write(frame_of(""), RESULT)
        picture_of(live, viewer, came)
    live.close()
