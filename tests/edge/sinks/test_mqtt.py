"""Events to a real broker: none lost over its deaths and ours, and what comes twice is marked."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pydantic import ValidationError
from stage import INFO, faces, frame_at, stored_before_kill, until

from edge.errors import InputError, MissingPackageError
from edge.sinks.mqtt import MqttSettings, MqttSink
from edge.sinks.mqtt_sender import ASK_AGAIN_S
from edge.sinks.outbox import Outbox

RULES = {"enter_s": 0.0, "leave_s": 1e6}


def settings(folder: Path, port: int, **options: Any) -> MqttSettings:
    values = {"host": "127.0.0.1", "port": port, "outbox": folder / "outbox.sqlite"} | RULES | options
    return MqttSettings(**values)


class Subscriber:
    """Keeps what comes; connects again by itself, within a fifth of a second."""

    def __init__(self, port: int, topic: str = "sightline/#", **login: str) -> None:
        self.messages: list[tuple[str, dict[str, Any] | str]] = []
        self.subscribed = threading.Event()
        self.slowness_s = 0.0
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if login:
            self._client.username_pw_set(**login)
        self._client.reconnect_delay_set(0.05, 0.2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_disconnect = lambda *_: self.subscribed.clear()
        self._client.on_message = self._keep
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(self.subscribed.is_set)

    def _keep(self, client: Client, data: Any, message: Any) -> None:
        time.sleep(self.slowness_s)
        text = message.payload.decode()
        self.messages.append((message.topic, json.loads(text) if text.startswith("{") else text))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [m for _, m in self.messages if isinstance(m, dict)]

    @property
    def ids(self) -> set[str]:
        return {event["id"] for event in self.events}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def listening(port: int, **login: str) -> Iterator[Subscriber]:
    subscriber = Subscriber(port, **login)
    try:
        yield subscriber
    finally:
        subscriber.close()


@contextlib.contextmanager
def streaming(sink: MqttSink) -> Iterator[MqttSink]:
    sink.open(INFO)
    try:
        yield sink
    finally:
        sink.close()


def check_marks(events: list[dict[str, Any]]) -> None:
    """What comes again under the same id says so."""
    known: set[str] = set()
    for event in events:
        assert event["id"] not in known or event["sent_before"], "a duplicate that is not marked"
        known.add(event["id"])


def test_an_event_reaches_the_broker_and_leaves_the_outbox(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    port = broker().port
    with listening(port) as subscriber, streaming(MqttSink(settings(tmp_path, port))) as sink:
        sink.open(INFO)  # a second camera
        sink.write(frame_at(0, "front/door"), faces(4))
        until(lambda: sink.acknowledged == 1)
        sink.close()
        until(lambda: len(subscriber.events) == 2)
        until(lambda: subscriber.messages[-1][1] == "offline")
    topics = [topic for topic, _ in subscriber.messages]
    assert topics[0] == topics[-1] == "sightline/status"
    assert topics[1:-1] == ["sightline/front_door/face_entered", "sightline/front_door/face_left"]
    entered, left = subscriber.events
    assert (entered["seq"], entered["sent_before"], entered["track"]) == (1, False, 4)
    assert left["began"] == entered["id"]
    assert waiting(tmp_path) == 0


def test_what_happened_without_a_broker_is_sent_by_the_next_run(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    made = broker()
    made.kill()
    with streaming(MqttSink(settings(tmp_path, made.port))) as sink:
        sink.write(frame_at(0), faces(1))
        until(lambda: sink.stored == 1 and "refused" in sink.trouble)
        begin_s = time.monotonic()
        sink.close()
        assert time.monotonic() - begin_s < 3.0
    made.start()
    with listening(made.port) as subscriber, streaming(MqttSink(settings(tmp_path, made.port))) as sink:
        until(lambda: len(subscriber.events) == 2)
        until(lambda: sink.acknowledged == 2)
    assert [event["sent_before"] for event in subscriber.events] == [False, False]


def waiting(folder: Path) -> int:
    """Messages in the outbox."""
    with contextlib.closing(Outbox(folder / "outbox.sqlite")) as outbox:
        return len(outbox)


def through_kills(
    tmp_path: Path, made: Any, events: int, kills: int, slowness_s: float
) -> tuple[MqttSink, Subscriber]:
    """Send events steadily while the broker is killed and started again, until all have arrived."""
    chance = random.Random(3)
    sink = MqttSink(settings(tmp_path, made.port, needs_subscriber=True))
    with listening(made.port) as subscriber, streaming(sink):
        subscriber.slowness_s = slowness_s
        for number in range(kills):
            share = range(number * events // kills, (number + 1) * events // kills)
            killed_at = chance.choice(share)
            for track in share:
                sink.write(frame_at(track / 10), faces(track + 1))
                time.sleep(0.002)
                if track == killed_at:
                    made.kill()
                    restart = threading.Timer(chance.uniform(0.05, 0.4), made.start)
                    restart.start()
            restart.join()
            until(lambda: not sink.trouble)
        until(lambda: len(subscriber.ids) == events, timeout_s=60)
    return sink, subscriber


def check_kills(tmp_path: Path, made: Any, events: int, kills: int, slowness_s: float = 0.0) -> None:
    sink, subscriber = through_kills(tmp_path, made, events, kills, slowness_s)
    entered = [event for event in subscriber.events if event["kind"] == "face_entered"]
    assert {event["track"] for event in entered} == set(range(1, events + 1))
    assert sink.lost == 0
    check_marks(subscriber.events)
    twice = len(entered) - events
    print(f"{events} events, {kills} kills of the broker: 0 lost, {twice} came twice, all marked")


def test_no_event_is_lost_when_the_broker_is_killed(tmp_path: Path, broker: Callable[..., Any]) -> None:
    check_kills(tmp_path, broker(), events=300, kills=3)


def test_no_event_is_lost_that_a_killed_broker_had_taken_and_not_passed_on(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    check_kills(tmp_path, broker(), events=150, kills=3, slowness_s=0.005)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_event_of_2000_is_lost_when_the_broker_is_killed_20_times(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    check_kills(tmp_path, broker(), events=2000, kills=20)


def check_own_deaths(tmp_path: Path, made: Any, times: int) -> None:
    """Kill the daemon in the middle, again and again; then let one run send the rest."""
    file = tmp_path / "settings.json"
    file.write_text(settings(tmp_path, made.port).model_dump_json())
    chance = random.Random(5)
    with listening(made.port) as subscriber:
        stored = {
            f"run {n}": stored_before_kill("mqtt", file, f"run {n}", chance.uniform(0.0, 0.3))
            for n in range(times)
        }
        wanted = {(run, track) for run, count in stored.items() for track in range(1, count + 1)}
        with streaming(MqttSink(settings(tmp_path, made.port))):
            until(lambda: wanted <= {(event["camera"], event["track"]) for event in subscriber.events})
    assert waiting(tmp_path) == 0
    check_marks(subscriber.events)
    counted = Counter(event["seq"] for event in subscriber.events)
    assert sorted(counted) == list(range(1, len(counted) + 1)), "the numbers have no gap"


def test_no_stored_event_is_lost_when_the_daemon_is_killed(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    check_own_deaths(tmp_path, broker(), 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_stored_event_is_lost_when_the_daemon_is_killed_50_times(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    check_own_deaths(tmp_path, broker(), 50)


def test_a_full_outbox_gives_up_the_oldest_and_counts_them(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    made = broker()
    made.kill()
    with streaming(MqttSink(settings(tmp_path, made.port, max_rows=10))) as sink:
        for track in range(1, 31):
            sink.write(frame_at(track), faces(track))
        until(lambda: sink.stored == 30)
        assert sink.lost == 20
        made.start()
        with listening(made.port) as subscriber:
            until(lambda: sink.acknowledged == 10)
            until(lambda: len(subscriber.events) == 10)
    assert [event["seq"] for event in subscriber.events] == [*range(21, 31)]


def test_what_nobody_would_get_is_kept_where_that_is_wanted(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    port = broker().port
    with streaming(MqttSink(settings(tmp_path, port, needs_subscriber=True))) as sink:
        sink.write(frame_at(0), faces(1))
        until(lambda: "No matching subscribers" in sink.trouble)
        assert sink.acknowledged == 0
        with listening(port) as subscriber:
            until(lambda: sink.acknowledged == 1)
            until(lambda: len(subscriber.events) == 1)
            until(lambda: not sink.trouble)
    assert subscriber.events[0]["sent_before"] is True


def test_messages_that_are_always_refused_hold_up_no_others_and_bring_none_twice(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    """More of them than may be in flight; they stay in the outbox, and the reason names their topic."""
    made = broker()
    wanted = settings(tmp_path, made.port, needs_subscriber=True)
    yard = contextlib.closing(Subscriber(made.port, "sightline/yard/#"))
    with yard as subscriber, streaming(MqttSink(wanted)) as sink:
        for track in range(1, 31):
            sink.write(frame_at(track, "vault"), faces(track))
        until(lambda: "sightline/vault/face_entered: a message was not taken" in sink.trouble)
        for track in range(1, 6):
            sink.write(frame_at(track, "yard"), faces(track))
        until(lambda: len(subscriber.events) == 5)
        time.sleep(2 * ASK_AGAIN_S + 0.5)  # the refused ones are sent again, twice
        assert "No matching subscribers" in sink.trouble
        assert sink.acknowledged == 5
    entered = [event["track"] for event in subscriber.events if event["kind"] == "face_entered"]
    assert entered == [1, 2, 3, 4, 5]
    with contextlib.closing(Outbox(tmp_path / "outbox.sqlite")) as outbox:
        refused = [m.attempts for m in outbox.take(0, 1000) if m.topic == "sightline/vault/face_entered"]
    assert len(refused) == 30
    assert 2 <= max(refused) <= 6


def test_a_wrong_password_is_told_and_the_right_one_works(tmp_path: Path, broker: Callable[..., Any]) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    secret.write_text("opensesame\n")
    try:
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "camera", "opensesame"], check=True)
    except FileNotFoundError:
        pytest.skip("mosquitto_passwd is not installed: no password was tried")
    port = broker("allow_anonymous false", f"password_file {passwords}").port
    wrong = settings(tmp_path, port, username="camera", password="barleycorn")
    with streaming(MqttSink(wrong)) as sink:
        until(lambda: "Not authorized" in sink.trouble)
        assert "barleycorn" not in sink.trouble + repr(wrong) + wrong.model_dump_json() + repr(wrong.broker())
    right = settings(tmp_path, port, username="camera", password=f"${{file:{secret}}}")
    with streaming(MqttSink(right)) as sink:
        sink.write(frame_at(0), faces(1))
        until(lambda: sink.acknowledged == 1)


def authority(folder: Path) -> None:
    """A certificate authority `ca.pem`, and a broker's certificate for localhost that it signed."""
    subject = ["-subj", "/CN=a test's authority"]
    new = ["openssl", "req", "-nodes", "-newkey", "rsa:2048"]
    commands = [
        [*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", *subject],
        [*new, "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=localhost"],
        ["openssl", "x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key"],
    ]
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    commands[-1] += ["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "broker.pem"]
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


# paho-mqtt leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed.*SSLSocket:ResourceWarning")
def test_tls_checks_the_brokers_certificate(tmp_path: Path, broker: Callable[..., Any]) -> None:
    try:
        authority(tmp_path)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: no encrypted connection was made")
    files = [f"certfile {tmp_path / 'broker.pem'}", f"keyfile {tmp_path / 'broker.key'}"]
    port = broker("allow_anonymous true", *files).port
    encrypted = {"host": "localhost", "tls": True}
    with streaming(MqttSink(settings(tmp_path, port, **encrypted))) as sink:
        until(lambda: "certificate verify failed" in sink.trouble)
    with streaming(MqttSink(settings(tmp_path, port, ca_file=tmp_path / "ca.pem", **encrypted))) as sink:
        sink.write(frame_at(0), faces(1))
        until(lambda: sink.acknowledged >= 1)
    other_name = encrypted | {"host": "127.0.0.1"}
    with streaming(MqttSink(settings(tmp_path, port, ca_file=tmp_path / "ca.pem", **other_name))) as sink:
        until(lambda: "not valid for '127.0.0.1'" in sink.trouble)


def test_a_broker_that_says_nothing_does_not_hold_up_the_stream_or_its_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with streaming(MqttSink(settings(tmp_path, silent.getsockname()[1]))) as sink:
            begin_s = time.monotonic()
            for track in range(1, 501):
                sink.write(frame_at(track), faces(track))
            assert time.monotonic() - begin_s < 3.0
            until(lambda: sink.stored == 500)
            begin_s = time.monotonic()
        assert time.monotonic() - begin_s < 3.0
    assert sink.lost == 0


def test_a_publication_that_the_broker_denies_is_told_as_denied(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    """Also by mosquitto 2.0.11, which says so and hangs up."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite sightline/status\n")
    port = broker("allow_anonymous true", f"acl_file {rules}").port
    with streaming(MqttSink(settings(tmp_path, port))) as sink:
        sink.write(frame_at(0), faces(1))
        until(
            lambda: "sightline/stream/face_entered: a message was not taken: Not authorized" in sink.trouble
        )


def test_a_broker_that_takes_connections_and_hangs_up_is_asked_more_and_more_rarely(tmp_path: Path) -> None:
    """As mosquitto 2.0.11 does where its ACL denies a publication."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        connections, until_s = 0, time.monotonic() + 3.0
        with streaming(MqttSink(settings(tmp_path, server.getsockname()[1]))):
            while time.monotonic() < until_s:
                with contextlib.suppress(TimeoutError), server.accept()[0] as client:
                    connections += 1
                    client.recv(1000)
                    client.sendall(b"\x20\x03\0\0\0")  # CONNACK: welcome
    assert 2 <= connections <= 7


@pytest.mark.slow
def test_the_last_will_of_an_earlier_connection_does_not_have_the_last_word(
    tmp_path: Path, broker: Callable[..., Any]
) -> None:
    """A device that lost its power is back before the broker knows that it was gone."""
    port = broker().port
    gone = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    gone.will_set("sightline/status", "offline", retain=True)
    gone.connect("127.0.0.1", port, keepalive=1)
    until(lambda: gone.loop(0.1) or gone.is_connected())
    with listening(port) as subscriber, streaming(MqttSink(settings(tmp_path, port, keepalive_s=1))):
        until(lambda: "offline" in [said for _, said in subscriber.messages])
        until(lambda: subscriber.messages[-1][1] == "online")
    gone.disconnect()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"password": "a"}, "belongs to a username"),
        ({"ca_file": "ca.pem"}, "set tls = true"),
        ({"tls": True, "cert_file": "a.pem"}, "belong together"),
        ({"topic": "a/+/b"}, "should match pattern"),
        ({"topic": ""}, "should match pattern"),
        ({"username": "camera", "pasword": "a"}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(tmp_path, 1883, **options)


def test_the_port_is_that_of_the_protocol_unless_it_is_given() -> None:
    ports = [MqttSettings(host="b", **given).broker().port for given in ({}, {"tls": True}, {"port": 9})]
    assert ports == [1883, 8883, 9]


def test_an_outbox_that_cannot_be_used_is_named_and_no_thread_is_left(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_text("no database, but a text of some length" * 100)
    before = threading.active_count()
    with pytest.raises(InputError, match=r"outbox.sqlite cannot be used for an MQTT outbox: file is not a"):
        MqttSink(settings(tmp_path, 1)).open(INFO)
    until(lambda: threading.active_count() == before)


def test_an_outbox_that_another_process_empties_is_refused_until_that_one_ends(tmp_path: Path) -> None:
    file, outbox = tmp_path / "settings.json", tmp_path / "outbox.sqlite"
    file.write_text(settings(tmp_path, 1).model_dump_json())
    command = [sys.executable, str(Path(__file__).with_name("driver.py")), "mqtt", str(file), "other"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline()
            with pytest.raises(InputError, match=r"outbox\.sqlite is in use by another Sightline"):
                MqttSink(settings(tmp_path, 1)).open(INFO)
        finally:
            other.kill()
    with streaming(MqttSink(settings(tmp_path, 1))) as sink:
        assert outbox.exists()
        assert sink.lost == 0


def test_without_paho_the_error_names_the_extra_and_no_thread_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(MissingPackageError, match=r"pip install '\.\[mqtt\]'"):
        MqttSink(settings(tmp_path, 1)).open(INFO)
    assert threading.active_count() == before


def test_files_and_variables_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROKER_PASSWORD", raising=False)
    login = {"username": "camera", "password": "${env:BROKER_PASSWORD}"}
    with pytest.raises(InputError, match="BROKER_PASSWORD is not set"):
        MqttSink(settings(tmp_path, 1883, **login))
    with pytest.raises(InputError, match=r"ca.pem, named in \[sinks.mqtt\], cannot be read: No such file"):
        MqttSink(settings(tmp_path, 1883, tls=True, ca_file=tmp_path / "ca.pem"))
    monkeypatch.setenv("BROKER_PASSWORD", "opensesame")
    broker = settings(tmp_path, 1883, **login).broker()
    assert broker.password is not None
    assert broker.password.get_secret_value() == "opensesame"


@given(st.text(min_size=5).map(lambda text: f"{text}Q7Z"))  # In no word of ours, as `username` is.
def test_no_password_shows_in_any_text_of_the_settings(password: str) -> None:
    made = MqttSettings(host="broker", username="camera", password=password)
    shown = f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"
    if not password.startswith("${"):
        shown += repr(made.broker())
    assert password not in shown


@given(st.text())
def test_any_camera_name_gives_a_topic_of_three_levels(camera: str) -> None:
    sink = MqttSink(MqttSettings(host="broker"))
    (event,) = streamed(sink, camera)
    topic = sink._topic_of(event)
    assert topic.count("/") == 2
    assert not set("+#\x00") & set(topic)


def streamed(sink: MqttSink, camera: str) -> list[Any]:
    sink._watch.update(frame_at(0, camera), faces(1))
    return sink._watch.update(frame_at(0.5, camera), faces(1))
