"""What `bench/faults.py` stands on: a camera that is watched, and what a process leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from edge.camera.source import CameraSource
from edge.errors import InputError
from edge.frame import Frame

SERVER = Path(__file__).parents[1] / "tests/edge/camera/rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"
NEEDS = "On Debian: apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly"
FPS = 25

PATIENCE_S = 30.0
"""A camera that says nothing for so long is given up; the round counts as failed."""

LOOK_S = 0.005
"""Between two looks at the camera's state: the resolution of every figure."""


class GaveUp(Exception):
    """What was waited for did not come within `PATIENCE_S`."""


class Server:
    """GStreamer's RTSP server in a process of its own, always on the same port.

    Args:
        size: (width, height) of its pictures.

    Attributes:
        uri: where it serves; size: of its pictures now; pid: of its process.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self._port = size, "0"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Server:
        self.start(self.size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def uri(self) -> str:
        """Where it serves."""
        return f"rtsp://127.0.0.1:{self._port}/stream"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None, "start comes first"
        return self._process.pid

    def start(self, size: tuple[int, int]) -> float:
        """Serve pictures of this size; when its port was open, on the monotonic clock."""
        self.size = size
        wanted = ["--port", self._port, "--width", str(size[0]), "--height", str(size[1]), "--fps", str(FPS)]
        command = [SYSTEM_PYTHON, str(SERVER), *wanted]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        word, _, port = self._process.stdout.readline().strip().partition(" ")
        if word != "ready":
            raise InputError(
                f"The RTSP server does not start: {self._process.communicate()[1].strip()}. {NEEDS}"
            )
        self._port = port
        return time.monotonic()

    def revive(self) -> bool:
        """Start it again where it has crashed, as GStreamer's does once in some hundred cut connections."""
        assert self._process is not None, "start comes first"
        if self._process.poll() is None:
            return False
        self._process.communicate()
        self.start(self.size)
        return True

    def kill(self) -> float:
        """End it as a power cut does; when, on the monotonic clock."""
        assert self._process is not None, "start comes first"
        self._process.kill()
        killed_s = time.monotonic()
        self._process.communicate()
        return killed_s

    def freeze(self) -> float:
        """Stop it with its sockets open; when, on the monotonic clock."""
        os.kill(self.pid, signal.SIGSTOP)
        return time.monotonic()

    def thaw(self) -> float:
        """Let it go on; when, on the monotonic clock."""
        os.kill(self.pid, signal.SIGCONT)
        return time.monotonic()


class Watched:
    """A camera that is read as fast as it goes, and when its frames came.

    Args:
        uri: of the camera.

    Attributes:
        came_s: when each frame came, on the monotonic clock; size: (width, height) of the newest.
    """

    def __init__(self, uri: str) -> None:
        self._source = CameraSource(uri, keep_trying=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.came_s: list[float] = []
        self.size = (0, 0)

    def __enter__(self) -> Watched:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.stop()
        self._reader.join(PATIENCE_S)

    @property
    def is_live(self) -> bool:
        """What the camera says of itself."""
        return self._source.health().state == "streaming"

    @property
    def decoder(self) -> int | None:
        """The process that decodes now."""
        return self._source.child_pid

    def frame_after(self, begin_s: float) -> float:
        """When the first frame since `begin_s` (monotonic) came; waits for it. Raises GaveUp."""
        wait_until(lambda: self.came_s and self.came_s[-1] > begin_s)
        return self.came_s[bisect_right(self.came_s, begin_s)]

    def longest_gap_s(self, begin_s: float) -> float:
        """The longest time without a frame since the last one before `begin_s`."""
        came_s = self.came_s[max(0, bisect_right(self.came_s, begin_s) - 1) :]
        return max((b - a for a, b in pairwise(came_s)), default=0.0)

    def _read(self) -> None:
        frame = Frame()
        try:
            self._source.open()
            while self._source.read(frame):
                self.size = (frame.pixels.shape[1], frame.pixels.shape[0])
                self.came_s.append(time.monotonic())
        finally:
            self._source.close()


def wait_until(holds: Callable[[], object], patience_s: float = PATIENCE_S) -> float:
    """Look until it holds; when that was, on the monotonic clock. Raises GaveUp."""
    deadline_s = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise GaveUp(f"nothing within {patience_s:.0f} s")
        time.sleep(LOOK_S)
    return time.monotonic()


@dataclass(frozen=True)
class Left:
    """What a process holds: threads, open descriptors, children (zombies too), files in /dev/shm."""

    threads: int
    descriptors: int
    children: int
    shared_files: int

    @classmethod
    def now(cls) -> Left:
        """Of this process."""
        return cls(
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),
            len(children()),
            len(os.listdir("/dev/shm")),
        )

    def beyond(self, before: Left) -> dict[str, int]:
        """What came on top, by name; empty when nothing did."""
        more = {name: value - getattr(before, name) for name, value in self.__dict__.items()}
        return {name: value for name, value in more.items() if value > 0}


def children(parent: int | None = None) -> set[int]:
    """The processes that `parent` (this one) started and that are not reaped."""
    found, own = set(), os.getpid() if parent is None else parent
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[1]) == own:
                found.add(int(entry.name))
    return found
