"""`python -m calibration MODEL --data DIR`: print, and with --out write, the quantization plan."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from calibration.fold import fold
from calibration.graph import Graph, read
from calibration.plan import DEFAULT_METHOD, Plan, make_plan, passes
from calibration.quantize import asymmetric, symmetric
from edge.errors import SightlineError
from train.data import load, pick
from train.weights import load_keras


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="CIFAR-10's folder, DIR/<class>/* or 'digits'.")
@click.option("--ranges", default=DEFAULT_METHOD, show_default=True, help="minmax or percentile:P.")
@click.option("--samples", default=512, show_default=True, help="Training images to watch.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the plan there, as JSON.")
def calibrate(model: Path, data: str, ranges: str, samples: int, out: Path | None) -> None:
    """Watch MODEL on training images and show how each tensor will be quantized."""
    try:
        graph = fold(read(load_keras(model)))
        plan = _watched(graph, data, ranges, samples)
        if out is not None:
            plan.write(out)
    except SightlineError as error:
        raise click.UsageError(str(error)) from error
    Console().print(_table(graph, plan))


def _watched(graph: Graph, data: str, ranges: str, samples: int) -> Plan:
    height, width, _ = graph.nodes[0].shape
    images = load(data, "train", height, width)
    chosen = images.take(pick(images, samples), f", {min(samples, len(images))} by class")
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("calibrating", total=passes(ranges) * len(chosen))
        advance = progress.advance
        return make_plan(graph, chosen.images, chosen.source, ranges, lambda done: advance(bar, done))


def _table(graph: Graph, plan: Plan) -> Table:
    title = f"{plan.method} over {plan.source}; scales, and TFLite's zero points"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("tensor", "shape", "low", "high", "TFLite", "zero", "TensorRT"):
        table.add_column(column, justify="left" if column == "tensor" else "right", no_wrap=True)
    for name, (low, high) in plan.ranges.items():
        tflite, tensorrt = asymmetric(low, high), symmetric(low, high)
        shape = "x".join(map(str, graph[name].shape))
        scales = (f"{tflite.scale:.5f}", str(tflite.zero_point), f"{tensorrt.scale:.5f}")
        table.add_row(name, shape, f"{low:.3f}", f"{high:.3f}", *scales)
    return table


if __name__ == "__main__":
    calibrate()
