"""A daemon under faults: how soon it serves and ends, what it keeps, and what it tells.

    python bench/faults_daemon.py [cold] [sigterm] [reconnects] [crash-loop] [secrets] [--n 50] [--json FILE]

Each row starts `sightline run` as a process of its own, and real RTSP cameras where it needs any:

    cold        from the start of the process to the first result, with LiteRT (`cold-one`: one model alone)
    sigterm     SIGTERM at any moment while it streams two cameras into four sinks and a page: how long it
                takes to end; exit code 0 and no process of it left, or the round has failed
    reconnects  four cameras that are cut, or fall silent each fifth time, once in nine seconds: memory (PSS of all
                processes), descriptors and threads after each round; n is the number of rounds
    crash-loop  a camera whose decoder is killed n times, as soon as it runs: whether the camera is called degraded,
                and what the three others beside it lose
    secrets     n addresses with secrets of all shapes: where one of them is seen in what the daemon prints,
                writes, answers and has in its arguments

Ends with 1 when a target was missed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from daemon_process import ROOT, Daemon, Held
from faults_camera import GaveUp, Server, wait_until
from secret_shapes import CAMERAS_AT_ONCE, found_in, leaky_config

from edge.files import write_text

PAGE = "[web]\nport = 0\nrequests_per_s = 10000\n"
DEMO = '[[cameras]]\nname = "demo"\nsource = "demo://?width=640&height=360"\n'
NO_PLANS = "build_plans = false\n"
EVERY_S = 9.0
"""Between two reconnects: 200 take 30 minutes."""

SETTLE_S = 1.0
PATIENCE_S = 120.0
"""Of a row in which not the time counts but what is left."""

LOOK_AFTER_S = 0.05
"""After a decoder was killed: by then the daemon has seen it, and the next one has not been steady yet."""

HALF_OPEN_EVERY = 5
GROWTH_MB, TERM_S, COLD_S = 2.0, 1.0, 1.0


def cold(n: int) -> dict[str, Any]:
    """Both shipped models."""
    return _cold(n, NO_PLANS + DEMO)


def cold_one(n: int) -> dict[str, Any]:
    """One model alone."""
    return _cold(n, NO_PLANS + 'model = "face-320x192"\n' + DEMO)


def _cold(n: int, config: str) -> dict[str, Any]:
    seconds = []
    for _ in range(n):
        with _folder() as folder, Daemon(folder, config) as daemon:
            seconds.append(daemon.wait_printed("cameras live") - daemon.started_s)
    return _spread(seconds, COLD_S)


def sigterm(n: int) -> dict[str, Any]:
    """Two cameras, one of them with a decoder of its own, and everything that writes."""
    seconds: list[float] = []
    failed = []
    with Server((640, 360)) as server:
        for _ in range(n):
            took_s, complaint = _one_end(server)
            seconds.append(took_s)
            failed += [complaint] if complaint else []
    return _spread(seconds, TERM_S) | {"failed": failed}


def _one_end(server: Server) -> tuple[float, str]:
    with _folder() as folder, Daemon(folder, NO_PLANS + _rtsp("door", server.uri) + DEMO + SINKS) as daemon:
        daemon.wait_printed("2 of 2 cameras live")
        time.sleep(random.random())
        processes = daemon.processes()
        took_s, code = daemon.end()
        left = [pid for pid in processes if os.path.exists(f"/proc/{pid}")]
        lines = (folder / "results.jsonl").read_bytes()
        whole = not lines or (lines.endswith(b"\n") and all(json.loads(line) for line in lines.splitlines()))
        wrong = {"exit code": code, "left behind": left, "half a line": not whole}
        return took_s, ", ".join(f"{name} {value}" for name, value in wrong.items() if value)


SINKS = (
    """
[sinks]
jsonl = "results.jsonl"
latency = "latency.json"
[sinks.events]
path = "events.sqlite"
[sinks.snapshots]
folder = "snapshots"
"""
    + PAGE
)


def reconnects(n: int) -> dict[str, Any]:
    """Four cameras behind one proxy."""
    with Server((320, 240)) as server, _proxy(server) as (address, tell), _folder() as folder:
        cameras = "".join(_rtsp(f"camera-{i}", f"rtsp://{address}/stream") for i in range(4))
        with _all_four_live(folder, cameras) as daemon:
            held, failed, server_died = [], [], 0
            for number in range(n):
                server_died += server.revive()
                try:
                    held.append(_one_reconnect(daemon, tell, number))
                except GaveUp as error:
                    failed.append(str(error))
                click.echo(f"{number} {held[-1:]}", err=True)
            lost = _reconnects(daemon)
    found = _growth(held)
    return found | {
        "reconnects": lost,
        "server died": server_died,
        "failed": failed,
        "passed": found["passed"] and not failed,
    }


@contextmanager
def _all_four_live(folder: Path, cameras: str) -> Iterator[Daemon]:
    """A daemon with one model, a page and nothing else, once its four cameras are live."""
    config = f'{NO_PLANS}model = "face-320x192"\n{cameras}[sinks]\nterminal = false\n{PAGE}'
    with Daemon(folder, config) as daemon:
        daemon.wait_printed("The page is at")
        wait_until(lambda: _live(daemon) == 4, PATIENCE_S)
        yield daemon


def _one_reconnect(daemon: Daemon, tell: Callable[[str], None], number: int) -> Held:
    begin_s = time.monotonic()
    before = _reconnects(daemon)
    if number % HALF_OPEN_EVERY == HALF_OPEN_EVERY - 1:
        tell("half-open")
        time.sleep(3.0)
        tell("pass")
    else:
        tell("cut")
    try:
        wait_until(
            lambda: all(now > then for now, then in zip(_reconnects(daemon), before, strict=True)), PATIENCE_S
        )
        wait_until(lambda: _live(daemon) == 4, PATIENCE_S)
    except GaveUp as error:
        kept = ("name", "state", "since_s", "reconnects", "last_error")
        cameras = [{name: camera[name] for name in kept} for camera in daemon.state()["cameras"]]
        raise GaveUp(f"round {number}: {error}; had been {before}; {cameras}") from None
    time.sleep(max(SETTLE_S, begin_s + EVERY_S - time.monotonic()))
    return Held.by(daemon)


def crash_loop(n: int) -> dict[str, Any]:
    """Three cameras of 25 frames a second beside the broken one; its decoder is GStreamer's, theirs PyAV's."""
    with Server((320, 240)) as server, _folder() as folder:
        cameras = "".join(_rtsp(f"good-{i}", server.uri) for i in range(3))
        broken = _rtsp("broken", "gst://videotestsrc is-live=true ! video/x-raw,width=320,height=240")
        with _all_four_live(folder, cameras + broken) as daemon:
            before, begin_s = _good(daemon), time.monotonic()
            states = [_after_crash(daemon) for _ in range(n)]
            seconds, after = time.monotonic() - begin_s, _good(daemon)
    lost = {name: sum(a[name] - b[name] for a, b in zip(after, before, strict=True)) for name in LOSSES}
    frames = sum(a["captured"] - b["captured"] for a, b in zip(after, before, strict=True))
    return {
        "n": n,
        "degraded": f"{states.count('degraded')} of {n}",
        "frames of the others": frames,
        "a second and camera": frames / seconds / 3,
        **lost,
        "passed": "degraded" in states and not any(lost.values()),
    }


LOSSES = ("dropped", "lost_before", "reconnects")


def _good(daemon: Daemon) -> list[dict[str, Any]]:
    return [camera for camera in daemon.state()["cameras"] if camera["name"] != "broken"]


def _after_crash(daemon: Daemon) -> str:
    """Kill the broken camera's decoder once there is one; what the camera is called then."""

    def running() -> list[int]:
        time.sleep(0.05)  # looking is work, and is not to be what the others suffer from
        return [pid for pid in daemon.processes() if b"child/gstreamer.py" in _arguments_of(pid)]

    wait_until(lambda: bool(running()), PATIENCE_S)
    found = running()
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    # Not until none is there: the next one may have come already.
    wait_until(lambda: not set(found) & set(running()), PATIENCE_S)
    time.sleep(LOOK_AFTER_S)
    return str(next(c["state"] for c in daemon.state()["cameras"] if c["name"] == "broken"))


def _reconnects(daemon: Daemon) -> list[int]:
    return [camera["reconnects"] for camera in daemon.state()["cameras"]]


def _live(daemon: Daemon) -> int:
    return sum(camera["state"] == "live" for camera in daemon.state()["cameras"])


def _growth(held: list[Held]) -> dict[str, Any]:
    """Between a quarter and the end; medians of eleven rounds, and of the single rounds beside them."""
    quarter = len(held) // 4

    def around(middle: int, name: str) -> float:
        return statistics.median(getattr(h, name) for h in held[max(0, middle - 6) : middle + 5])

    growth = {
        name: around(len(held) - 5, name) - around(quarter, name)
        for name in ("pss_mb", "private_mb", "daemon_mb")
    }
    late = held[quarter:]
    same = {
        name: sorted({getattr(h, name) for h in late}) for name in ("descriptors", "threads", "processes")
    }
    return {
        "n": len(held),
        "pss_mb_at_a_quarter": held[quarter - 1].pss_mb,
        "pss_mb_at_the_end": held[-1].pss_mb,
        "growth": growth,
        **same,
        "passed": growth["pss_mb"] <= GROWTH_MB and len(same["descriptors"]) == len(same["threads"]) == 1,
        "rounds": [asdict(h) for h in held],
    }


def secrets(n: int, begin: int = 0) -> dict[str, Any]:
    """Daemons of some cameras each, until there were the addresses from number `begin` to n."""
    seen: dict[str, list[str]] = {}
    looked = 0
    for first in range(begin, n, CAMERAS_AT_ONCE):
        with _folder() as folder:
            config, environment, markers = leaky_config(folder, range(first, min(n, first + CAMERAS_AT_ONCE)))
            with Daemon(folder, config, environment) as daemon:
                places = _places(daemon)
            places |= {path.name: path.read_bytes() for path in folder.iterdir() if _is_output(path)}
        looked += sum(map(len, places.values()))
        for place, marker in found_in(places, markers):
            seen.setdefault(place, []).append(marker)
        click.echo(f"{first + len(markers)} addresses, {looked} bytes: {seen or 'nothing seen'}", err=True)
    return {"n": n, "bytes_looked_at": looked, "seen": seen, "passed": not seen}


def _is_output(path: Path) -> bool:
    """Not the configuration, nor the folder of the secrets."""
    return path.is_file() and path.suffix != ".toml"


ROUTES = (
    *("/", "/metrics", "/api/openapi.json", "/readyz", "/api/v1/nothing", "/snapshot/c0.jpg"),
    *(
        f"/api/v1/{name}"
        for name in ("state", "cameras", "models", "latency", "settings", "device", "events")
    ),
)


def _places(daemon: Daemon) -> dict[str, bytes]:
    """What can be read of a running daemon, once each camera has failed or been lost."""
    daemon.wait_printed("The page is at")
    arguments = b""

    def all_failed() -> bool:
        nonlocal arguments
        arguments += _arguments(daemon)
        return all(camera["last_error"] for camera in daemon.state()["cameras"])

    wait_until(all_failed, 3 * PATIENCE_S)
    (daemon.folder / "run.toml").write_text((daemon.folder / "run.toml").read_text() + "nonsense = 1\n")
    os.kill(daemon.pid, 1)
    wait_until(lambda: daemon.state()["reloads"]["refused"], PATIENCE_S)
    return {route: daemon.asked(route) for route in ROUTES} | {"arguments": arguments}


def _arguments(daemon: Daemon) -> bytes:
    return b"".join(map(_arguments_of, daemon.processes()))


def _arguments_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def _proxy(server: Server) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A fault proxy before the server: its address, and what gives it commands."""
    target = server.uri.removeprefix("rtsp://").partition("/")[0]
    command = [sys.executable, "-m", "edge.fault_proxy", "--to", target]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reading, writing = process.stdout, process.stdin

        def tell(text: str) -> None:
            print(text, file=writing, flush=True)
            reading.readline()

        try:
            yield f"127.0.0.1:{json.loads(reading.readline())['listens']}", tell
        finally:
            process.kill()


def _rtsp(name: str, uri: str) -> str:
    return f'[[cameras]]\nname = "{name}"\nsource = "{uri}"\n'


def _spread(seconds: list[float], target_s: float) -> dict[str, Any]:
    figures = {name: float(np.percentile(seconds, q)) for name, q in QUANTILES.items()}
    passed = figures["p99"] <= target_s
    return {"n": len(seconds), **figures, "target": target_s, "passed": passed, "seconds": seconds}


QUANTILES = {"median": 50, "p95": 95, "p99": 99, "worst": 100}

ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "cold": cold,
    "cold-one": cold_one,
    "sigterm": sigterm,
    "reconnects": reconnects,
    "crash-loop": crash_loop,
    "secrets": secrets,
}


@click.command()
@click.argument("rows", nargs=-1, required=True, type=click.Choice(tuple(ROWS)))
@click.option("--n", default=50, show_default=True, help="Rounds of each row.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every round's figures.")
def main(rows: tuple[str, ...], n: int, json_file: Path | None) -> None:
    """Measure the rows that are named."""
    found = {}
    for row in rows:
        try:
            found[row] = ROWS[row](n)
        except GaveUp as error:
            found[row] = {"n": n, "passed": False, "gave up": str(error)}
        for name, value in found[row].items():
            if name not in ("seconds", "rounds"):
                click.echo(f"{row:11} {name}: {value}")
    click.echo(f"{os.cpu_count()} cores; load average of the last 5 minutes: {os.getloadavg()[1]:.1f}")
    if json_file:
        write_text(json_file, json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(row["passed"] for row in found.values()) else 1)


if __name__ == "__main__":
    main()
