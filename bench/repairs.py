"""What each float repair wins: a small network whose channels were brought out of scale, in int8 as both targets round.

    python bench/repairs.py [--octaves 4] [--epochs 8]

It is trained on scikit-learn's digits (`bench/hard/out_of_scale.py`), then each channel before a ReLU is scaled by
2^-octaves to 2^octaves, which changes nothing in float. Printed for the 360 test images: top-1 of the simulated int8
networks, and the mean squared error of their logits.
"""

from __future__ import annotations

from itertools import chain

import click
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from bench.hard import out_of_scale
from calibration.calibrate import calibrate
from calibration.fold import fold
from calibration.graph import LOGITS, infer, read
from calibration.samples import labelled_samples
from calibration.sensitivity import Heads
from calibration.settings import Settings
from calibration.simulate import simulate
from edge.bundle import FORMATS
from edge.pixels import normalise
from train.data import load

WATCHED = 128

REPAIRS: dict[str, dict[str, bool]] = {
    "none": {},
    "bias correction": {"bias_correction": True},
    "AdaRound": {"adaround": True},
    "equalise": {"equalise": True},
    "equalise, bias correction": {"equalise": True, "bias_correction": True},
    "equalise, AdaRound": {"equalise": True, "adaround": True},
    "all three": {"equalise": True, "bias_correction": True, "adaround": True},
}


@click.command()
@click.option("--octaves", default=4.0, show_default=True, help="Channels are scaled by up to so many.")
@click.option("--epochs", default=8, show_default=True)
def main(octaves: float, epochs: int) -> None:
    """Train, spoil, repair, and print the table."""
    train, test = load("digits", "train", 16, 16), load("digits", "test", 16, 16)
    model = out_of_scale.trained(epochs)
    out_of_scale.sabotage(model, octaves)
    graph, samples = fold(read(model)), labelled_samples(train, WATCHED)
    pixels = normalise(test.images)
    wanted = infer(model, pixels)
    table = Table(box=box.MARKDOWN)
    table.add_column("repairs", no_wrap=True)
    for target in FORMATS:
        table.add_column(f"{target}: top-1, %", justify="right")
        table.add_column("error", justify="right")
    for name, repairs in REPAIRS.items():
        plan = calibrate(graph, samples, Settings(method="minmax", **repairs))
        found = [infer(simulate(graph, plan, target), pixels) for target in FORMATS]
        errors = [np.mean((heads[LOGITS] - wanted[LOGITS]) ** 2) for heads in found]
        cells = [
            (f"{_top1(heads, test.labels):.1f}", f"{error:.4f}")
            for heads, error in zip(found, errors, strict=True)
        ]
        table.add_row(name, *chain.from_iterable(cells))
    console = Console(width=110)
    console.print(f"float: {_top1(wanted, test.labels):.1f} % of {len(test.labels)} images")
    console.print(table)


def _top1(heads: Heads, labels: NDArray[np.int64]) -> float:
    return 100 * float((heads[LOGITS].argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()
