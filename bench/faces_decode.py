"""Heads to faces: decoding and suppression of 50 faces on synthetic heads, one thread.

    python bench/faces_decode.py [--size 320] [--faces 50] [--cells 6] [--runs 3000]

Each face is seen by a few neighbouring cells, as a trained detector's are. Prints the median and the
95th percentile of decoding, suppression and the whole task. Ends with 1 when the whole task's median is
not below 0.3 ms, the goal for 50 faces at 320x320.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from edge.bundle import Golden, InputSpec, Manifest, OutputSpec
from edge.machine import this_machine
from edge.tasks.faces import FacesTask, Grid, candidates, nms

GOAL_MS = 0.3
STRIDES = (8, 16, 32)


def synthetic_heads(size: int, faces: int, cells: int, seed: int = 0) -> dict[str, Any]:
    """Heads with `faces` faces on a lattice, each seen by the `cells` nearest cells of stride 8."""
    rng, grid = np.random.default_rng(seed), Grid.of_size(size, size)
    logits, deltas = rng.normal(-6, 1, len(grid.cells)), rng.normal(0, 0.5, (len(grid.cells), 4))
    side = int(np.ceil(np.sqrt(faces)))
    finest = np.flatnonzero(grid.cells[:, 2] == STRIDES[0])
    for number in range(faces):
        row, column = divmod(number, side)
        centre = (np.array([column, row]) + 0.5) * size / side + rng.uniform(-2, 2, 2)
        near = finest[np.argsort(np.linalg.norm(grid.cells[finest, :2] - centre, axis=1))[:cells]]
        logits[near] = rng.uniform(0.2, 4, cells)
        deltas[near, :2] = (centre - grid.cells[near, :2]) / STRIDES[0] + rng.normal(0, 0.05, (cells, 2))
        deltas[near, 2:] = np.log([3.2, 3.8]) + rng.normal(0, 0.05, (cells, 2))
    return _by_name(grid, logits.astype(np.float32), deltas.astype(np.float32), size)


def _by_name(grid: Grid, logits: Any, deltas: Any, size: int) -> dict[str, Any]:
    heads, begin = {}, 0
    for stride, score, box in zip(STRIDES, grid.scores, grid.boxes, strict=True):
        side = size // stride
        part = slice(begin, begin + side * side)
        heads[score] = logits[part].reshape(1, side, side, 1)
        heads[box] = deltas[part].reshape(1, side, side, 4)
        begin += side * side
    return heads


def manifest_of(heads: dict[str, Any], size: int) -> Manifest:
    """As a bundle would have it; there is no model behind it."""
    outputs = tuple(
        OutputSpec(name=name, shape=head.shape, role=name.split("_")[0], stride=int(name.split("_")[1]))
        for name, head in heads.items()
    )
    return Manifest(
        name="synthetic",
        task="faces",
        sightline="0",
        input=InputSpec(height=size, width=size, resize="letterbox"),
        outputs=outputs,
        labels=("face",),
        artefacts=(),
        golden=Golden(file="none", sha256="0" * 64, step={}),
    )


def times_ms(work: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and 95th percentile of `runs` runs, after a tenth as many to warm up."""
    taken = np.empty(runs)
    for index in range(-(runs // 10), runs):
        begin_ns = time.perf_counter_ns()
        work()
        taken[max(index, 0)] = time.perf_counter_ns() - begin_ns
    p50, p95 = np.percentile(taken / 1e6, [50, 95])
    return float(p50), float(p95)


@click.command()
@click.option("--size", default=320, show_default=True)
@click.option("--faces", default=50, show_default=True)
@click.option("--cells", default=6, show_default=True, help="Cells that see each face.")
@click.option("--runs", default=3000, show_default=True)
def main(size: int, faces: int, cells: int, runs: int) -> None:
    """Measure, print, and hold the whole task against the goal."""
    heads = synthetic_heads(size, faces, cells)
    task, grid = FacesTask(manifest_of(heads, size)), Grid.of_size(size, size)
    picture = np.zeros((size, size, 3), np.uint8)
    boxes, scores = candidates(heads, grid, 0.5)
    parts = {
        "decode": lambda: candidates(heads, grid, 0.5),
        "suppress": lambda: nms(boxes, scores),
        "whole task": lambda: task.decode(heads, picture),
    }
    found = len(task.decode(heads, picture))
    table = Table("")
    for name in ("p50 ms", "p95 ms"):
        table.add_column(name, justify="right")
    taken = {name: times_ms(work, runs) for name, work in parts.items()}
    for name, (p50, p95) in taken.items():
        table.add_row(name, f"{p50:.3f}", f"{p95:.3f}")
    machine, console = this_machine(), Console()
    console.print(f"{len(scores)} candidates, {found} faces, {size}x{size}, n = {runs}", highlight=False)
    console.print(table)
    console.print(
        f"{machine.cpu}, {machine.cores} cores, one used; Python {machine.python}, NumPy {np.__version__}; "
        f"goal {GOAL_MS} ms",
        highlight=False,
    )
    sys.exit(0 if taken["whole task"][0] < GOAL_MS else 1)


if __name__ == "__main__":
    main()
