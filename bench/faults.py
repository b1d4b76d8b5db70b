"""A camera under faults: how soon it is declared lost, how soon it is back, what is left behind.

    python bench/faults.py [half-open] [gone] [resized] [killed] [hung] [--n 10] [--quick] [--json FILE]

A real RTSP server (GStreamer's, H.264 with a key frame each second) in a process of its own, read by
`edge.camera.source`, which decodes in a child process and connects again by itself. Each row repeats one fault on
one camera that is never closed in between:

    half-open   the server is stopped (SIGSTOP): its sockets stay open and silent; then it goes on
    gone        the server is killed and started again; `back` counts from when its port is open again
    resized     the same, and it comes back with pictures of another size
    killed      the decoder's child process is killed; `gap` is the longest time between two frames
    hung        the decoder's child process is stopped (SIGSTOP), as in a wedged driver

Meaningful on an idle machine only: the start of a new decoder is part of most figures. After each row the
camera is closed, and threads, descriptors, child processes and shared-memory files are counted against
those before it. Ends with 1 when one round missed its target or something was left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from faults_camera import GaveUp, Left, Server, Watched, children, wait_until
from rich.console import Console
from rich.table import Table

from edge.errors import InputError
from edge.files import write_text

SIZES = ((640, 360), (320, 240))
HOLD_S = 1.0
"""A fault lasts up to this much longer than until it was noticed, so that retries meet it in any phase."""

STEADY_S = 0.5
"""Between two rounds, so that each begins with a camera that is live."""

Round = Callable[[Server, Watched], dict[str, float]]


def half_open(server: Server, camera: Watched) -> dict[str, float]:
    """Sockets that stay open and silent."""
    begin_s = server.freeze()
    lost_s = _lost(camera, begin_s)
    back_s = server.thaw()
    return {"lost": lost_s, "back": camera.frame_after(back_s) - back_s}


def gone(server: Server, camera: Watched) -> dict[str, float]:
    """A camera that lost its power."""
    return _gone_and_back(server, camera, server.size)


def resized(server: Server, camera: Watched) -> dict[str, float]:
    """A camera that somebody set to another size meanwhile."""
    size = SIZES[1] if server.size == SIZES[0] else SIZES[0]
    figures = _gone_and_back(server, camera, size)
    wait_until(lambda: camera.size == size)
    return figures


def killed(server: Server, camera: Watched) -> dict[str, float]:
    """A decoder that crashed."""
    return _without_decoder(camera, signal.SIGKILL)


def hung(server: Server, camera: Watched) -> dict[str, float]:
    """A decoder that does not answer any more."""
    return _without_decoder(camera, signal.SIGSTOP)


ROWS: dict[str, tuple[Round, dict[str, float]]] = {
    "half-open": (half_open, {"lost": 2.0, "back": 2.5}),
    "gone": (gone, {"lost": 2.0, "back": 2.5}),
    "resized": (resized, {"lost": 2.0, "back": 2.5}),
    "killed": (killed, {"gap": 2.0}),
    "hung": (hung, {"gap": 3.0}),
}
"""Row -> (one round, target of each of its figures in seconds)."""


@dataclass(frozen=True)
class Outcome:
    """What the rounds of one row gave.

    Attributes:
        seconds: by figure, of the rounds that came to an end; failed: rounds that did not.
        left: what was left behind, by kind; empty for nothing.
    """

    seconds: dict[str, list[float]]
    failed: int
    left: dict[str, int]

    def held(self, figure: str, target_s: float) -> int:
        """In how many rounds the target was held."""
        return sum(value <= target_s for value in self.seconds[figure])

    def passed(self, targets: dict[str, float]) -> bool:
        """All rounds held all targets, and nothing is left."""
        held = [(self.held(name, target), len(self.seconds[name])) for name, target in targets.items()]
        return all(0 < good == n for good, n in held) and not self.failed and not self.left


def measure(row: str, n: int) -> Outcome:
    """Run one row."""
    one_round, targets = ROWS[row]
    seconds: dict[str, list[float]] = {figure: [] for figure in targets}
    failed, before = 0, Left.now()
    with Server(SIZES[0]) as server, Watched(server.uri) as camera:
        camera.frame_after(time.monotonic())
        for _ in range(n):
            wait_until(lambda: camera.is_live)
            time.sleep(STEADY_S)
            try:
                for figure, value in one_round(server, camera).items():
                    seconds[figure].append(value)
            except GaveUp:
                failed += 1
    return Outcome(seconds, failed, _left_since(before))


def _left_since(before: Left) -> dict[str, int]:
    """What is still there after a moment in which the system may tidy up."""
    try:
        wait_until(lambda: not Left.now().beyond(before), patience_s=2.0)
    except GaveUp:
        return Left.now().beyond(before)
    return {}


def _lost(camera: Watched, begin_s: float) -> float:
    """How long until the camera said that it is lost; then the fault goes on for a while."""
    lost_s = wait_until(lambda: not camera.is_live) - begin_s
    time.sleep(random.uniform(0, HOLD_S))
    return lost_s


def _gone_and_back(server: Server, camera: Watched, size: tuple[int, int]) -> dict[str, float]:
    begin_s = server.kill()
    lost_s = _lost(camera, begin_s)
    back_s = server.start(size)
    return {"lost": lost_s, "back": camera.frame_after(back_s) - back_s}


def _without_decoder(camera: Watched, number: signal.Signals) -> dict[str, float]:
    """The longest time without a frame, until another decoder gives some and the old one is gone."""
    before = camera.decoder
    assert before is not None, "the camera is live"
    os.kill(before, number)
    begin_s = time.monotonic()
    other_s = wait_until(lambda: camera.decoder not in (before, None))
    camera.frame_after(other_s)
    wait_until(lambda: before not in children())
    return {"gap": camera.longest_gap_s(begin_s)}


def table_of(outcomes: dict[str, Outcome]) -> Table:
    """Seconds by row and figure, beside the targets."""
    heads = ("fault", "figure", "n", "median s", "p95 s", "worst s", "target s", "held", "left behind")
    table = Table(*heads, box=None, pad_edge=False)
    for row, outcome in outcomes.items():
        for figure, target_s in ROWS[row][1].items():
            values = outcome.seconds[figure]
            n = len(values) + outcome.failed
            spread = [f"{np.percentile(values, q):.2f}" if values else "-" for q in (50, 95, 100)]
            left = ", ".join(f"{count} {kind}" for kind, count in outcome.left.items()) or "nothing"
            held = f"{outcome.held(figure, target_s)} of {n}"
            table.add_row(row, figure, str(n), *spread, f"{target_s:.1f}", held, left)
    return table


@click.command()
@click.argument("rows", nargs=-1, type=click.Choice(tuple(ROWS)))
@click.option("--n", default=10, show_default=True, help="Rounds of each row.")
@click.option("--quick", is_flag=True, help="Three rounds of each.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every round's figures.")
def main(rows: tuple[str, ...], n: int, quick: bool, json_file: Path | None) -> None:
    """Measure the rows that are named, or all."""
    try:
        outcomes = {row: measure(row, 3 if quick else n) for row in rows or ROWS}
    except InputError as error:
        click.echo(f"skipped: {error}")
        return
    Console(width=110).print(table_of(outcomes))
    click.echo(f"{os.cpu_count()} cores; load average of the last 5 minutes: {os.getloadavg()[1]:.1f}")
    if json_file:
        write_text(json_file, json.dumps({row: vars(o) for row, o in outcomes.items()}, indent=2) + "\n")
    sys.exit(0 if all(outcome.passed(ROWS[row][1]) for row, outcome in outcomes.items()) else 1)


if __name__ == "__main__":
    main()
