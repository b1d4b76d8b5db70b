"""How much a teacher says beyond the label: the largest of its probabilities, and how unlike the others are.

    python bench/teachers.py --data DIR [--n 4000] [MODEL.keras]...

Of the same training images, spread over the classes. "the rest" is the entropy of the probabilities that are left
beside the largest, as a share of what it would be were they all alike: at 1 a teacher says no more than a smoothed
label does (Mueller et al. 2019, arXiv 1906.02629).
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
from faces import markdown_table
from numpy.typing import NDArray
from rich.console import Console

from edge.errors import InputError
from train.data import load, pick
from train.distil import softened
from train.evaluate import keras_outputs
from train.weights import load_network

TEMPERATURES = (1.0, 2.0, 4.0)


def rest(said: NDArray[np.float32]) -> float:
    """Of rows that begin with the largest: the mean entropy of what is left, over that of classes all alike."""
    left = said[:, 1:] / said[:, 1:].sum(axis=1, keepdims=True)
    entropy = -(left * np.log(np.maximum(left, 1e-12))).sum(axis=1)
    return float(entropy.mean() / math.log(left.shape[1]))


@click.command(help=__doc__)
@click.argument("models", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path))
@click.option("--n", default=4000, show_default=True, type=click.IntRange(min=1))
def main(models: tuple[Path, ...], data: Path | None, n: int) -> None:
    console = Console(width=120)
    if data is None:
        console.print("bench/teachers.py needs --data with CIFAR-10: skipped.")
        return
    try:
        train = load(str(data), "train", 32, 32)
    except InputError as error:
        console.print(f"bench/teachers.py: {error} Skipped.")
        return
    chosen = pick(train, n)
    images, labels = train.images[chosen], train.labels[chosen]
    table = markdown_table("teacher", "right, %", "temperature", "largest", "second", "the rest")
    for path in models or sorted(Path("models").glob("cifar10-*.keras")):
        logits = keras_outputs(load_network(path), images)
        right = f"{100 * (logits.argmax(axis=1) == labels).mean():.1f}"
        for temperature in TEMPERATURES:
            said = np.sort(softened(logits, temperature), axis=1)[:, ::-1]
            largest, second = said[:, :2].mean(axis=0)
            table.add_row(
                path.stem,
                right,
                f"{temperature:g}",
                f"{largest:.3f}",
                f"{second:.3f}",
                f"{rest(said):.2f}",
            )
    console.print(f"{len(images):,} training images")
    console.print(table)


if __name__ == "__main__":
    main()
