"""The commands `train`, `describe` and `evaluate`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edge.errors import InputError
from edge.files import write_text
from train.data import SPLITS, LabelledImages, load, pick

if TYPE_CHECKING:
    from train.card import Card
    from train.describe import Description, Field
    from train.evaluate import Top1
    from train.recipe import Recipe

DATA_HELP = "A folder that holds cifar-10-batches-py/ or <class>/* folders, or the word 'digits'."
MODELS = Path("build/models")


@click.command()
@click.argument("recipe")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="DIR", help=DATA_HELP)
@click.option("--out", type=click.Path(path_type=Path), default=MODELS, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the output folder.")
@click.option("--checkpoint-every", type=click.FloatRange(min=0), default=120, show_default=True, metavar="S")
def train(
    recipe: str,
    assignments: tuple[str, ...],
    data: str | None,
    out: Path,
    resume: bool,
    checkpoint_every: float,
) -> None:
    """Train RECIPE (a name, or a path to a .py) and write OUT/<name>.keras with its model card."""
    from train.job import Job
    from train.recipe import changed, load_recipe

    chosen = changed(load_recipe(recipe), assignments)
    command = shlex.join(["sightline", "train", recipe, *assignments]) + (" --data DIR" if data else "")
    job = Job(chosen, _data_source(chosen, data), out, command, resume, checkpoint_every)
    try:
        card = job.run()
    except KeyboardInterrupt:
        go_on = (
            "add --resume to go on from its checkpoint" if job.checkpoint.is_file() else "no checkpoint yet"
        )
        click.echo(f"\nStopped; no model was written ({go_on}).", err=True)
        sys.exit(2)
    click.echo(_summary(card, job.model_path))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
def describe(model: Path) -> None:
    """Show MODEL (.keras) by layer: output shape, parameters, MACs, receptive field and stride."""
    from train.describe import describe as description_of
    from train.weights import load_keras

    description = description_of(load_keras(model))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_layer_table(description))
    console.print(
        f"{description.parameters:,} parameters, {description.trainable:,} of them trainable; "
        f"{description.macs:,} MACs for one picture.",
        highlight=False,
    )
    if description.unknown:
        console.print(f"Without a rule for MACs or receptive field: {', '.join(description.unknown)}.")


@click.command()
@click.argument("model")
@click.option("--data", required=True, metavar="DIR", help=DATA_HELP)
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--backend", default="auto", show_default=True, help="Of a bundle: tflite, onnx or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="Of a bundle: fp32, fp16 or int8.")
@click.option("--limit", type=click.IntRange(min=1), help="That many images, spread over the classes.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the result there.")
def evaluate(
    model: str, data: str, split: str, backend: str, precision: str, limit: int | None, json_path: Path | None
) -> None:
    """Measure top-1 accuracy of MODEL, a .keras file (on Keras) or a bundle (as a device runs it)."""
    measure = _evaluate_keras if Path(model).suffix == ".keras" else _evaluate_bundle
    result = measure(model, data, split, backend, precision, limit)
    if json_path:
        write_text(json_path, json.dumps(result, indent=2) + "\n")
    low, high = result["ci95"]
    click.echo(
        f"top-1 {result['value']:.2f} % (95 % interval {low:.2f} to {high:.2f}) of {result['n']} images, "
        f"{result['data']}; {result['backend']} {result['precision']}"
    )


# -- train ----------------------------------------------------------------------------------------


def _data_source(recipe: Recipe, data: str | None) -> str:
    if data is not None:
        return data
    if recipe.data == "digits":
        return recipe.data
    expected = {"cifar10": "the folder with cifar-10-batches-py/", "folder": "a folder of class folders"}
    raise InputError(
        f"Recipe {recipe.name} needs --data DIR: {expected[recipe.data]}. Sightline downloads nothing."
    )


def _summary(card: Card, path: Path) -> str:
    measured = card.metrics
    lines = [
        f"{path} and its card are written.",
        f"test top-1  {measured['test_top1']:.2f} % of {measured['test_n']:.0f} images, 95 % interval "
        f"{measured['test_ci95_low']:.2f} to {measured['test_ci95_high']:.2f}",
        f"cost        {card.seconds:.0f} s of training, {card.parameters:,} parameters, {card.macs:,} MACs",
    ]
    if "validation_top1" in measured:
        lines.insert(1, f"validation  {measured['validation_top1']:.2f} % of the images held out")
    return "\n".join(lines)


# -- describe -------------------------------------------------------------------------------------


def _layer_table(description: Description) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("output", "parameters", "MACs", "field, px", "stride"):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in description.rows:
        shape = "x".join("?" if size is None else str(size) for size in row.shape)
        counts = (f"{row.parameters:,}", f"{row.macs:,}")
        table.add_row(row.name, row.kind, shape, *counts, *_field_text(row.field))
    return table


def _field_text(field: Field) -> tuple[str, str]:
    if any(axis.whole for axis in field):
        return "all", "-"
    sizes, strides = ({axis.size for axis in field}, {axis.stride for axis in field})
    if len(sizes) == len(strides) == 1:
        return str(sizes.pop()), str(strides.pop())
    height, width = field
    return f"{height.size} x {width.size}", f"{height.stride} x {width.stride}"


# -- evaluate -------------------------------------------------------------------------------------


def _evaluate_keras(
    model: str, data: str, split: str, backend: str, precision: str, limit: int | None
) -> dict[str, Any]:
    from train.card import read_card
    from train.evaluate import check_labels, keras_top1
    from train.weights import load_keras

    if backend not in ("auto", "keras") or precision not in ("auto", "fp32"):
        raise InputError(
            f"{model} is a Keras model, which runs on the backend keras in fp32, not on {backend} "
            f"{precision}. Give a bundle: `sightline export` makes one."
        )
    loaded, card = load_keras(Path(model)), read_card(Path(model))
    images = _images(data, split, card.input, limit)
    check_labels(images, card.labels, card.name)
    with _progress() as progress:
        task = progress.add_task(card.name, total=len(images))
        top1 = keras_top1(loaded, images, lambda done: progress.advance(task, done))
    return _result(card.name, images, top1, "keras", "fp32")


def _evaluate_bundle(
    model: str, data: str, split: str, backend: str, precision: str, limit: int | None
) -> dict[str, Any]:
    from edge.bundle import Bundle
    from edge.model import Model
    from train.evaluate import bundle_top1, check_labels

    bundle = Bundle.open(model)
    images = _images(data, split, bundle.manifest.input, limit)
    check_labels(images, bundle.manifest.labels, bundle.manifest.name)
    opened = Model.open(bundle, backend, precision)
    try:
        with _progress() as progress:
            task = progress.add_task(opened.name, total=len(images))
            top1 = bundle_top1(opened, images, lambda done: progress.advance(task, done))
        return _result(opened.name, images, top1, opened.backend, opened.precision)
    finally:
        opened.close()


def _images(data: str, split: str, size: Any, limit: int | None) -> LabelledImages:
    images = load(data, split, size.height, size.width, size.resize)
    return images.take(pick(images, limit), f" {limit} of {len(images)}") if limit else images


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _result(name: str, data: LabelledImages, top1: Top1, backend: str, precision: str) -> dict[str, Any]:
    return {
        "model": name,
        "data": data.source,
        **top1.as_json(),
        "backend": backend,
        "precision": precision,
    }
