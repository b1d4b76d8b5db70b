"""Frames with tracked faces and classes, as the models would give them; and a real MQTT broker."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import Classification, Faces, FrameResult

LABELS = ("cat", "dog", "fox")
INFO = SourceInfo("camera", 64, 48, 25.0, None, "arrival")


def frame_at(seconds: float, camera: str = "", shape: tuple[int, int] = (48, 64)) -> Frame:
    """A grey frame that was captured so many seconds after a moment in the past."""
    frame = Frame(camera=camera)
    frame.buffer(*shape)[:] = 120
    frame.stamps.capture = 1_000_000_000 + round(seconds * 1e9)
    return frame


def faces(*tracks: int, score: float = 0.9) -> FrameResult:
    """Faces of these tracks."""
    boxes = np.tile(np.array([8, 8, 24, 24], np.float32), (len(tracks), 1))
    return FrameResult({"face": Faces(boxes, np.full(len(tracks), score, np.float32), np.array(tracks, int))})


def animal(cat: float, dog: float = 0.0) -> FrameResult:
    """What a classifier of three classes says."""
    scores = np.array([cat, dog, 1 - cat - dog], np.float32)
    best = int(scores.argmax())
    return FrameResult({"pets": Classification(scores, best, LABELS[best])})


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for something to come true."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        time.sleep(0.01)


class Mosquitto:
    """A broker on a port of its own, that can be killed and started again."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        # Where root runs the tests, the broker would become another user, who cannot read the folder.
        lines = ["user root", f"listener {self.port} 127.0.0.1", "max_queued_messages 0", *settings]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [mosquitto() or "mosquitto", "-c", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        except OSError:
            return False
        return True


def mosquitto() -> str | None:
    """Debian puts it where a user's path does not lead."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def stored_before_kill(kind: str, settings: Path, camera: str, seconds: float) -> int:
    """Run `driver.py` in a process of its own and kill it so long after its first stored event.

    Returns:
        How many events it said were stored.
    """
    command = [sys.executable, str(Path(__file__).with_name("driver.py")), kind, str(settings), camera]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            time.sleep(seconds)
        finally:
            process.kill()
        return int((first + process.stdout.read()).split()[-1])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def disk_of(folder: Path) -> os.statvfs_result:
    """How full it is."""
    return os.statvfs(folder)
