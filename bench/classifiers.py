"""Our classifiers of CIFAR-10 beside MLPerf Tiny's ResNet-8: top-1 on the same images, milliseconds in one run.

    python bench/classifiers.py --data DIR --peers DIR [--bundle cifar10-nano]...

DATA is CIFAR-10's folder, PEERS holds pretrainedResnet_quant.tflite; where either is absent it says so and ends
with 0. All are int8 TFLite on one thread, one image at a time; milliseconds are the model's alone, from uint8
pixels of its input to its outputs, the models in turn within one loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from edge.bundle import Bundle
from edge.errors import InputError
from edge.machine import this_machine
from edge.pixels import Image
from edge.runners import open_runner
from export.parity import paired_interval
from train.data import load

PEER, PEER_FILE = "MLPerf Tiny ResNet-8", "pretrainedResnet_quant.tflite"
Classify = Callable[[Image], NDArray[np.float32]]
"""uint8 (1, 32, 32, 3) RGB to one score a class."""


def ours(name: str) -> Classify:
    """A bundle's int8 TFLite artefact."""
    bundle = Bundle.open(name)
    head = bundle.manifest.outputs[0].name
    runner = open_runner(bundle, "tflite", "int8", threads=1)
    return lambda image: runner.infer(image)[head][0]


def peer(path: Path) -> Classify:
    """The peer's file: its int8 input has scale 1 and zero-point -128."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, told = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def classify(image: Image) -> NDArray[np.float32]:
        interpreter.set_tensor(given, (image ^ 0x80).view(np.int8))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(told)[0], np.float32)

    return classify


def milliseconds(entrants: dict[str, Classify], image: Image, rounds: int = 2000) -> dict[str, float]:
    """The median of each, the entrants in turn within one loop."""
    taken: dict[str, list[int]] = {name: [] for name in entrants}
    for _ in range(rounds):
        for name, classify in entrants.items():
            begin = time.perf_counter_ns()
            classify(image)
            taken[name].append(time.perf_counter_ns() - begin)
    return {name: float(np.median(values)) / 1e6 for name, values in taken.items()}


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path))
@click.option("--peers", type=click.Path(path_type=Path))
@click.option("--bundle", "bundles", multiple=True, default=("cifar10-nano", "cifar10-base"))
def main(data: Path | None, peers: Path | None, bundles: tuple[str, ...]) -> None:
    console = Console(width=110)
    if data is None or peers is None or not (peers / PEER_FILE).exists():
        console.print(
            f"bench/classifiers.py needs --data with CIFAR-10 and --peers with {PEER_FILE}: skipped."
        )
        return
    try:
        test = load(str(data), "test", 32, 32)
    except InputError as error:
        console.print(f"bench/classifiers.py: {error} Skipped.")
        return
    entrants = {PEER: peer(peers / PEER_FILE), **{name: ours(name) for name in bundles}}
    right = {
        name: np.array([classify(image[None]).argmax() for image in test.images]) == test.labels
        for name, classify in entrants.items()
    }
    medians = milliseconds(entrants, test.images[:1])
    table = Table(box=box.SIMPLE, title=f"{this_machine().cpu}; n = {len(test)}, one thread, int8 TFLite")
    for column in (
        "model",
        "top-1, %",
        "against the peer, points",
        "95 % interval, paired",
        "ms",
        "of the peer's",
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, hits in right.items():
        low, high = paired_interval(hits, right[PEER])
        gain = 100 * (hits.mean() - right[PEER].mean())
        interval = "" if name == PEER else f"{low:+.2f} to {high:+.2f}"
        ratio = f"{medians[name] / medians[PEER]:.2f}"
        table.add_row(
            name, f"{100 * hits.mean():.2f}", f"{gain:+.2f}", interval, f"{medians[name]:.3f}", ratio
        )
    console.print(table)


if __name__ == "__main__":
    main()
