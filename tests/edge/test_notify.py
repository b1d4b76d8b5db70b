"""What systemd would receive, on a real socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(2)
        yield listener


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}


def test_messages_arrive_as_sd_notify_has_them(systemd: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier(environment(tmp_path))
    notifier.ready("2 of 2 cameras\nlive")
    assert systemd.recv(999) == b"READY=1\nSTATUS=2 of 2 cameras live"
    notifier.reloading()
    first, second = systemd.recv(999).decode().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) == pytest.approx(time.monotonic_ns() / 1e3, abs=1e6)
    notifier.stopping()
    assert systemd.recv(999) == b"STOPPING=1"


def test_watchdog_is_fed_by_progress_at_half_its_period_and_only_then(
    systemd: socket.socket, tmp_path: Path
) -> None:
    notifier = Notifier(environment(tmp_path, WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid())))
    end_s, calls = time.monotonic() + 0.55, 0
    while time.monotonic() < end_s:
        notifier.progress()
        calls += 1
        time.sleep(0.001)
    systemd.settimeout(0.05)
    fed = 0
    while True:
        try:
            assert systemd.recv(99) == b"WATCHDOG=1"
        except TimeoutError:
            break
        fed += 1
    assert 3 <= fed <= 6 < calls


@pytest.mark.parametrize(
    "more", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}]
)
def test_no_watchdog_for_us_is_not_fed(systemd: socket.socket, tmp_path: Path, more: dict[str, str]) -> None:
    Notifier(environment(tmp_path, **more)).progress()
    systemd.settimeout(0.05)
    with pytest.raises(TimeoutError):
        systemd.recv(99)


@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/at/all"])
def test_without_systemd_nothing_happens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"})
    notifier.ready("x")
    notifier.progress()
    notifier.stopping()
