"""`python -m calibration MODEL --data DIR`: print, and with --out write, the quantization plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table

from calibration.calibrate import calibrate, work
from calibration.coverage import Coverage, coverage, doubts
from calibration.fold import fold
from calibration.graph import Graph, read
from calibration.options import Choices, calibration_options
from calibration.plan import Plan
from calibration.quantize import asymmetric, symmetric
from calibration.samples import Samples, preprocessing, read_samples
from calibration.sensitivity import layer_rows
from calibration.settings import Settings
from edge.bundle import InputSpec
from edge.console import open_console, print_whole
from edge.errors import InputError, SightlineError
from edge.files import check_options, write_text
from train.card import card_if_any
from train.detection.data import is_boxed
from train.detection.evaluate import resized
from train.weights import in_float32, load_network


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", metavar="DIR", required=True, help="CIFAR-10's folder, DIR/<class>/*, COCO's or 'digits'."
)
@calibration_options
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan there, as JSON.")
@click.option(
    "--sensitivity", "hurts", type=click.Path(path_type=Path), metavar="FILE", help="Layers by harm, as JSON."
)
def main(model: Path, data: str, choices: Choices, out: Path | None, hurts: Path | None) -> None:
    """Watch MODEL on training images and show how each tensor will be quantized."""
    try:
        check_options(str(model), out=out, sensitivity=hurts)
        network = in_float32(load_network(model))
        card, boxed = card_if_any(model), is_boxed(data)
        if card and (card.task == "faces") != boxed:
            raise InputError(
                f"{model} is for {card.task}, and {data} holds {'annotated faces' if boxed else 'classes'}. "
                "Pass the data that it was trained for."
            )
        spec = card.input if card else _own_input(network, data)
        if boxed:
            network = resized(network, spec.height, spec.width)
        graph = fold(read(network))
        settings = choices.settings("faces" if boxed else "classification")
        samples = read_samples(data, spec, choices.count, settings.sample, choices.skip_corrupt)
        plan = _watched(graph, samples, settings, preprocessing(spec))
        if out is not None:
            plan.write(out)
        rows = layer_rows(graph, plan, samples.images) if hurts is not None else []
        if hurts is not None:
            write_text(hurts, json.dumps({"layers": rows}, indent=2))
        covered = coverage(graph, plan, samples.held_out) if samples.held_out is not None else {}
    except SightlineError as error:
        raise click.UsageError(str(error)) from error
    print_whole(_table(plan.prepared(graph, "tflite"), plan, covered))
    if rows:
        print_whole(_harm(rows))
    for doubt in doubts(samples, covered):
        click.echo(f"Doubt: {doubt}", err=True)


def _own_input(network: Any, data: str) -> InputSpec:
    """Of a model without a card: the size that it states itself."""
    shape = network.inputs[0].shape
    if len(shape) != 4 or None in shape[1:3]:
        raise InputError(
            f"The model takes {tuple(shape)}; expected (None, height, width, 3). Where it takes any size, write a card "
            "with its input's."
        )
    _, height, width, _ = shape
    return InputSpec(height=height, width=width, resize="letterbox" if is_boxed(data) else "crop")


def _watched(graph: Graph, samples: Samples, settings: Settings, pixels: str) -> Plan:
    with Progress(console=open_console(stderr=True)) as progress:
        bar = progress.add_task("calibrating", total=work(graph, len(samples.images), settings))
        return calibrate(graph, samples, settings, pixels, lambda done: progress.advance(bar, done))


def _table(graph: Graph, plan: Plan, covered: dict[str, Coverage]) -> Table:
    title = (
        f"{plan.method} over {plan.source}; scales, and TFLite's zero points; of held-out images: how far "
        "they fill the range, and the share of values outside"
    )
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("tensor", "shape", "low", "high", "TFLite", "zero", "TensorRT", "filled", "outside"):
        table.add_column(column, justify="left" if column == "tensor" else "right", no_wrap=True)
    for name, (low, high) in plan.ranges.items():
        tflite, tensorrt = asymmetric(low, high), symmetric(low, high)
        shape = "x".join(map(str, graph[name].shape))
        scales = (f"{tflite.scale:.5f}", str(tflite.zero_point), f"{tensorrt.scale:.5f}")
        table.add_row(name, shape, f"{low:.3f}", f"{high:.3f}", *scales, *_covered(covered.get(name)))
    return table


def _harm(rows: list[dict[str, Any]]) -> Table:
    title = "TFLite's int8 by layer, the worst first: noise in dB; top class as in float, in points; error of heads"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("layer", "own", "accumulated", "drop alone", "gain in float", "error alone", "without"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for row in rows:
        points = (f"{row[key]:.1f}" for key in ("own_db", "accumulated_db", "drop", "gain"))
        table.add_row(row["name"], *points, f"{row['alone_error']:.2g}", f"{row['rest_error']:.2g}")
    return table


def _covered(found: Coverage | None) -> tuple[str, str]:
    return (f"{100 * found.filled:.0f} %", f"{100 * found.outside:.3f} %") if found else ("", "")


if __name__ == "__main__":
    main()
