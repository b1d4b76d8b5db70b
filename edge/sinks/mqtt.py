"""Events to an MQTT broker: none lost, and what may come twice is marked.

Every event is committed to an outbox first (`edge.sinks.outbox`) and deleted there only when the
broker has acknowledged it (QoS 1, PUBACK) and lived on for a few seconds. After a broken connection, a
killed broker or a killed daemon, what is still there is sent again, with `sent_before` true.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from edge.errors import InputError
from edge.files import alone_with
from edge.secret import resolved
from edge.sinks.event_writer import EventWriter
from edge.sinks.happenings import Event, EventRules
from edge.sinks.mqtt_sender import Broker, Sender, require_paho
from edge.sinks.outbox import SCHEMA, adder

LINGER_S = 0.5
"""How long the end waits for the broker; what it has not acknowledged is sent by the next run."""


class MqttSettings(EventRules):
    """`[sinks.mqtt]`.

    Attributes:
        host, port: of the broker; the port is 1883, or 8883 with TLS, unless given.
        topic: the first part of every topic: `TOPIC/CAMERA/KIND`, and `TOPIC/status` (retained: `online`
            or `offline`). Without a camera's name its part is `stream`.
        outbox: the database of what the broker has not yet; one for each daemon.
        max_rows: of the outbox; the oldest beyond it are given up and counted.
        username, password: the password may be a reference, `${file:/path}` or `${env:NAME}`.
        tls: encrypted, with the broker's name checked against its certificate.
        ca_file: of a private authority; the system's authorities otherwise.
        cert_file, key_file: of this client, where the broker asks for it.
        resend_s: keep an event so long after its acknowledgement, and send it again when the connection
            breaks in this time: a broker that is killed takes along what it has not passed on yet.
        needs_subscriber: keep an event until somebody was subscribed when it came. A broker without
            persistence forgets its subscribers when it is killed, and acknowledges what nobody gets.
    """

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    topic: str = Field(default="sightline", pattern=r"^[^+#/\x00$][^+#\x00]*$", max_length=200)
    client_id: str = ""
    outbox: Path = Path("mqtt-outbox.sqlite")
    max_rows: int = Field(default=100_000, ge=1)
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = Field(default=15, ge=1, le=65535)
    resend_s: float = Field(default=5.0, ge=0)
    needs_subscriber: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> MqttSettings:
        if self.password is not None and self.username is None:
            raise ValueError("a password belongs to a username: set it")
        if self.ca_file or self.cert_file or self.key_file:
            if not self.tls:
                raise ValueError("certificates are for TLS: set tls = true")
            if (self.cert_file is None) != (self.key_file is None):
                raise ValueError("cert_file and key_file belong together")
        return self

    def broker(self) -> Broker:
        """Where to connect to; raises InputError where a secret or a certificate cannot be read."""
        for path in filter(None, (self.ca_file, self.cert_file, self.key_file)):
            _check_readable(path)
        return Broker(
            host=self.host,
            port=self.port or (8883 if self.tls else 1883),
            client_id=self.client_id,
            username=self.username,
            password=self._secret(),
            tls=self.tls,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            keepalive_s=self.keepalive_s,
            resend_s=self.resend_s,
            status_topic=f"{self.topic}/status",
            needs_subscriber=self.needs_subscriber,
        )

    def _secret(self) -> SecretStr | None:
        if self.password is None or not self.password.get_secret_value().startswith("${"):
            return self.password
        return SecretStr(resolved(self.password.get_secret_value()))


class MqttSink(EventWriter):
    """Publishes every event as one JSON object (`Event.as_record`) with two more fields.

    * `seq`: counts the messages of this outbox; a gap is a loss (an outbox that was full).
    * `sent_before`: the receiver may have it already, under the same `id`.

    Attributes:
        stored: events that are in the outbox or have left it; lost: that were given up.
        acknowledged: messages that the broker has.
        trouble: what is wrong at the moment with the disk or the broker; empty when all is well.
    """

    def __init__(self, settings: MqttSettings) -> None:
        """Raises MissingPackageError where paho-mqtt is not installed, or as `MqttSettings.broker`."""
        require_paho()
        super().__init__(settings, settings.outbox, SCHEMA, adder(self._topic_of, settings.max_rows))
        self._topic, self._outbox, self._held = settings.topic, settings.outbox, ExitStack()
        self._sender = Sender(settings.broker(), settings.outbox)

    @property
    def acknowledged(self) -> int:
        return self._sender.acknowledged

    @property
    def trouble(self) -> str:
        return super().trouble or self._sender.trouble

    def prepare(self) -> None:
        """Begin. A broker that is not there is no error: it may come.

        Raises:
            InputError: the outbox cannot be used, or another process sends what is in it, too.
        """
        if not self._opened:
            self._held.enter_context(alone_with(self._outbox))
            super().prepare()
            self._sender.open()

    def close(self) -> None:
        """End what is still there, commit it, and give the broker half a second to take it."""
        opened = self._opened
        super().close()
        if opened:
            self._sender.close(LINGER_S)
        self._held.close()

    def _topic_of(self, event: Event) -> str:
        """`sightline/front door/face_entered`; what a topic must not hold becomes an underscore."""
        camera = re.sub(r"[+#/\x00]", "_", event.camera) or "stream"
        return f"{self._topic}/{camera}/{event.kind}"


def _check_readable(path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}, named in [sinks.mqtt], cannot be read: {error.strerror}. Check the path and its "
            "permissions."
        ) from error
