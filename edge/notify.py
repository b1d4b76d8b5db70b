"""What systemd wants to know of a service: that it is ready, that it gets on, and when it ends.

The protocol is one datagram a message to the socket in NOTIFY_SOCKET; see sd_notify(3). Without that
variable, as on a terminal, nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Tells systemd. A message that cannot be sent is dropped: it must not stop the stream.

    The watchdog is fed by `progress`, which whoever does the work calls when a piece of it is done. A
    timer that feeds it would go on feeding when the work hangs.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._period_s = _half_of_the_watchdog_s(environment)
        self._fed_s = float("-inf")

    def ready(self, status: str) -> None:
        """The service serves."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """The configuration is read anew; `ready` says when that is done."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def progress(self) -> None:
        """A piece of work is done, or there is knowingly none; costs a comparison most of the time."""
        if self._period_s is None:
            return
        now_s = time.monotonic()
        if now_s - self._fed_s >= self._period_s:
            self._fed_s = now_s
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(message.encode(), self._address)
        except OSError:
            return


def _address(text: str) -> str | None:
    """A path, or `@name` of the abstract namespace, whose first byte is zero."""
    if not text.startswith(("/", "@")):
        return None
    return "\0" + text[1:] if text.startswith("@") else text


def _half_of_the_watchdog_s(environment: Mapping[str, str]) -> float | None:
    """systemd asks for a sign of life at least each WATCHDOG_USEC, from this very process."""
    wanted, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not wanted.isdecimal() or int(wanted) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(wanted) / 2e6


def _line(text: str) -> str:
    return " ".join(text.split())
