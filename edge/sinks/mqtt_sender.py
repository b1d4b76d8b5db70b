"""The thread that brings messages from the outbox to the broker, one connection after the other.

It drives paho-mqtt's network loop itself. So there is one thread, no lock, and no queue of messages
but the outbox: each connection begins with a new client that knows nothing of the one before.
"""

from __future__ import annotations

import math
import random
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from edge.errors import InputError, MissingPackageError
from edge.sinks.outbox import Message, Outbox

if TYPE_CHECKING:
    from paho.mqtt.client import Client

CONNECT_S = 5.0
LOOP_S = 0.05
"""How long one turn of the network loop waits for the broker: an event's delay at most."""

RETRY_S = (0.2, 15.0)
"""The first and the longest pause between two connections; a random part of it is taken off."""

STEADY_S = 1.0
"""A connection that ends sooner counts as one that failed: a broker may take it and hang up at once."""

BROKER_LATE_S = 10.0
"""How much later than it should a broker finds a client gone; mosquitto looks each five seconds."""

ASK_AGAIN_S = 1.0
"""How long messages rest that the broker did not take, while newer ones are sent."""

IN_FLIGHT = 20
"""Messages that wait for their acknowledgement; a broker that announces less gets less."""

_NO_SUBSCRIBERS = 16
_REFUSALS = 128


@dataclass(frozen=True)
class Broker:
    """Where to connect to; see `edge.sinks.mqtt.MqttSettings`. The password is masked in its `repr`."""

    host: str
    port: int
    status_topic: str
    client_id: str = ""
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 15
    resend_s: float = 5.0
    needs_subscriber: bool = False


def require_paho() -> None:
    """Raises MissingPackageError where paho-mqtt is not installed."""
    try:
        import paho.mqtt.client  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("paho-mqtt", "mqtt", "The MQTT sink") from error


class Sender:
    """Sends what is in the outbox, for ever.

    Attributes:
        acknowledged: messages that the broker has taken.
        trouble: why there is no connection, or why the last message was not taken; empty when all is well.
    """

    def __init__(self, broker: Broker, outbox: Path) -> None:
        self._broker, self._path = broker, outbox
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._deadline_s = 0.0
        self._pause_s = RETRY_S[0]
        self.acknowledged = 0
        self.trouble = ""

    def open(self) -> None:
        """Start."""
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    def close(self, linger_s: float) -> None:
        """Send what can be sent within `linger_s`, and end the connection."""
        if self._thread is not None:
            self._deadline_s = time.monotonic() + linger_s
            self._ending.set()
            self._thread.join(linger_s + 0.2)  # a connection that is being made cannot be interrupted
            self._thread = None

    def _run(self) -> None:
        self._pause_s = RETRY_S[0]
        while not self._ending.is_set():
            try:
                self._connection()
            except (OSError, ValueError, sqlite3.Error, InputError) as error:
                self.trouble = f"{self._broker.host}:{self._broker.port}: {error}"
            self._ending.wait(self._pause_s * random.uniform(0.5, 1.0))
            self._pause_s = min(RETRY_S[1], self._pause_s * 2)

    def _connection(self) -> None:
        """One connection, from its beginning to its end."""
        outbox = Outbox(self._path)
        try:
            talk = _Talk(self._broker, outbox)
            try:
                talk.begin()
                self.trouble = ""
                self._talk(talk)
            finally:
                talk.end()
        finally:
            outbox.close()

    def _talk(self, talk: _Talk) -> None:
        ending, steady_s = False, time.monotonic() + STEADY_S
        while not (ending and (talk.idle or time.monotonic() > self._deadline_s)):
            ending = self._ending.is_set()  # before the outbox is looked at for the last time
            talk.send()
            self.acknowledged += talk.turn(LOOP_S)
            self.trouble = talk.refusal
            if time.monotonic() >= steady_s:
                self._pause_s = RETRY_S[0]


class _Talk:
    """One client, its messages in flight, and what the broker said.

    Attributes:
        refusal: why the broker does not take a message that waits; empty when none does.
        idle: nothing is in flight, and nothing was in the outbox but what was refused.
    """

    def __init__(self, broker: Broker, outbox: Outbox) -> None:
        self._broker, self._outbox = broker, outbox
        self._client = _client(broker)
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        self._answer: str | None = None
        self._room = IN_FLIGHT
        self._in_flight: dict[int, Message] = {}  # by paho's number
        self._taken: deque[tuple[float, int]] = deque()  # when, and the message's number in the outbox
        self._refused: OrderedDict[int, None] = OrderedDict()  # numbers, longest refused first
        self._count = 0
        self._after = 0
        self._not_before_s = 0.0
        self._online_again_s = math.inf
        self.refusal = ""
        self.idle = False

    def begin(self) -> None:
        """Connect; raises OSError when there is nobody, or the broker refuses or does not answer."""
        from paho.mqtt.enums import MQTTErrorCode

        self._client.connect(self._broker.host, self._broker.port, self._broker.keepalive_s)
        deadline_s = time.monotonic() + CONNECT_S
        while self._answer is None and time.monotonic() < deadline_s:
            if self._client.loop(LOOP_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        if self._answer != "":
            raise ConnectionError(self._answer or "the broker does not answer; is it an MQTT 5 broker?")
        self._tell_status("online")
        # A broker that still waits for our last connection, of before a power cut say, tells its end only later.
        self._online_again_s = time.monotonic() + 2 * self._broker.keepalive_s + BROKER_LATE_S

    def send(self) -> None:
        """Publish the next messages, as many as may be in flight."""
        room = self._room - len(self._in_flight)
        if room <= 0:
            return
        messages = self._again(room) or self._outbox.take(self._after, room)
        for message in messages:
            self._publish(message)
        self.idle = not messages and not self._in_flight

    def _again(self, room: int) -> list[Message]:
        """Of those that were refused, when it is their time; one that is always refused holds up no other."""
        asked = any(message.seq in self._refused for message in self._in_flight.values())
        if asked or time.monotonic() < self._not_before_s:
            return []
        while self._refused:
            first = list(islice(self._refused, room))
            messages = self._outbox.take_again(first)
            for sequence in {*first} - {message.seq for message in messages}:
                self._forget_refusal(sequence)  # given up meanwhile: the outbox was full
            if messages:
                return messages
        return []

    def turn(self, wait_s: float) -> int:
        """Read and write what there is; returns how many messages the broker has taken.

        Raises:
            OSError: the connection is broken. sqlite3.Error: the outbox could not be changed.
        """
        from paho.mqtt.client import error_string
        from paho.mqtt.enums import MQTTErrorCode

        code = self._client.loop(wait_s)
        self._forget_taken(time.monotonic() - self._broker.resend_s)
        if time.monotonic() >= self._online_again_s:
            self._online_again_s = math.inf
            self._tell_status("online")
        count, self._count = self._count, 0
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ConnectionError(self.refusal or self._answer or error_string(code))
        return count

    def end(self) -> None:
        """Say goodbye, if there is anybody; then what the broker has taken is out of danger."""
        if self._client.is_connected():
            self._forget_taken(math.inf)
            self._tell_status("offline")
            self._client.disconnect()
        for attribute in ("on_connect", "on_publish", "on_disconnect"):  # no cycle keeps the sockets open
            setattr(self._client, attribute, None)

    def _forget_taken(self, before_s: float) -> None:
        """Delete what was acknowledged before then. If the connection breaks, the rest is sent again."""
        done = []
        while self._taken and self._taken[0][0] <= before_s:
            done.append(self._taken.popleft()[1])
        self._outbox.acknowledged(done)

    def _tell_status(self, status: str) -> None:
        self._client.publish(self._broker.status_topic, status, qos=0, retain=True)

    def _publish(self, message: Message) -> None:
        self._after = max(self._after, message.seq)
        self._in_flight[self._client.publish(message.topic, message.payload, qos=1).mid] = message

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._answer = f"the broker refuses the connection: {reason}" if reason.is_failure else ""
        self._room = min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", IN_FLIGHT))

    def _on_disconnect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._answer = self._answer or f"the connection ended: {reason}"  # a refusal says more

    def _on_publish(self, client: Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        message = self._in_flight.pop(mid, None)
        if message is None:  # the status, which is not from the outbox
            return
        unheard = reason.value == _NO_SUBSCRIBERS and self._broker.needs_subscriber
        if reason.value < _REFUSALS and not unheard:
            self._taken.append((time.monotonic(), message.seq))
            self._count += 1
            self._forget_refusal(message.seq)
            return
        self.refusal = f"{message.topic}: a message was not taken: {reason}"
        self._refused[message.seq] = None
        self._refused.move_to_end(message.seq)
        self._not_before_s = time.monotonic() + ASK_AGAIN_S

    def _forget_refusal(self, sequence: int) -> None:
        self._refused.pop(sequence, None)
        if not self._refused:
            self.refusal = ""


def _client(broker: Broker) -> Client:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    client = Client(CallbackAPIVersion.VERSION2, broker.client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect_timeout = CONNECT_S
    client.max_inflight_messages_set(IN_FLIGHT)
    client.will_set(broker.status_topic, "offline", qos=0, retain=True)
    if broker.username is not None:
        client.username_pw_set(
            broker.username, broker.password.get_secret_value() if broker.password else None
        )
    if broker.tls:
        ca, cert, key = (str(p) if p else None for p in (broker.ca_file, broker.cert_file, broker.key_file))
        client.tls_set(ca_certs=ca, certfile=cert, keyfile=key)
    return client
