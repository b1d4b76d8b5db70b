"""The commands `train`, `sanity` and `describe`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.table import Table

from edge.console import open_console, print_whole
from edge.errors import InputError
from edge.native import stderr_held_back
from edge.tables import resolve
from train.transfer.strategy import AUTO, STRATEGIES

if TYPE_CHECKING:
    from train.card import Card
    from train.describe import Description, Field, Row
    from train.recipe import AnyRecipe
    from train.sanity import Sanity

DATA_HELP = "A folder that holds cifar-10-batches-py/ or <class>/* folders, or the word 'digits'."
TRAINING_DATA_HELP = f"{DATA_HELP} For a face detector: one with COCO's annotations.json and images/."
MODELS = Path("build/models")

QAT = "calibration.qat:qat_recipe", "calibration.qat:QatJob"
"""Quantization-aware training lives a storey above: imported only when it is asked for."""
TRANSFER = "train.transfer.recipe:named", "train.transfer.job:TransferJob"
STRATEGY_HELP = "What of the network of --from is trained on; auto looks at the pictures."


@click.command()
@click.argument("recipe")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="DIR", help=TRAINING_DATA_HELP)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=MODELS,
    show_default=True,
    help="For the model.",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the output folder.")
@click.option("--skip-corrupt", is_flag=True, help="Train without the pictures that cannot be decoded.")
@click.option("--no-sanity", is_flag=True, help="Begin without the quick checks of `sightline sanity`.")
@click.option("--report", is_flag=True, help="Of a classifier: write OUT/<name>.report.html, with pictures.")
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Log every epoch there.")
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    metavar="S",
    default=120,
    show_default=True,
    help="Seconds between checkpoints.",
)
@click.option("--qat", is_flag=True, help="Train a few epochs more with int8's rounding; also writes a plan.")
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Train on from it; see --strategy.",
)
@click.option(
    "--strategy", type=click.Choice((AUTO, *STRATEGIES)), default=AUTO, show_default=True, help=STRATEGY_HELP
)
def train(
    recipe: str,
    assignments: tuple[str, ...],
    data: str | None,
    out: Path,
    resume: bool,
    skip_corrupt: bool,
    no_sanity: bool,
    report: bool,
    tensorboard: Path | None,
    checkpoint_every: float,
    qat: bool,
    start: Path | None,
    strategy: str,
) -> None:
    """Train RECIPE (a name, or a path to a .py) and write OUT/<name>.keras with its model card.

    With --from MODEL.keras: RECIPE's pictures with MODEL's network and a new last layer, OUT/<name>-transfer.keras.
    With --qat --from MODEL.keras: OUT/<name>-qat.keras and OUT/<name>-qat.plan.json, for `export --plan`.
    """
    from train.backend import import_keras
    from train.job import Job
    from train.recipe import changed, load_recipe

    _check_start(qat, start, strategy)
    known, kind = load_recipe(recipe), Job
    if start:
        import_keras()
        further, kind = (resolve(name) for name in (QAT if qat else TRANSFER))
        known = further(known)
    chosen = changed(known, (*assignments, *(["skip_corrupt=true"] if skip_corrupt else [])))
    command = shlex.join(["sightline", "train", recipe, *assignments]) + (" --data DIR" if data else "")
    command += (" --skip-corrupt" if skip_corrupt else "") + (" --qat" if qat else "")
    command += f" --from {shlex.quote(str(start))}" if start else ""
    command += f" --strategy {strategy}" if strategy != AUTO else ""
    source = data_source(chosen, data)
    more = {"tensorboard": tensorboard, "report": report, "sanity": not no_sanity}
    if start:
        # The checks are for fresh weights: a trained network's units may be dead on other pictures.
        more |= {"start": start, "sanity": False}
        more |= {} if qat else {"strategy": strategy, "assignments": assignments}
    job = kind(chosen, source, out, command, resume, checkpoint_every, **more)
    if start and job.model_path.resolve() == start.resolve():
        raise InputError(f"The result would replace {start}: choose another name=NAME, or folder with --out.")
    try:
        card = job.run()
    except KeyboardInterrupt:
        go_on = (
            "add --resume to go on from its checkpoint" if job.checkpoint.is_file() else "no checkpoint yet"
        )
        click.echo(f"\nStopped; no model was written ({go_on}).", err=True)
        sys.exit(2)
    click.echo(_summary(card, job.model_path))
    if report:
        click.echo(f"report      {job.report_path}")


@click.command()
@click.argument("recipe")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="DIR", help=TRAINING_DATA_HELP)
@click.option(
    "--quick", is_flag=True, help="Those that every training begins with: no gradient, no overfitting."
)
def sanity(recipe: str, assignments: tuple[str, ...], data: str | None, quick: bool) -> None:
    """Check RECIPE before a training: first loss, layers, gradient, 20 examples by heart.

    Exits with 1 where a check fails, and names the likely cause.
    """
    from train.backend import import_keras
    from train.recipe import changed, load_recipe

    chosen = changed(load_recipe(recipe), assignments)
    source = data_source(chosen, data)
    import_keras()
    from train import sanity as checks

    lesson = resolve(chosen.lesson).of(chosen, source, Path())
    with stderr_held_back():
        seen = checks.quick(lesson) if quick else checks.full(lesson)
    print_whole(_activation_table(seen))
    open_console(140).print(_finding_table(seen))
    seen.require()


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--floor", is_flag=True, help="Take filters that do not fit, as Keras does: it cuts the edge off."
)
def describe(model: Path, floor: bool) -> None:
    """Show MODEL (.keras) by layer: output size (W - F + 2P)/S + 1, parameters, MACs, receptive field, stride.

    A filter that does not fit its input is an error.
    """
    from train.describe import describe as description_of
    from train.weights import load_keras

    description = description_of(load_keras(model))
    print_whole(_layer_table(description))
    console = open_console(140)
    console.print(
        f"{description.parameters:,} parameters, {description.trainable:,} of them trainable; "
        f"{description.macs:,} MACs for one picture.",
        highlight=False,
    )
    if description.unknown:
        console.print(f"Without a rule for MACs or receptive field: {', '.join(description.unknown)}.")
    if description.cut_pools:
        console.print(f"Pools that never see the last pixels: {', '.join(description.cut_pools)}.")
    if description.misfits and not floor:
        more = f" So do {len(description.misfits) - 1} more." if len(description.misfits) > 1 else ""
        raise InputError(f"{description.misfits[0]}{more} --floor takes them as Keras does.")


# -- train ----------------------------------------------------------------------------------------


def _check_start(qat: bool, start: Path | None, strategy: str) -> None:
    if qat and start is None:
        raise InputError("--qat needs --from MODEL.keras: it trains on from a trained float model.")
    if strategy != AUTO and (qat or start is None):
        raise InputError(
            "--strategy goes with --from MODEL.keras alone: it says what of MODEL is trained on."
        )
    if start is not None and not start.is_file():
        raise InputError(f"No model {start} to start from. `sightline train` without --qat trains one.")


def data_source(recipe: AnyRecipe, data: str | None) -> str:
    """What `--data` names, or what the recipe needs none for; raises InputError where it needs one."""
    if data is not None:
        return data
    if recipe.data == "digits":
        return recipe.data
    expected = {
        "cifar10": "the folder with cifar-10-batches-py/",
        "folder": "a folder of class folders",
        "faces": "a folder with COCO's annotations.json and images/",
    }
    raise InputError(
        f"Recipe {recipe.name} needs --data DIR: {expected[recipe.data]}. Sightline downloads nothing."
    )


def _summary(card: Card, path: Path) -> str:
    from train.curves import hints

    measured = card.metrics
    n, low, high = (measured[f"test_{name}"] for name in ("n", "ci95_low", "ci95_high"))
    lines = [
        f"{path} and its card are written.",
        *(text.format(measured[name]) for name, text in _VALIDATIONS.items() if name in measured),
        *(
            f"{text.format(measured[name])} of {n:.0f} images, 95 % interval {form.format(low)} to {form.format(high)}"
            for name, (text, form) in _TESTS.items()
            if name in measured
        ),
        f"cost        {card.seconds:.0f} s of training, {card.parameters:,} parameters, {card.macs:,} MACs",
        *(f"curves      {hint.sign} {hint.advice}" for hint in hints(card.history or ())),
    ]
    return "\n".join(lines)


_VALIDATIONS = {
    "validation_top1": "validation  {:.2f} % of the images held out",
    "validation_ap50": "validation  AP50 {:.3f} of the val split",
}
_TESTS = {
    "test_top1": ("test top-1  {:.2f} %", "{:.2f}"),
    "test_ap50": ("test AP50   {:.3f}", "{:.3f}"),
}

# -- sanity ---------------------------------------------------------------------------------------


def _activation_table(sanity: Sanity) -> Table:
    table = _table(("layer", "kind"), ("mean", "spread", "dead", "saturated"))
    for row in sanity.layers:
        shares = ("-" if share is None else f"{100 * share:.0f} %" for share in (row.dead, row.saturated))
        table.add_row(row.layer, row.kind, f"{row.mean:.3g}", f"{row.spread:.3g}", *shares)
    return table


def _finding_table(sanity: Sanity) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("check", "", "found"):
        table.add_column(heading)
    words = {True: "good", False: "BAD", None: "not done"}
    for finding in sanity.findings:
        table.add_row(finding.check, words[finding.passed], finding.found)
    return table


def _table(left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, no_wrap=True, justify="right")
    return table


# -- describe -------------------------------------------------------------------------------------


def _layer_table(description: Description) -> Table:
    table = _table(
        ("layer", "kind"), ("output", "(W - F + 2P)/S + 1", "parameters", "MACs", "field, px", "stride")
    )
    for row in description.rows:
        shape = "x".join("?" if size is None else str(size) for size in row.shape)
        counts = (f"{row.parameters:,}", f"{row.macs:,}")
        table.add_row(row.name, row.kind, shape, _window_text(row), *counts, *_field_text(row.field))
    return table


def _window_text(row: Row) -> str:
    formulas = list(dict.fromkeys(str(window) for window in row.windows))
    return "\n".join(formulas) if formulas else "-"


def _field_text(field: Field) -> tuple[str, str]:
    if any(axis.whole for axis in field):
        return "all", "-"
    sizes, strides = ({axis.size for axis in field}, {axis.stride for axis in field})
    if len(sizes) == len(strides) == 1:
        return str(sizes.pop()), str(strides.pop())
    height, width = field
    return f"{height.size} x {width.size}", f"{height.stride} x {width.stride}"
