"""The TCP proxy, with real sockets: as a user starts it, and a real video through it."""

from __future__ import annotations

import http.server
import json
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import fault_proxy
from edge.fault_proxy import read_schedule

ROOT = Path(__file__).parents[2]
SOON_S, QUIET_S = 10.0, 0.3


class Echo(socketserver.BaseRequestHandler):
    """Gives back what it gets, until the other side has finished."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reset is what these tests are about."""


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Proxy:
    """`python -m edge.fault_proxy` in a process of its own."""

    def __init__(self, target: int, *arguments: str) -> None:
        command = [sys.executable, "-m", "edge.fault_proxy", "--to", f"127.0.0.1:{target}", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self.port = int(self.answer()["listens"])

    def say(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), SOON_S)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("quit\n")
        self.process.stdin.close()
        assert self.process.wait(SOON_S) == 0
        self.process.stdout.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with ExitStack() as stack:
        proxy = Proxy(echo)
        stack.callback(proxy.close)
        yield proxy


def receive(client: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or fewer if the other side ended."""
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    return data


def is_silent(client: socket.socket) -> bool:
    """Nothing comes, and the connection is not ended either."""
    client.settimeout(QUIET_S)
    try:
        client.recv(1)
    except socket.timeout:  # noqa: UP041 - an alias only since Python 3.10
        return True
    finally:
        client.settimeout(SOON_S)
    return False


def test_it_forwards_everything_both_ways_and_passes_the_end_on(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 8192
    with proxy.connect() as client:
        writing = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
        writing.start()
        assert receive(client, len(sent) + 1) == sent
        writing.join()
    assert proxy.say("status")["forwarded_bytes"] == 2 * len(sent)


def test_half_open_keeps_the_connection_and_loses_nothing(proxy: Proxy) -> None:
    with proxy.connect() as client:
        client.sendall(b"before")
        assert receive(client, 6) == b"before"
        assert proxy.say("half-open")["forwards"] is False
        client.sendall(b"held back")
        assert is_silent(client)
        with proxy.connect() as late:
            late.sendall(b"late")
            assert is_silent(late)
            proxy.say("pass")
            assert receive(client, 9) == b"held back"
            assert receive(late, 4) == b"late"


def test_a_cut_resets_what_there_is_and_takes_new_connections(proxy: Proxy) -> None:
    with proxy.connect() as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        proxy.say("cut")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with proxy.connect() as client:
        client.sendall(b"y")
        assert receive(client, 1) == b"y"


def test_a_half_open_connection_can_be_cut(proxy: Proxy) -> None:
    with proxy.connect() as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        proxy.say("half-open")
        proxy.say("cut")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert proxy.say("pass")["connections"] == 0


def test_refused_until_pass(proxy: Proxy) -> None:
    assert proxy.say("refuse")["accepts"] is False
    with pytest.raises(ConnectionRefusedError):
        proxy.connect()
    proxy.say("pass")
    with proxy.connect() as client:
        client.sendall(b"back")
        assert receive(client, 4) == b"back"


def test_delay_is_there_each_way_and_does_not_add_up(proxy: Proxy) -> None:
    proxy.say("delay 0.2")
    with proxy.connect() as client:
        began_s = time.monotonic()
        for _ in range(5):
            client.sendall(b"ping")
            time.sleep(0.02)
        assert receive(client, 20) == b"ping" * 5
        took_s = time.monotonic() - began_s
    assert took_s >= 0.4
    assert took_s < 2.0, "each piece is delayed once, not after the one before it"


def test_a_throttled_connection_trickles(proxy: Proxy) -> None:
    proxy.say("throttle 20000")
    with proxy.connect() as client:
        began_s = time.monotonic()
        client.sendall(b"x" * 8000)
        first = client.recv(100_000)
        assert receive(client, 8000 - len(first)) == b"x" * (8000 - len(first))
        assert time.monotonic() - began_s >= 0.4
    assert len(first) < 8000


@pytest.mark.parametrize("line", ["explode", "delay", "delay soon", "delay -1", "throttle nan", "pass now"])
def test_what_it_does_not_understand_changes_nothing(proxy: Proxy, line: str) -> None:
    before = proxy.say("status")
    answer = proxy.say(line)
    assert answer["understood"] is False
    assert {**answer, "command": "status", "understood": True} == before


def test_a_schedule_is_carried_out_without_anybody_typing(echo: int) -> None:
    proxy = Proxy(echo, "--schedule", "0.1 half-open; 0.2 pass; 0.3 quit")
    assert [proxy.answer()["command"] for _ in range(2)] == ["half-open", "pass"]
    proxy.process.wait(SOON_S)
    proxy.process.communicate()
    assert proxy.process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "nowhere"], "HOST:PORT"),
        (["--to", "localhost:99999"], "HOST:PORT"),
        (["--to", "localhost:80", "--schedule", "soon pass"], "10 half-open"),
    ],
)
def test_a_wrong_call_is_explained(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "edge.fault_proxy", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert said in done.stderr


def test_a_port_that_is_taken_is_named(echo: int) -> None:
    command = [sys.executable, "-m", "edge.fault_proxy", "--listen", str(echo), "--to", "127.0.0.1:9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"127.0.0.1:{echo}" in done.stderr


def test_a_server_that_is_not_there_resets_the_client(echo: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = Proxy(closed.getsockname()[1])
        with proxy.connect() as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.close()


def test_a_server_that_resets_is_not_turned_into_one_that_said_good_bye() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = Proxy(server.getsockname()[1])
        with proxy.connect() as client:
            taken, _ = server.accept()
            taken.sendall(b"half a pic")
            assert receive(client, 10) == b"half a pic"
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, fault_proxy.RESET)
            taken.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        proxy.close()


commands = st.sampled_from(["half-open", "pass", "cut", "delay 0.5"])


@given(st.lists(st.tuples(st.integers(0, 10**6).map(lambda n: n / 8), commands)))
def test_a_schedule_is_read_in_order_of_time(items: list[tuple[float, str]]) -> None:
    text = "; ".join(f"{at_s} {command}" for at_s, command in items)
    assert read_schedule(text) == sorted(items, key=lambda item: item[0])


def test_http_through_the_proxy(tmp_path: Path) -> None:
    (tmp_path / "film.bin").write_bytes(b"f" * 300_000)

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = Proxy(server.server_address[1])
        with proxy.connect() as client:
            client.sendall(b"GET /film.bin HTTP/1.0\r\n\r\n")
            answer = receive(client, 10**6)
        proxy.close()
        server.shutdown()
    assert answer.partition(b"\r\n\r\n")[2] == b"f" * 300_000


def test_the_page_names_every_command_and_its_schedule_can_be_read() -> None:
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    commands = re.findall(
        r"^\| `([a-z-]+)(?: [\d.]+)?` \| ", text.partition("## The fault proxy")[2], re.MULTILINE
    )
    assert commands == ["pass", "half-open", "cut", "refuse", "delay", "throttle", "status", "quit"]
    assert fault_proxy.__doc__
    assert all(re.search(rf"^    {name}\b", fault_proxy.__doc__, re.MULTILINE) for name in commands)
    (schedule,) = re.findall(r"--schedule '(.*)'", text)
    assert [command for _, command in read_schedule(schedule)] == ["half-open", "pass", "cut", "quit"]
