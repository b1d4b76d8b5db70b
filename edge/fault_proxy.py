"""A TCP proxy that spoils the network on command: what a camera behind a bad switch looks like.

    python -m edge.fault_proxy --listen 8555 --to 127.0.0.1:8554 [--schedule '10 half-open; 30 pass']

Commands, one a line on the standard input, or in a schedule with the second each is due:

    pass               forward everything (the beginning), and forget delay and throttle
    half-open          keep every connection open and forward nothing, as a pulled cable does; new
                       connections are taken and stay silent
    cut                reset the connections there are; new ones are taken
    refuse             reset the connections there are and refuse new ones, until `pass`
    delay SECONDS      every piece of data arrives so much later
    throttle BYTES     at most so many bytes a second, in each direction of each connection
    status             only answer
    quit               end

Each command is answered with one line of JSON: the command, whether it was understood, and what the
proxy does now. Standard library only, so that the file can be copied to any machine with a Python.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace

CHUNK = 65_536
"""The most that is in the proxy's hands at a time, in bytes, for each direction of a connection."""

LINE = 256
"""Pieces of data that may be on their way while they are delayed; more wait in the sender."""

CONNECT_S = 5.0
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on with 0 seconds: `close` sends a reset instead of a good-bye."""


@dataclass(frozen=True)
class Weather:
    """What the network is like.

    Attributes:
        forwards: False is half-open; accepts: False refuses new connections.
        delay_s: seconds; bytes_per_s: of each direction of each connection, 0 for no limit.
    """

    forwards: bool = True
    accepts: bool = True
    delay_s: float = 0.0
    bytes_per_s: float = 0.0


class Proxy:
    """Forwards `port` (0: any free one) of `host` to `target`; used in one event loop.

    Attributes:
        weather: what it does now; port: where it listens; forwarded: bytes so far, both directions.
    """

    def __init__(self, target: tuple[str, int], port: int = 0, host: str = "127.0.0.1") -> None:
        self.weather, self.port, self.forwarded, self.taken = Weather(), port, 0, 0
        self._host, self._target = host, target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[object]] = set()
        self._clear = asyncio.Event()
        self._clear.set()

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything, with resets."""
        connections = set(self._connections)
        self._refuse()
        if connections:
            await asyncio.wait(connections)

    async def become(self, weather: Weather) -> None:
        """Change what the network is like; data held back while half-open moves on with `forwards`."""
        self.weather = weather
        (self._clear.set if weather.forwards else self._clear.clear)()
        if not weather.accepts:
            self._refuse()
        elif self._server is None:
            await self.start()

    def cut(self) -> None:
        """Reset every connection that there is."""
        for connection in self._connections:
            connection.cancel()

    def status(self) -> dict[str, object]:
        """What it does and did: `{"listens", "forwards", "accepts", "delay_s", "bytes_per_s", ...}`."""
        seen = {"connections": len(self._connections), "taken": self.taken, "forwarded_bytes": self.forwarded}
        return {"listens": self.port} | self.weather.__dict__ | seen

    def _refuse(self) -> None:
        """Take no more connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until both directions have ended, or until its task is cancelled."""
        task, sides = asyncio.current_task(), [writer]
        assert task is not None
        self._connections.add(task)
        self.taken += 1
        with suppress(OSError, asyncio.TimeoutError, asyncio.CancelledError):
            await self._clear.wait()
            opening = asyncio.open_connection(*self._target, limit=CHUNK)
            from_server, to_server = await asyncio.wait_for(opening, CONNECT_S)
            sides.append(to_server)
            await asyncio.gather(self._forward(reader, to_server), self._forward(from_server, writer))
            for side in sides:
                side.close()
        for side in sides:
            if not side.is_closing():
                _reset(side)
        self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, in order; its end is passed on, so that a client may finish sending first.

        Raises ConnectionResetError where the sender did not say good-bye.
        """
        line: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(LINE)
        taking = asyncio.ensure_future(self._take(reader, line))
        try:
            arrived_s, data = await line.get()
            while data:
                await self._give(writer, arrived_s, data)
                arrived_s, data = await line.get()
        finally:
            taking.cancel()
        await self._clear.wait()
        if data is None:
            raise ConnectionResetError
        writer.write_eof()

    async def _take(
        self, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes | None]]
    ) -> None:
        """Put what arrives on the line, with the time of its arrival; nothing while half-open.

        The last one is empty at an end, and None at a reset.
        """
        data: bytes | None = None
        try:
            while data != b"":
                await self._clear.wait()
                data = await reader.read(CHUNK)
                await line.put((time.monotonic(), data))
        except OSError:
            await line.put((time.monotonic(), None))

    async def _give(self, writer: asyncio.StreamWriter, arrived_s: float, data: bytes) -> None:
        """Send it when the weather lets it through: a throttled stream trickles, each 0.1 s its part."""
        rate = self.weather.bytes_per_s
        size = max(1, int(rate / 10)) if rate else len(data)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            due_s = arrived_s + self.weather.delay_s - time.monotonic()
            await asyncio.sleep(max(due_s, len(piece) / rate if rate else 0.0))
            await self._clear.wait()
            writer.write(piece)
            await writer.drain()
            self.forwarded += len(piece)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, as a machine that lost its power and came back would."""
    with suppress(OSError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def obey(proxy: Proxy, line: str) -> bool:
    """Carry out one command; False when it is not one."""
    name, _, text = line.strip().partition(" ")
    number = _number(text) if text else None
    now = proxy.weather
    if name in ("delay", "throttle") and number is not None:
        changed = replace(now, delay_s=number) if name == "delay" else replace(now, bytes_per_s=number)
        await proxy.become(changed)
        return True
    if text:
        return False
    weathers = {"pass": Weather(), "half-open": replace(now, forwards=False)}
    weathers["refuse"] = replace(now, accepts=False)
    if name in weathers:
        await proxy.become(weathers[name])
    elif name == "cut":
        proxy.cut()
    return name in weathers or name in ("cut", "status")


def read_schedule(text: str) -> list[tuple[float, str]]:
    """`'10 half-open; 30 pass'` as (second, command), in order of time; raises ValueError."""
    items = [item.strip() for item in text.split(";") if item.strip()]
    schedule = []
    for item in items:
        second, _, command = item.partition(" ")
        at_s = _number(second)
        if at_s is None or not command.strip():
            raise ValueError(f"'{item}' is not a second and a command, as in '10 half-open; 30 pass'")
        schedule.append((at_s, command.strip()))
    return sorted(schedule, key=lambda entry: entry[0])


def _number(text: str) -> float | None:
    with suppress(ValueError):
        value = float(text)
        return value if 0 <= value < 1e12 else None
    return None


async def run(proxy: Proxy, schedule: list[tuple[float, str]], lines: bool = True) -> None:
    """Serve until `quit`; the end of the standard input ends nothing."""
    await proxy.start()
    orders: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    _answer("start", True, proxy)
    for at_s, command in schedule:
        loop.call_later(at_s, orders.put_nowait, command)
    if lines:
        threading.Thread(target=_read_lines, args=(loop, orders), daemon=True).start()
    while (line := await orders.get()).strip() != "quit":
        _answer(line.strip(), await obey(proxy, line), proxy)
    await proxy.stop()


def _read_lines(loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[str]) -> None:
    """In a thread of its own: a standard input that is a file or /dev/null cannot be waited on."""
    with suppress(RuntimeError):  # the loop has ended meanwhile
        for line in sys.stdin:
            if line.strip():
                loop.call_soon_threadsafe(orders.put_nowait, line)


def _answer(command: str, understood: bool, proxy: Proxy) -> None:
    print(json.dumps({"command": command, "understood": understood} | proxy.status()), flush=True)


def main() -> None:
    """The command; exit code 2 for a wrong call or a port that is taken."""
    parser = argparse.ArgumentParser("python -m edge.fault_proxy", description="A TCP proxy with faults.")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where the real server is")
    parser.add_argument("--schedule", default="", help="'10 half-open; 30 pass; 60 quit'")
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        parser.error(f"--to is HOST:PORT, not '{given.to}'")
    try:
        asyncio.run(run(Proxy((host, int(port)), given.listen, given.host), read_schedule(given.schedule)))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot listen on {given.host}:{given.listen}: {error.strerror}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
