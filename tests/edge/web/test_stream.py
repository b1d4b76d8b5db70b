"""Live pictures over HTTP: the newest ones, a bounded number of viewers, and no memory for slow ones."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from web_stage import Feeder, Still, serving, snapshot

from edge.web import deadlines
from edge.web.live import LiveSink
from edge.web.server import WebServer

Clients = Callable[..., httpx.Client]


@pytest.fixture
def live() -> Iterator[LiveSink]:
    sink = LiveSink(fps=60)
    yield sink
    sink.close()


def parts(answer: httpx.Response) -> Iterator[bytes]:
    """The JPEGs of a multipart stream, each read by its Content-Length."""
    left, chunks = b"", answer.iter_raw()

    def until(size: int) -> None:
        nonlocal left
        while len(left) < size:
            left += next(chunks)

    while True:
        while b"\r\n\r\n" not in left:
            left += next(chunks)
        head, _, left = left.partition(b"\r\n\r\n")
        assert head.endswith(b"Content-Length: " + head.split(b": ")[-1])
        assert b"--picture\r\nContent-Type: image/jpeg" in head
        size = int(head.split(b": ")[-1])
        until(size)
        yield left[:size]
        left = left[size:]


def is_picture(jpeg: bytes) -> bool:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return pixels is not None and pixels.shape == (180, 320, 3)


def wait_until(reached: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end_s, "not reached in time"
        time.sleep(0.01)


def connected(server: WebServer, camera: str, receive_buffer: int = 4096) -> socket.socket:
    """A viewer that has asked and does not read."""
    address = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((address.hostname, address.port))
    connection.sendall(f"GET /stream/{camera}.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def test_a_stream_is_one_picture_after_the_other(live: LiveSink, client: Clients) -> None:
    with Feeder(live, "door", "yard"), serving(Still(), live) as server:
        with client(server).stream("GET", "/stream/door.mjpg") as answer:
            assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=picture"
            assert answer.headers["cache-control"] == "no-store"
            pictures = parts(answer)
            assert all(is_picture(next(pictures)) for _ in range(5))
            assert live.viewers == 1
        wait_until(lambda: live.viewers == 0)
        assert len(server._app.state.streams) == 0


def test_a_stream_ends_when_a_reload_has_taken_its_camera_away(
    live: LiveSink, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.web.stream.LOOK_S", 0.1)
    state = Still()
    with serving(state, live) as server, client(server).stream("GET", "/stream/door.mjpg") as answer:
        chunks = answer.iter_raw()
        assert next(chunks).startswith(b"--picture")
        time.sleep(0.3)
        assert live.viewers == 1, "one that is only silent stays"
        state.content = snapshot("yard")
        assert list(chunks) == []
    assert live.viewers == 0


def test_a_single_picture(live: LiveSink, client: Clients) -> None:
    with Feeder(live, "door", "yard"), serving(Still(), live) as server:
        answer = client(server).get("/snapshot/yard.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert is_picture(answer.content)


def test_a_camera_that_is_not_there_or_gives_nothing_is_told_apart(
    live: LiveSink, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.web.stream.SNAPSHOT_S", 0.2)
    with serving(Still(), live) as server:
        http = client(server)
        assert http.get("/snapshot/nobody.jpg").status_code == 404
        assert http.get("/stream/nobody.mjpg").status_code == 404
        silent = http.get("/snapshot/door.jpg")
        assert (silent.status_code, silent.headers["retry-after"]) == (503, "2")
        assert http.head("/stream/door.mjpg").status_code == 200
    assert live.viewers == 0
    assert "nobody" not in live._channels  # what is asked for takes no memory


def test_a_viewer_without_pictures_is_noticed_when_it_goes(live: LiveSink) -> None:
    with serving(Still(), live) as server:
        connection = connected(server, "door")
        wait_until(lambda: live.viewers == 1)
        connection.close()
        wait_until(lambda: live.viewers == 0)


def test_there_are_no_more_viewers_than_allowed(live: LiveSink, client: Clients) -> None:
    with Feeder(live, "door"), serving(Still(), live, max_viewers=2) as server:
        viewers = [connected(server, "door") for _ in range(2)]
        wait_until(lambda: live.viewers == 2)
        http = client(server)
        assert http.get("/stream/door.mjpg").status_code == 503
        assert http.get("/snapshot/door.jpg").json() == {"error": "2 viewers watch already (max_viewers)."}
        viewers.pop().close()
        wait_until(lambda: live.viewers == 1)
        assert http.get("/snapshot/door.jpg").status_code == 200
        viewers.pop().close()


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="skipped the memory bound: no /proc here")
def test_viewers_that_do_not_read_cost_no_memory_and_leave_the_others_their_pictures(
    live: LiveSink, client: Clients
) -> None:
    # Noise: some 100 kB a picture, so that 16 viewers would soon have taken hundreds of megabytes.
    with (
        Feeder(live, "door", fps=60, height=360, width=640, noise=True),
        serving(Still(), live, max_viewers=32) as server,
    ):
        stuck = [connected(server, "door") for _ in range(16)]
        wait_until(lambda: live.viewers == 16)
        time.sleep(0.5)
        before_mb, before = resident_mb(), live.encoded
        with client(server).stream("GET", "/stream/door.mjpg") as answer:
            pictures = parts(answer)
            received = sum(len(next(pictures)) for _ in range(30))
        assert received > 30 * 50_000
        assert live.encoded - before >= 29
        assert resident_mb() - before_mb < 12
        for connection in stuck:
            connection.close()


def test_a_viewer_that_never_reads_is_dropped(live: LiveSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "WRITE_S", 0.3)
    with Feeder(live, "door", height=360, width=640, noise=True), serving(Still(), live) as server:
        connection = connected(server, "door")
        wait_until(lambda: live.viewers == 1)
        wait_until(lambda: live.viewers == 0)
        wait_until(lambda: not server._server.server_state.connections)
        connection.close()


def test_a_slow_viewer_sees_the_present_and_not_the_past(live: LiveSink) -> None:
    """It reads a fifth of what is made, for 2 s: in a queue its last picture would be 1.6 s old."""
    made: list[tuple[float, bytes]] = []
    with (
        live.watch("door", lambda: made.append((time.monotonic(), live.newest("door").jpeg))),
        Feeder(live, "door", height=360, width=640, noise=True, changing=True),
        serving(Still(), live) as server,
        connected(server, "door", receive_buffer=16384) as connection,
    ):
        wait_until(lambda: len(made) > 20)
        allowed = sum(len(jpeg) for _, jpeg in made) / (made[-1][0] - made[0][0]) / 5
        begin_s, taken, newest = time.monotonic(), b"", -1
        while (now_s := time.monotonic()) - begin_s < 2.0:
            if len(taken) < allowed * (now_s - begin_s):
                taken += connection.recv(4096)
            else:
                time.sleep(0.005)
    for number, (_, jpeg) in enumerate(made):
        newest = number if jpeg in taken else newest
    assert sum(jpeg in taken for _, jpeg in made) < len(made) / 2  # it missed most
    assert begin_s + 2.0 - made[newest][0] < 1.2


def test_the_server_stops_at_once_although_somebody_watches(live: LiveSink) -> None:
    with Feeder(live, "door", "yard"):
        with serving(Still(), live) as server:
            viewers = [connected(server, name) for name in ("door", "yard")]
            wait_until(lambda: live.viewers == 2)
            begin_s = time.monotonic()
            server.stop()
            took_s = time.monotonic() - begin_s
        assert took_s < 2.5
        assert live.viewers == 0
        assert not [thread for thread in threading.enumerate() if thread.name == "web"]
        for connection in viewers:
            connection.close()
