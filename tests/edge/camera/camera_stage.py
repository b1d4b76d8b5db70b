"""Cameras to test with: a real RTSP server in a process of its own, a real HTTP server, and who reads them."""

from __future__ import annotations

import base64
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from edge.camera.decoder import SYSTEM_PYTHON
from edge.camera.source import CameraSource
from edge.frame import Frame

PATIENCE_S = 30.0


@functools.cache
def why_no_rtsp() -> str:
    """Why there is no RTSP server here; empty where there is one."""
    return _complaint(
        "gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer; "
        "assert any(map(Gst.ElementFactory.find, ('x264enc', 'openh264enc'))), 'no H.264 encoder'"
    )


@functools.cache
def why_no_gstreamer() -> str:
    """Why there is no GStreamer for Python here; empty where there is one."""
    return _complaint("assert Gst.ElementFactory.find('videotestsrc'), 'no videotestsrc'")


def _complaint(check: str) -> str:
    code = (
        f"import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); {check}"
    )
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


class RtspServer:
    """`rtsp_server.py` beside this file; keeps its port when it is started again.

    Args:
        options: of that script, such as `width=320`.
    """

    def __init__(self, **options: object) -> None:
        self.options = options
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        """Without a user."""
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def uri_for(self, user: str, password: str) -> str:
        """With one."""
        return f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{self.port}/stream"

    def start(self, **changes: object) -> float:
        """Switch it on, perhaps with other options; returns the monotonic time at which its port is open."""
        self.options |= changes
        options = [word for key, value in self.options.items() for word in (f"--{key}", str(value))]
        script = str(Path(__file__).with_name("rtsp_server.py"))
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, script, "--port", str(self.port), *options], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        word, _, port = self._process.stdout.readline().partition(" ")
        if word != "ready":
            self.stop()
            raise AssertionError("the server says why on its standard error")
        self.port = int(port)
        return time.monotonic()

    def stop(self) -> None:
        """Switch it off, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """Its connections stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class MjpegServer:
    """A web camera: `/stream` is MJPEG, `/private` needs `user` and `password`, `/clip.mp4` is a file.

    Attributes:
        width, height: of the pictures from now on.
        streaming: while it is cleared, connections stay open and silent.
        clip: the content of the file.
    """

    user, password = "viewer", "p@ss:w/rd%#?"
    period_s = 0.05

    def __init__(self) -> None:
        self.width, self.height, self.clip = 320, 240, b""
        self.streaming = threading.Event()
        self.streaming.set()
        self._ending = threading.Event()
        handler = type("Handler", (_Handler,), {"camera": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.streaming.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def ending(self) -> bool:
        """It is being switched off."""
        return self._ending.is_set()

    def uri(self, path: str = "/stream", login: str = "") -> str:
        """Of a path, with `user:password@` or another login before the host."""
        return f"http://{login}127.0.0.1:{self._server.server_port}{path}"

    @property
    def login(self) -> str:
        """`user:password@`, percent-encoded."""
        return f"{self.user}:{quote(self.password, safe='')}@"

    def picture(self) -> bytes:
        """A red JPEG of the present size."""
        pixels = np.zeros((self.height, self.width, 3), np.uint8)
        pixels[..., 2] = 255
        return bytes(cv2.imencode(".jpg", pixels)[1])


class _Handler(BaseHTTPRequestHandler):
    camera: MjpegServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/clip.mp4":
            self._whole(self.camera.clip)
        elif path == "/private" and not self._knows_the_password():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif path in ("/stream", "/private"):
            self._stream()
        else:
            self.send_error(404)

    def _whole(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _knows_the_password(self) -> bool:
        login = f"{self.camera.user}:{self.camera.password}".encode()
        return self.headers.get("Authorization") == f"Basic {base64.b64encode(login).decode()}"

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            while not self.camera.ending:
                self.camera.streaming.wait()
                picture = self.camera.picture()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                time.sleep(self.camera.period_s)
        except OSError:
            pass  # the client is gone

    def log_message(self, *_: object) -> None:
        """Nothing: tests are quiet."""


class Reader:
    """Reads a camera on a thread of its own, as the daemon does.

    Attributes:
        came_s: when each frame came, on the monotonic clock; sizes: (width, height) of each.
        error: what the camera raised.
    """

    def __init__(self, camera: CameraSource) -> None:
        self.camera = camera
        self.came_s: list[float] = []
        self.sizes: list[tuple[int, int]] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.camera.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "stop ends the reader"

    def frame_after(self, begin_s: float) -> float:
        """When the first frame since `begin_s` came; waits for it."""
        wait_until(lambda: self.came_s and self.came_s[-1] > begin_s)
        return next(at_s for at_s in self.came_s if at_s > begin_s)

    def gap_s(self, begin_s: float) -> float:
        """The longest time between two frames since the last one before `begin_s`, until another 3 came."""
        seen = sum(at_s <= begin_s for at_s in self.came_s)
        wait_until(lambda: len(self.came_s) > seen + 3)
        came_s = self.came_s[max(0, seen - 1) :]
        return max(b - a for a, b in pairwise(came_s))

    def _run(self) -> None:
        frame = Frame()
        try:
            self.camera.open()
            while self.camera.read(frame):
                self.came_s.append(time.monotonic())
                self.sizes.append((frame.pixels.shape[1], frame.pixels.shape[0]))
        except BaseException as error:
            self.error = error
        finally:
            self.camera.close()


def wait_until(holds: Callable[[], object], patience_s: float = PATIENCE_S) -> float:
    """Look until it holds; when that was, on the monotonic clock."""
    deadline_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline_s, f"nothing within {patience_s:.0f} s"
        time.sleep(0.005)
    return time.monotonic()


def start_s() -> float:
    """How long a decoder's process takes to start now: limits grow with it, where a machine is busy."""
    begin_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import av"], check=True)
    return time.monotonic() - begin_s


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
        shared = Path("/dev/shm")
        return cls(
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),
            len(_children()),
            len(os.listdir(shared)) if shared.is_dir() else 0,
        )

    @classmethod
    def settled(cls, before: Left) -> Left:
        """After a moment in which the system may tidy up."""
        for _ in range(100):
            if cls.now() == before:
                break
            time.sleep(0.02)
        return cls.now()


def _children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [pid for task in tasks for pid in task.read_text().split()]
