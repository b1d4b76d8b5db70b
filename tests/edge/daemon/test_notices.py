"""What the journal hears of a daemon: nothing while all is well, one line for each change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import Camera, Collector, Sleeper, cameras, daemon_of, steady

from edge.config import StreamSettings
from edge.daemon_state import DaemonState
from edge.errors import DeviceFailed, DiskFailed, InputError
from edge.feeder import Feeder
from edge.frame import Frame
from edge.notices import BURST, PERIOD_S, REPEAT_S, Notices


class Told:
    """A daemon's state as it is told to the notices, and what they said of it at each look."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {
            "cameras": [{"name": "door", "state": "opening", "last_error": None}],
            "models": [
                {"name": "m", "backend": "tflite", "precision": "int8", "refused": [], "building": "",
                 "changed": False}
            ],
            "sinks": [{"name": "events", "lost": 0, "last_error": "", "damage": ""}],
            "reloads": {"done": 0, "refused": 0, "last_error": ""},
        }  # fmt: skip
        self.now_s = 0.0
        self._lines: list[str] = []
        self._notices = Notices(self, self._lines.append, lambda: self.now_s)  # type: ignore[arg-type]

    def brief(self) -> dict[str, Any]:
        return self.state

    def after(self, seconds: float = PERIOD_S, **camera: Any) -> list[str]:
        """What is said so much later of a camera that has changed."""
        self.state["cameras"] = [self.state["cameras"][0] | camera]
        self.now_s += seconds
        self._lines.clear()
        self._notices.look()
        return list(self._lines)

    def at_the_end(self) -> list[str]:
        self._lines.clear()
        self._notices.end()
        return self._lines


def test_a_camera_that_comes_and_goes_on_is_not_worth_a_line() -> None:
    told = Told()
    assert told.after() == told.after(state="live") == told.after(state="ended") == []


def test_a_loss_is_told_once_with_its_reason_and_so_is_its_end() -> None:
    told = Told()
    told.after(state="live")
    assert told.after(state="lost", last_error="the cable") == ["camera door: lost: the cable"]
    assert told.after() == []
    assert told.after(state="degraded") == ["camera door: degraded: the cable"]
    assert told.after(state="live") == ["camera door: live again, after: the cable"]
    assert told.after(state="ended") == []


def test_a_camera_that_never_came_says_why() -> None:
    told = Told()
    assert told.after(last_error="wrong password") == ["camera door: opening: wrong password"]


def test_a_loss_between_two_looks_is_told() -> None:
    told = Told()
    told.after(state="live")
    assert told.after(last_error="a short one") == ["camera door: live, but: a short one"]


def test_an_error_that_is_worded_anew_each_time_does_not_fill_the_journal() -> None:
    told = Told()
    lines = [line for n in range(100) for line in told.after(state="lost", last_error=f"after {n} ms")]
    assert len(lines) == 1 + 99 * PERIOD_S // REPEAT_S


def test_a_camera_that_comes_and_goes_does_not_fill_the_journal_and_its_last_state_is_told() -> None:
    told = Told()
    told.after(state="live")
    lines = []
    for _ in range(150):
        lines += told.after(state="lost", last_error="the radio") + told.after(state="live")
    assert len(lines) <= BURST * (300 * PERIOD_S // REPEAT_S + 1)
    lines += told.after(state="lost") + told.after(REPEAT_S) + told.after(REPEAT_S)
    assert lines[-1] == "camera door: lost: the radio"


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    told = Told()

    def say(line: str) -> None:
        raise OSError(5, "Input/output error")

    told.state["reloads"]["refused"] = 1
    told.state["cameras"][0] |= {"state": "lost", "last_error": "x"}
    Notices(told, say).look_now()  # type: ignore[arg-type]


def test_nothing_is_looked_at_twice_in_a_moment() -> None:
    told = Told()
    told.after(state="live")
    assert told.after(PERIOD_S / 2, state="lost", last_error="x") == []
    assert told.after(PERIOD_S / 2) == ["camera door: lost: x"]


def test_losses_of_a_sink_are_summed_up() -> None:
    told = Told()
    told.after()
    (sink,) = told.state["sinks"]
    sink |= {"lost": 3, "last_error": "disk full"}
    assert told.after() == ["sink events: 3 lost so far: disk full"]
    sink["lost"] = 9
    assert told.after() == []
    assert told.after(REPEAT_S) == ["sink events: 9 lost so far: disk full"]
    assert told.after(REPEAT_S) == []


def test_what_a_sink_lost_since_it_was_last_told_of_is_told_at_the_end() -> None:
    told = Told()
    told.state["sinks"][0]["lost"] = 3
    told.after()
    told.state["sinks"][0]["lost"] = 9
    assert told.after() == []
    assert told.at_the_end() == ["sink events: 9 lost so far"]


def test_a_sinks_trouble_is_told_when_it_appears_and_when_it_is_over_and_its_wording_is_not() -> None:
    told = Told()
    (sink,) = told.state["sinks"]
    assert told.after() == []
    sink["last_error"] = "broker:1883: refused"
    assert told.after() == ["sink events: broker:1883: refused"]
    for number in range(100):
        sink["last_error"] = f"broker:1883: no answer after {number} s"
        assert told.after() == []
    sink["last_error"] = ""
    assert told.after() == ["sink events: well again, after: broker:1883: refused"]
    assert told.after() == []


def test_what_was_found_damaged_is_told_once_and_is_no_trouble() -> None:
    told = Told()
    told.state["sinks"][0]["damage"] = "events.sqlite was damaged"
    assert told.after() == ["sink events: events.sqlite was damaged"]
    assert told.after() == told.after(REPEAT_S) == []


def test_a_broker_that_comes_and_goes_does_not_fill_the_journal() -> None:
    told, lines = Told(), []
    (sink,) = told.state["sinks"]
    for number in range(300):
        sink["last_error"] = "refused" if number % 2 == 0 else ""
        lines += told.after()
    assert len(lines) <= BURST * (300 * PERIOD_S // REPEAT_S + 1)
    sink["last_error"] = ""
    lines += told.after(REPEAT_S) + told.after(REPEAT_S)
    assert lines[-1] == "sink events: well again, after: refused"


def test_a_models_new_backend_and_what_is_built_are_told() -> None:
    told = Told()
    told.after()
    (model,) = told.state["models"]
    told.state["models"] = [model | {"building": "tensorrt int8"}]
    assert told.after() == ["model m: building tensorrt int8"]
    told.state["models"] = [model | {"refused": ["tensorrt int8: no room"]}]
    assert told.after() == ["model m: refused tensorrt int8: no room"]
    told.state["models"] = [model | {"backend": "tensorrt", "refused": ["tensorrt int8: no room"]}]
    assert told.after() == ["model m: tensorrt int8"]


def test_a_daemon_tells_of_a_camera_and_of_a_reload_that_it_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.notices.PERIOD_S", 0.0)
    said: list[str] = []

    def reread() -> StreamSettings:
        raise InputError("line 3: no such key")

    settings = StreamSettings(cameras=cameras("good", "bad"), frames=300, build_plans=False)
    sources = {"good": Camera(fps=200), "bad": Camera(fps=200, fails_after=5)}
    daemon = daemon_of(settings, sources, Sleeper(), reread=reread, say=said.append)
    daemon.reload()
    daemon.run()
    assert "configuration refused, the old one goes on: line 3: no such key" in said
    losses = [
        line for line in said if re.fullmatch(r"camera bad: (lost|degraded): the cable was pulled", line)
    ]
    assert losses
    assert not [line for line in said if "good" in line]


def test_a_sink_that_refuses_one_result_is_well_again_with_the_next() -> None:
    def refuse(frame: Frame) -> None:
        if frame.index == 3:
            raise OSError("no space left")

    lines: list[str] = []
    settings = StreamSettings(cameras=(steady("a"),), build_plans=False)
    source = Camera(frames=10, clock="file")
    daemon = daemon_of(settings, {"a": source}, Sleeper(), Collector(on_write=refuse), say=lines.append)
    daemon.run()
    (shown,) = daemon.state.snapshot()["sinks"]
    assert (shown["lost"], shown["last_error"]) == (1, "")
    told = [line for line in lines if line.startswith("sink")]
    assert told[0] == "sink collector: 1 lost so far: no space left"
    assert told[1:] == ["sink collector: well again, after: no space left"]


def test_a_sink_is_in_trouble_while_any_camera_of_those_that_are_left_is_refused() -> None:
    state, frames = DaemonState(), {name: Feeder(steady(name), Camera) for name in ("a", "b")}
    state.watch(frames.values())
    state.write_to([("video", Collector())])

    def error() -> str:
        return str(state.snapshot()["sinks"][0]["last_error"])

    state.sink_failed("video", "a", "disk full")
    state.sink_took("video", "b")
    assert error() == "disk full"
    state.watch([frames["b"]])
    assert error() == ""


def test_a_video_that_could_not_be_begun_stays_a_trouble_and_its_results_count_as_lost(
    tmp_path: Path,
) -> None:
    class InTheWay(Collector):
        """Comes between the look at the places of results and the first frame."""

        def prepare(self) -> None:
            folder.write_text("no folder")

    folder = tmp_path / "videos"
    sinks = {"video": folder / "out.mp4"}
    settings = StreamSettings(cameras=(steady("a"),), sinks=sinks, build_plans=False)
    daemon = daemon_of(settings, {"a": Camera(frames=10, clock="file")}, Sleeper(), InTheWay())
    daemon.run()
    (video,) = [sink for sink in daemon.state.snapshot()["sinks"] if sink["name"] == "video"]
    assert str(folder) in video["last_error"]
    assert video["lost"] == 1 + 10


@dataclass
class Full(Collector):
    """Its disk is full at the end, when it has lost so many results by its own count."""

    lost: int = 0

    def close(self) -> None:
        self.lost = 7
        raise DiskFailed("no space left")


def test_what_a_sink_loses_at_its_end_is_told_and_hides_no_reason_to_start_again() -> None:
    lines: list[str] = []
    settings = StreamSettings(cameras=(steady("a"),), build_plans=False)
    broken = Sleeper(fails=True)
    with pytest.raises(DeviceFailed):
        daemon_of(settings, {"a": Camera(frames=20, clock="file")}, broken, Full(), say=lines.append).run()
    assert lines[-1] == "sink collector: 8 lost so far: no space left"
    with pytest.raises(DiskFailed):
        daemon_of(settings, {"a": Camera(frames=2, clock="file")}, Sleeper(), Full(), say=lines.append).run()
    assert lines[-1] == "sink collector: 7 lost so far"
