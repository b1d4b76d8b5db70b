"""The server: starts or says why not, drops who is slow, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from web_stage import Still, cheap_hash, serving

from edge.errors import InputError
from edge.web import deadlines
from edge.web.app import make_app
from edge.web.live import LiveSink
from edge.web.server import WebServer, serve
from edge.web.settings import WebSettings

Clients = Callable[..., httpx.Client]


def test_a_port_in_use_is_one_clear_message_and_exit_code_2() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = WebServer(make_app(Still(), LiveSink(), settings := WebSettings(port=port)), settings)
        with pytest.raises(
            InputError, match=rf"on 127\.0\.0\.1 port {port}: the port is in use.*set `port` in \[web\]"
        ):
            server.start()
        assert InputError.exit_code == 2
        server.stop()
    assert web_threads() == []


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(cheap_hash("x"))
    settings = WebSettings(host="192.0.2.1", port=0, token_file=tmp_path / "token")
    with pytest.raises(InputError, match="has no such address"):
        serve(Still(), LiveSink(), settings)


@pytest.mark.skipif(os.geteuid() == 0, reason="skipped the low port: root may listen on any")
def test_a_low_port_needs_a_right() -> None:
    with pytest.raises(InputError, match="may not listen on so low a port"):
        serve(Still(), LiveSink(), WebSettings(port=1))


def test_a_bad_secret_file_is_found_before_anything_listens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        serve(Still(), LiveSink(), WebSettings(port=0, token_file=tmp_path / "none"))
    assert web_threads() == []


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_package_names_the_extra(package: str) -> None:
    said = python(
        f"""
import sys
sys.modules[{package!r}] = None  # as if it were not installed
from edge.errors import MissingPackageError
from edge.web.live import LiveSink
from edge.web.server import serve
from edge.web.settings import WebSettings
try:
    serve(None, LiveSink(), WebSettings(port=0))
except MissingPackageError as error:
    print(error)
"""
    )
    assert said.startswith(f"The web page needs the package '{package}")
    assert said.endswith("pip install '.[web]'")


def test_settings_and_the_sink_need_none_of_these_packages() -> None:
    loaded = python(
        "import sys; import edge.config, edge.web.settings, edge.web.live, edge.web.server; "
        "print([m for m in ('starlette', 'uvicorn', 'prometheus_client', 'cv2') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_starting_and_stopping_leaves_nothing(client: Clients) -> None:
    with serving(Still()):
        pass
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(3):
        with serving(Still()) as server:
            with httpx.Client(base_url=server.url) as http:
                assert http.get("/healthz").status_code == 200
            server.stop()
            server.stop()
        assert web_threads() == []
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_it_answers_on_ipv6_too(client: Clients) -> None:
    if not socket.has_ipv6 or not can_bind("::1"):
        pytest.skip("skipped IPv6: this machine has no ::1")
    with serving(Still(), host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert client(server).get("/healthz").status_code == 200


def can_bind(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind((host, 0))
    except OSError:
        return False
    return True


def web_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "web"]


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"POST /login HTTP/1.1\r\nHost: localhost\r\n"
     b"Content-Length: 10\r\n\r\nsec"],
)  # fmt: skip
def test_a_request_that_does_not_end_is_dropped(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "REQUEST_S", 0.3)
    with serving(Still()) as server, connection_to(server) as connection:
        connection.sendall(begun)
        begin_s = time.monotonic()
        assert ended(connection)
        assert 0.1 < time.monotonic() - begin_s < 3


def test_what_is_no_request_fills_no_journal(caplog: pytest.LogCaptureFixture) -> None:
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    with serving(Still()) as server:
        for sent in (b"\x16\x03\x01\x02\0", b"GET /\r\n\r\n", upgrade):
            with connection_to(server) as connection:
                connection.sendall(sent)
                assert connection.recv(1000).startswith(b"HTTP/1.1 ")
    assert caplog.messages == []


def test_a_second_request_that_trickles_in_is_dropped_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "REQUEST_S", 0.4)
    with serving(Still()) as server, connection_to(server) as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok\n"):
                answer += connection.recv(4096)
            time.sleep(0.6)  # idle between requests is allowed
        begin_s = time.monotonic()
        for byte in b"GET /healthz HTTP/1.1\r\nHost: local":
            try:
                connection.send(bytes([byte]))
            except OSError:
                break
            time.sleep(0.05)
        assert ended(connection)
        assert time.monotonic() - begin_s < 2.5


def test_many_slow_clients_leave_the_others_their_answers(client: Clients) -> None:
    with serving(Still()) as server:
        slow = [connection_to(server) for _ in range(60)]
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        http, times = client(server), []
        for _ in range(20):
            begin_s = time.monotonic()
            assert http.get("/healthz").status_code == 200
            times.append(time.monotonic() - begin_s)
        assert sorted(times)[10] < 0.5
        for connection in slow:
            connection.close()


def connection_to(server: WebServer) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=5)


def ended(connection: socket.socket) -> bool:
    """Whether the server closes the connection, politely or not."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return True
