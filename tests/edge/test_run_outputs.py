"""What `sightline run` does with the files and brokers that it writes to, when they are not as it wants them."""

from __future__ import annotations

import errno
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.config import StreamSettings
from edge.errors import InputError
from edge.run import ended_by_signals
from edge.tables import RUNNERS
from edge.wiring import check_outputs

Command = Callable[..., Any]


def test_an_output_in_the_place_of_the_source_is_refused_before_anything_is_opened(
    command: Command, tmp_path: Path
) -> None:
    recording = tmp_path / "c.mp4"
    recording.write_bytes(b"a recording")
    ended = command("run", "--source", recording, "--frames", 3, "--lossless", "--video", recording)
    assert ended.code == 2
    assert ended.err.startswith(
        f"Error: 'sinks.video' in the command line: {recording} is that of 'source', too: give each"
    )
    assert recording.read_bytes() == b"a recording"


def test_the_folder_of_earlier_snapshots_is_taken_and_a_file_in_its_place_is_not(tmp_path: Path) -> None:
    def with_snapshots_in(folder: Path) -> StreamSettings:
        return StreamSettings.model_validate({"sinks": {"snapshots": {"folder": folder}}})

    check_outputs(with_snapshots_in(tmp_path))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="is no folder"):
        check_outputs(with_snapshots_in(file))


def test_what_the_sinks_lost_is_told_at_the_end_even_when_quiet(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colour_bundle: Path
) -> None:
    def full(log: object, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edge.sinks.rotating.RotatingFile._append", full)
    config, log, events = (tmp_path / name for name in ("run.toml", "r.jsonl", "events.sqlite"))
    config.write_text(
        f'[sinks]\njsonl = "{log}"\njsonl_max_bytes = 1000\n[sinks.events]\npath = "{events}"\n'
        f'[sinks.mqtt]\nhost = "127.0.0.1"\nport = {closed_port()}\noutbox = "{tmp_path}/outbox.sqlite"\n'
    )
    ended = command("run", config, "--model", colour_bundle, "--frames", 30, "--quiet")
    assert (ended.code, ended.out) == (0, "")
    jsonl, mqtt = ended.err.splitlines()
    assert jsonl == f"sink jsonl: 30 lost: {log} cannot be written: No space left on device"
    assert re.fullmatch(r"sink mqtt: 127\.0\.0\.1:\d+: .*Connection refused", mqtt)


@pytest.mark.parametrize(
    ("before", "calls"), [(lambda *_: None, 1), (signal.SIG_IGN, 0)], ids=["usual", "nohup"]
)
def test_a_hangup_ends_a_stream_unless_it_was_to_be_ignored(before: Any, calls: int) -> None:
    found, stops = signal.signal(signal.SIGHUP, before), []
    try:
        with ended_by_signals(lambda: stops.append(1)):
            signal.raise_signal(signal.SIGHUP)
        assert len(stops) == calls
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, found)


def test_one_frame_is_no_frames(command: Command, colour_bundle: Path) -> None:
    assert "ms (1 frame)" in command("run", "--model", colour_bundle, "--frames", 1).out


@pytest.mark.parametrize("subcommand", ["run", "profile"])
def test_the_help_names_cameras_and_every_backend(command: Command, subcommand: str) -> None:
    told = " ".join(command(subcommand, "--help").out.split())
    for word in ("rtsp://", "http://", "/dev/video0", *RUNNERS):
        assert word in told, word


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
