"""`sightline run CONFIG` with cameras, as a process of its own: check, reload, signals, the page."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from terminal_stage import in_a_terminal, until_shown

import sightline
from edge.config import StreamSettings
from edge.errors import InputError, MissingPackageError
from edge.run_daemon import check

ROOT = Path(sightline.__file__).parent
ONE = '[[cameras]]\nname = "door"\nsource = "demo://?width=160&height=90"\n'
TWO = ONE + '[[cameras]]\nname = "yard"\nsource = "demo://?width=160&height=90&fps=15"\n'
MODEL = 'build_plans = false\nmodel = "cifar10-convnetjs"\n'

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `sightline run CONFIG`; the process is killed with the test."""
    made: list[subprocess.Popen[str]] = []

    def run(text: str, **environment: str) -> subprocess.Popen[str]:
        (tmp_path / "run.toml").write_text(text)
        made.append(
            subprocess.Popen(
                [sys.executable, "-m", "sightline", "run", str(tmp_path / "run.toml")],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            )
        )  # fmt: skip
        return made[-1]

    yield run
    for process in made:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no '{text}' in {seen} {process.communicate()}")


def read(tmp_path: Path, text: str) -> StreamSettings:
    (tmp_path / "checked.toml").write_text(text)
    return StreamSettings.read(tmp_path / "checked.toml")


def test_check_says_what_would_run(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        MODEL + TWO + f'[sinks]\njsonl = "{tmp_path}/r.jsonl"\n[web]\nport = 8123\n'
    )
    ended = command("run", "--check", tmp_path / "run.toml")
    assert (ended.code, ended.err) == (0, "")
    for text in ("camera door: demo://", "model cifar10-convnetjs: ", "golden vectors within", "sink jsonl",
                 "page on 127.0.0.1 port 8123"):  # fmt: skip
        assert text in ended.out, text
    assert not (tmp_path / "r.jsonl").exists()


def test_check_names_the_camera_that_is_wrong(tmp_path: Path) -> None:
    settings = read(tmp_path, MODEL + ONE + '[[cameras]]\nname = "gone"\nsource = "/nowhere.mp4"\n')
    with pytest.raises(Exception, match="The camera 'gone': No such source"):
        check(settings)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[sinks]\nvideo = "x.avi"\n', r"'x\.avi' must end in \.mp4"),
        ('[sinks]\njsonl = "."\n', "it is a folder"),
        ('[sinks.snapshots]\nfolder = "checked.toml"\n', r"checked\.toml is no folder"),
        ('[web]\nport = 0\ntoken_file = "nope"\n', "nope"),
    ],
    ids=["video", "jsonl", "snapshots", "token"],
)
def test_check_refuses_what_the_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        check(read(tmp_path, MODEL + ONE + more))


@pytest.mark.parametrize(
    ("more", "module", "extra"),
    [
        ("[web]\nport = 0\n", "edge.web.app", "web"),
        ('[sinks.mqtt]\nhost = "broker"\n', "paho.mqtt.client", "mqtt"),
    ],
    ids=["web", "mqtt"],
)
def test_check_names_a_package_that_the_run_would_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, module: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"pip install '\.\[{extra}\]'"):
        check(read(tmp_path, MODEL + ONE + more))


def test_check_of_a_wrong_file_ends_with_2(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(ONE + "sorce = 'x'\n")
    ended = command("run", "--check", tmp_path / "run.toml")
    assert ended.code == 2
    assert "line 4" in ended.err
    assert "nearest key is 'source'" in ended.err


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ('[sinks]\njsonl = "old.txt"', "it is there and holds no JSON objects"),
        ('[sinks]\nvideo = "v.mp4"', r"v-door\.mp4: it is a folder"),
        ('[sinks.events]\npath = "v-door.mp4"', r"v-door\.mp4: it is a folder"),
        ('[sinks.events]\npath = "old.txt"', "cannot be used for events: file is not a database"),
        ('[sinks.mqtt]\nhost = "nowhere"\noutbox = "old.txt"', "cannot be used for an MQTT outbox"),
        ('[sinks.snapshots]\nfolder = "old.txt/pictures"', "old.txt is no folder"),
    ],
)
def test_a_wrong_sink_ends_the_start_and_not_the_first_frame(
    start: Start, tmp_path: Path, sinks: str, message: str
) -> None:
    (tmp_path / "old.txt").write_text("shopping list")
    (tmp_path / "v-door.mp4").mkdir()
    away = ONE.replace("demo://?width=160&height=90", "rtsp://127.0.0.1:9/never")
    process = start("seconds = 20\n" + MODEL + away + sinks)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.search(message, err)


def test_cameras_go_into_the_results_and_the_videos(start: Start, tmp_path: Path) -> None:
    process = start("frames = 30\n" + MODEL + TWO + '[sinks]\njsonl = "r.jsonl"\nvideo = "v.mp4"\n')
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    results = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(results) == 30
    assert {result["camera"] for result in results} == {"door", "yard"}
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["v-door.mp4", "v-yard.mp4"]


@pytest.mark.parametrize(("content", "code"), [(b"a shopping list", 2), (None, 0)])
def test_camera_that_an_error_ended_ends_the_daemon_with_2_when_it_was_the_last(
    start: Start, tmp_path: Path, content: bytes | None, code: int
) -> None:
    (tmp_path / "album").mkdir()
    cv2.imwrite(str(tmp_path / "album" / "a.png"), np.zeros((20, 30, 3), np.uint8))
    if content is not None:
        (tmp_path / "album" / "b.png").write_bytes(content)
    process = start(MODEL + '[[cameras]]\nname = "album"\nsource = "album"\n')
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (out, err)
    told = "Error: Nothing is left to serve. camera album: album/b.png is not an image" in err
    assert told == (code == 2), err
    assert "1 of 1 frames, 0 dropped" in out


def test_it_outlives_its_terminal_and_ends_with_0(tmp_path: Path) -> None:
    """Closing it sends SIGHUP, by which a daemon reads its configuration anew."""
    results, config = tmp_path / "r.jsonl", tmp_path / "run.toml"
    config.write_text(f'{MODEL}{ONE}[sinks]\njsonl = "{results}"\n')
    process, terminal = in_a_terminal("run", config)
    until_shown(terminal, "1 of 1 cameras live")
    os.close(terminal)
    time.sleep(2.5)  # lines for the terminal come each second
    before, until_s = results.stat().st_size, time.monotonic() + 20
    while results.stat().st_size == before:
        assert time.monotonic() < until_s, process.poll()
    process.terminate()
    assert process.wait(30) == 0


def test_sigterm_ends_it_within_a_second_with_whole_files(start: Start, tmp_path: Path) -> None:
    process = start(MODEL + TWO + '[sinks]\njsonl = "r.jsonl"\n')
    until_line(process, "2 of 2 cameras live")
    begin_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    took_s = time.monotonic() - begin_s
    assert (process.returncode, err) == (0, "")
    assert took_s < 10, "0.2 s on an idle machine; this one is very busy, or it waits for something"
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert f"{len(lines)} of " in out


def test_camera_that_is_away_and_a_config_that_is_refused_are_told_on_stderr(
    start: Start, tmp_path: Path
) -> None:
    away = '[[cameras]]\nname = "away"\nsource = "http://127.0.0.1:9/stream"\n'
    process = start(MODEL + ONE + away + "[sinks]\nterminal = false\n")
    assert process.stderr is not None
    assert re.match("camera away: (opening|degraded): .+", process.stderr.readline())
    (tmp_path / "run.toml").write_text(MODEL + ONE + "nonsense = 3\n")
    process.send_signal(signal.SIGHUP)
    told = next(line for line in process.stderr if line.startswith("configuration"))
    assert re.match("configuration refused, the old one goes on: .*nonsense", told)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_results_so_far_survive_a_kill(start: Start, tmp_path: Path) -> None:
    process = start(MODEL + ONE + '[sinks]\njsonl = "r.jsonl"\n')
    until_line(process, "1 of 1 cameras live")
    process.kill()
    process.wait(30)
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["camera"] == "door"


def test_sighup_takes_a_new_config_and_refuses_a_wrong_one(start: Start, tmp_path: Path) -> None:
    process = start(MODEL + ONE)
    until_line(process, "1 of 1 cameras live")
    (tmp_path / "run.toml").write_text("nonsense")
    process.send_signal(signal.SIGHUP)
    until_line(process, "1 of 1 cameras live")
    (tmp_path / "run.toml").write_text(MODEL + TWO)
    process.send_signal(signal.SIGHUP)
    until_line(process, "2 of 2 cameras live")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_systemd_hears_that_it_is_ready_gets_on_and_ends(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        process = start(MODEL + ONE, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        assert listener.recv(999).startswith(b"READY=1\nSTATUS=")
        heard = {listener.recv(999).split(b"=")[0] for _ in range(4)}
        assert b"WATCHDOG" in heard
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        last = b""
        listener.settimeout(1)
        while last != b"STOPPING=1":
            last = listener.recv(999)


def test_page_shows_the_cameras(start: Start) -> None:
    pytest.importorskip("uvicorn", reason="the extra `web` is not installed: no page was served")
    process = start(MODEL + TWO + "[web]\nport = 0\n")
    url = until_line(process, "The page is at").split()[-1]
    until_line(process, "2 of 2 cameras live")
    with urllib.request.urlopen(url + "readyz", timeout=10) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(url + "metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert re.search(r'camera="yard"', metrics)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
