"""What a broker hears, byte by byte; of MQTT 5.0 as much as that takes."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from stage import INFO, faces, frame_at

from edge.sinks.mqtt import MqttSettings, MqttSink
from edge.sinks.outbox import Outbox

CONNECT, PUBLISH, DISCONNECT = 1, 3, 14
WELCOME = b"\x20\x06\0\0\x03\x21\0\x02"
"""CONNACK with a Receive Maximum of two."""

RETAINED, WITH_WILL_RETAINED = 0b0001, 0b0010_0100
"""Of a PUBLISH, and of a CONNECT; the quality of service is 0 in both."""


class Wire:
    """A broker's end of one connection."""

    def __init__(self, server: socket.socket) -> None:
        server.settimeout(20)
        self.connection, _ = server.accept()
        self._bytes = b""

    def packets(self, seconds: float) -> list[tuple[int, int, bytes]]:
        """Type, flags and content of what comes within this time, or until the other end hangs up."""
        end_s = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left_s := end_s - time.monotonic()) > 0:
                self.connection.settimeout(left_s)
                if not (more := self.connection.recv(65536)):
                    break
                self._bytes += more
        found = []
        while self._bytes:
            size, at = self._bytes[1] & 127, 2
            if self._bytes[1] > 127:
                size, at = size + 128 * self._bytes[2], 3
            found.append((self._bytes[0] >> 4, self._bytes[0] & 15, self._bytes[at : at + size]))
            self._bytes = self._bytes[at + size :]
        return found

    def events(self, seconds: float) -> dict[bytes, dict[str, Any]]:
        """What is published to be acknowledged, by its number."""
        published = [content for kind, flags, content in self.packets(seconds) if (kind, flags) == (3, 2)]
        split = ((content, 2 + int.from_bytes(content[:2], "big")) for content in published)
        return {content[end : end + 2]: json.loads(content[end + 3 :]) for content, end in split}

    def take(self, numbers: Any) -> None:
        self.connection.sendall(b"".join(b"\x40\x02" + number for number in numbers))


def marks(events: dict[bytes, dict[str, Any]]) -> list[tuple[int, bool]]:
    return [(event["seq"], event["sent_before"]) for event in events.values()]


def test_a_broker_gets_no_more_than_it_takes_and_again_what_it_may_have_lost(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sink = MqttSink(MqttSettings(host="127.0.0.1", port=port, outbox=path, enter_s=0.0, leave_s=1e6))
        sink.open(INFO)
        for track in range(1, 6):
            sink.write(frame_at(track), faces(track))
        wire = Wire(server)
        ((kind, _, content),) = wire.packets(0.5)
        assert (kind, content[7] & 0b0011_1100) == (CONNECT, WITH_WILL_RETAINED)
        assert content.endswith(b"sightline/status\0\x07offline")
        wire.connection.sendall(WELCOME)
        first = wire.events(1.0)
        assert marks(first) == [(1, False), (2, False)]
        wire.take(list(first)[:1])
        assert marks(wire.events(0.5)) == [(3, False)]
        wire.connection.close()

        wire = Wire(server)
        wire.packets(0.5)
        wire.connection.sendall(WELCOME)
        again = wire.events(1.0)
        assert marks(again) == [(1, True), (2, True)], "the first was acknowledged just before the end"
        wire.take(again)
        last = wire.events(0.5)
        assert marks(last) == [(3, True), (4, False)]
        wire.take(last)
        wire.take(wire.events(0.5))
        time.sleep(0.2)
        sink.close()
        *_, status, goodbye = wire.packets(1.0)
        assert status == (PUBLISH, RETAINED, b"\0\x10sightline/status\0offline")
        assert goodbye[0] == DISCONNECT
        wire.connection.close()
    with contextlib.closing(Outbox(path)) as outbox:
        assert [message.seq for message in outbox.take(0, 100)] == [6, 7, 8, 9, 10], "that the faces are gone"


def test_the_pause_between_two_connections_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.mqtt_sender.RETRY_S", (0.01, 0.04))
    connections, until_s = 0, time.monotonic() + 2.0
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sink = MqttSink(MqttSettings(host="127.0.0.1", port=port, outbox=tmp_path / "outbox.sqlite"))
        sink.open(INFO)
        server.settimeout(0.05)
        while time.monotonic() < until_s:
            with contextlib.suppress(TimeoutError):
                server.accept()[0].close()
                connections += 1
        sink.close()
    assert connections >= 12


def test_a_broker_that_was_there_for_a_while_is_asked_soon_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.mqtt_sender.RETRY_S", (0.02, 5.0))
    monkeypatch.setattr("edge.sinks.mqtt_sender.STEADY_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sink = MqttSink(MqttSettings(host="127.0.0.1", port=port, outbox=tmp_path / "outbox.sqlite"))
        sink.open(INFO)
        for _ in range(7):
            Wire(server).connection.close()
        wire = Wire(server)
        wire.packets(0.1)
        wire.connection.sendall(WELCOME)
        wire.packets(0.5)
        begin_s = time.monotonic()
        wire.connection.close()
        Wire(server).connection.close()
        assert time.monotonic() - begin_s < 1.0, "the eighth pause in a row would take 1.3 s at least"
        sink.close()
