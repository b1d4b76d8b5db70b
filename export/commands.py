"""`sightline export`: a Keras model to a proven bundle."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from calibration.options import Choices, calibration_options
from calibration.plan import Plan
from calibration.provenance import StalePlan
from edge.bundle import FORMATS, MANIFEST, PRECISIONS, Bundle, InputSpec, Precision
from edge.console import open_console
from edge.errors import CheckFailed, InputError
from edge.files import sha256
from edge.interrupt import interrupt_noted
from export.classification import Classification
from export.proof import METRIC_NAMES, Proof, Share, open_proof
from export.reference import compared_with
from train.card import Card, card_if_any
from train.data import open_split
from train.detection.data import is_boxed
from train.detection.evaluate import resized, size_of
from train.weights import in_float32, load_keras, without_softmax


def _number(_: click.Context, option: click.Parameter, value: float) -> float:
    """Click takes `nan` and `inf` for numbers."""
    if not math.isfinite(value):
        raise click.BadParameter("expected a number of points.", param=option)
    return value


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="The bundle's folder."
)
@click.option(
    "--data", metavar="DIR", required=True, help="CIFAR-10's folder, DIR/<class>/*, COCO's or 'digits'."
)
@click.option(
    "--size", metavar="WxH", help="A detector's input, such as 320x192 or 320; the card's by default."
)
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    callback=_number,
    default=0.5,
    show_default=True,
    help="Largest loss of top-1 or AP50.",
)
@click.option(
    "--formats", metavar="LIST", default="tflite,onnx", show_default=True, help="Of tflite, onnx, tensorrt."
)
@click.option(
    "--precisions", metavar="LIST", default="fp32,fp16,int8", show_default=True, help="Of fp32, fp16, int8."
)
@calibration_options
@click.option(
    "--repair/--no-repair",
    default=True,
    show_default=True,
    help="Where int8 loses too much, try better ranges, equalisation, AdaRound, then layers in float.",
)
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Quantize as this plan says; it must still hold.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Prove on so many test images, in place of all."
)
@click.option(
    "--shipped", type=click.Path(path_type=Path), metavar="DIR", help="Also write a small bundle for devices."
)
def export(
    model: Path,
    out: Path,
    data: str,
    size: str | None,
    max_drop: float,
    formats: str,
    precisions: str,
    choices: Choices,
    repair: bool,
    plan: Path | None,
    limit: int | None,
    shipped: Path | None,
) -> None:
    """Calibrate MODEL (a .keras file), convert it, prove each file against it and pack a bundle.

    Ends with 1 when an artefact loses more than --max-drop points of top-1 (of a detector: AP50) against Keras on the
    same images; that artefact is left out of the bundle. Where the images are too few to tell, it says so and how
    many it takes; the artefact is kept, marked in the manifest. With --size the bundle has its folder's name,
    otherwise the card's.
    """
    wanted_formats = _formats(formats)
    wanted_precisions = _names(precisions, PRECISIONS, "precision")
    for folder in filter(None, (out, shipped)):
        _check_folder(folder, model)
    network = _network(model)
    card = _card(model, network, data, size_of(size) if size else None)
    if card.task == "faces":
        network = resized(network, card.input.height, card.input.width)
    made, choices = _planned(plan, choices, wanted_precisions)
    settings = choices.settings(card.task, made)
    proof = open_proof(data, card, Share(choices.count, limit, settings.sample, choices.skip_corrupt))
    _check_fit(proof, network, trained_here=card.recipe is not None)

    from export.job import Job
    from export.pack import export_bundle, ship

    job = Job(
        model=network,
        model_sha256=sha256(model),
        name=out.resolve().name if size else card.name,
        card=card,
        proof=proof,
        settings=settings,
        plan=made,
        compared=compared_with(model, network, card, made),
        formats=tuple(f for f in FORMATS if f in wanted_formats),
        precisions=tuple(p for p in PRECISIONS if p in wanted_precisions),
        max_drop=max_drop,
        repair=repair,
    )
    console = open_console()
    with interrupt_noted() as stopped, _Progress(console, stopped) as progress, _told_of(plan):
        bundle = export_bundle(job, out, progress.update, progress.say)
    _print_table(console, bundle)
    _judge(bundle, _advice(bundle, repair, made is not None, proof.can_judge))
    if shipped is not None:
        console.print(f"Shipped bundle: {ship(bundle, shipped).folder}")
    if "tensorrt" in wanted_formats:
        _build_plans(bundle, job.precisions)


def _network(path: Path) -> Any:
    """The model to export, in float32 and to its logits."""
    loaded = load_keras(path)
    network = without_softmax(loaded)
    if network is not loaded:
        click.echo(
            f"{path} ends in a softmax: the bundle gives the logits before it, of which `run` takes one."
        )
    return in_float32(network)


def _names(text: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f"Unknown {what} '{', '.join(unknown) or text}'; there are {', '.join(known)}.")
    return names


def _planned(path: Path | None, choices: Choices, precisions: tuple[str, ...]) -> tuple[Plan | None, Choices]:
    """The plan that is given, and the choices with its own."""
    if path and "int8" not in precisions:
        raise InputError(
            "--plan says how int8 is made, which --precisions leaves out. Leave one of them out."
        )
    plan = Plan.read(path) if path else None
    return plan, choices.or_those_of(plan) if plan else choices


@contextmanager
def _told_of(plan: Path | None) -> Iterator[None]:
    """What is wrong with the plan is told of its file."""
    try:
        yield
    except StalePlan as error:
        raise StalePlan(f"{plan}: {error}") from error


def _formats(text: str) -> tuple[str, ...]:
    wanted = _names(text, (*FORMATS, "tensorrt"), "format")
    if "tensorrt" in wanted and "onnx" not in wanted:
        raise InputError("A TensorRT plan is built from the ONNX file: pass --formats onnx,tensorrt.")
    return wanted


def _check_fit(proof: Proof, network: Any, trained_here: bool) -> None:
    """Refuse what is no classifier or detector of these classes, or was trained elsewhere on other pixels."""
    proof.outputs(network)
    if isinstance(proof, Classification) and not trained_here:
        proof.check_pixels(network)


def _check_folder(out: Path, model: Path) -> None:
    """Find out before the work that the bundle cannot be written, or would take the place of something else."""
    from edge.files import whole_folder

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected the bundle's folder.")
    if out.name in ("", ".."):
        raise InputError(
            f"'{out}' has no name of its own; expected the bundle's folder, as in build/bundles/mine."
        )
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(
            f"{out} holds other files and no bundle, and a bundle takes the place of its folder. Choose a new one."
        )
    if out.is_dir() and model.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{model} lies in {out}, whose place the bundle takes. Choose another folder.")
    if os.path.ismount(out):
        raise InputError(
            f"{out} is a mount point, which no bundle can take the place of. Name a folder inside it."
        )
    try:
        with whole_folder(out):
            raise _Probed
    except _Probed:
        pass


class _Probed(Exception):
    """Leaves `whole_folder` without writing."""


def _card(path: Path, network: Any, data: str, size: tuple[int, int] | None) -> Card:
    """The model's card, with the input size that was asked for."""
    dtype = network.inputs[0].dtype
    if "float" not in dtype:
        raise InputError(
            f"{path} takes {dtype}; expected float32, RGB as (x - 128) / 128. Build it with keras.Input(..., "
            "dtype='float32'); where it wants 0 to 255, put keras.layers.Rescaling(128, offset=128) first."
        )
    card = card_if_any(path) or _own_card(path, network, data, size)
    if size is None or size == (card.input.width, card.input.height):
        return card
    if card.task != "faces":
        raise InputError(
            f"{path} is a classifier, which is exported at the size it was trained for, "
            f"{card.input.width}x{card.input.height}. Leave --size out."
        )
    spec = card.input.model_copy(update={"width": size[0], "height": size[1]})
    return card.model_copy(update={"input": spec})


def _own_card(path: Path, network: Any, data: str, size: tuple[int, int] | None) -> Card:
    """A user's own model without a card is described by itself and its data."""
    shape = network.inputs[0].shape
    is_picture = len(network.inputs) == 1 and len(shape) == 4 and shape[-1] == 3
    height, width = shape[1:3] if is_picture else (None, None)
    boxed = is_boxed(data)
    if size and boxed:
        width, height = size
    if not is_picture or height is None or width is None:
        raise InputError(
            f"{path} takes {network.input_shape}; expected (None, height, width, 3), RGB as (x - 128) / 128. "
            "Build it with keras.Input((height, width, 3))."
        )
    spec = InputSpec(height=height, width=width, resize="letterbox" if boxed else "crop")
    if boxed:
        return Card(name=path.stem, task="faces", labels=("face",), input=spec)
    labels = open_split(data, "test", height, width).class_names
    return Card(name=path.stem, labels=labels, input=spec)


class _Progress:
    """One bar a phase: calibrating, converting, proving. The place where Ctrl-C takes effect."""

    def __init__(self, console: Console, stopped: threading.Event) -> None:
        self._stopped = stopped
        columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        self._bars = Progress(*columns, TimeRemainingColumn(), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, highlight=False, soft_wrap=True)

    def update(self, what: str, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], advance=done, total=total)


def _print_table(console: Console, bundle: Bundle) -> None:
    metrics = [artefact.metrics for artefact in bundle.manifest.artefacts if artefact.metrics]
    first = f"{metrics[0].n} images, {METRIC_NAMES[metrics[0].metric]}" if metrics else "no artefact"
    title = f"{bundle.manifest.name} against Keras, {first}"
    console.print(f"\n{title}", highlight=False)
    compared = bundle.manifest.compared_with
    if compared is not None and compared.kind != "itself":
        console.print(f"Compared with {compared.words}.", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 1))
    for column in ("artefact", "KiB", "%", "drop", "95 % interval", "same %", "max err", "mean err"):
        table.add_column(column, justify="left" if column == "artefact" else "right", no_wrap=True)
    for artefact in bundle.manifest.artefacts:
        m = artefact.metrics
        assert m is not None  # each artefact in an exported bundle was measured
        table.add_row(
            f"{artefact.format} {artefact.precision}{' ?' if artefact.undecided else ''}",
            f"{artefact.size_bytes / 1024:.1f}",
            f"{m.value:.2f}",
            f"{m.drop:+.2f}",
            f"{m.drop_ci95[0]:+.2f} {m.drop_ci95[1]:+.2f}",
            f"{m.agreement:.2f}",
            f"{m.max_error:.1e}",
            f"{m.mean_error:.1e}",
        )
    console.print(table)
    if any(artefact.undecided for artefact in bundle.manifest.artefacts):
        console.print("? undecided: not enough images to tell")
    from export.repair import PLAN, REPAIRS

    kept = any(artefact.precision == "int8" for artefact in bundle.manifest.artefacts)
    if kept and (repaired := bundle.folder / REPAIRS).exists():
        console.print(
            f"Repaired: the next export repeats it exactly with --plan {repaired.with_name(PLAN)}",
            soft_wrap=True,
        )
    console.print(f"Bundle: {bundle.folder}   Report: {bundle.folder / 'report.html'}", soft_wrap=True)


def _judge(bundle: Bundle, advice: str) -> None:
    for artefact in bundle.manifest.artefacts:
        if artefact.undecided:
            click.echo(f"Undecided: {artefact.format} {artefact.precision}, {artefact.undecided}.", err=True)
    failed = [f"{a.format} {a.precision} {a.reason}" for a in bundle.manifest.absent]
    if failed:
        small = any(a.precision == "int8" for a in bundle.manifest.absent)
        raise CheckFailed(
            f"{'; '.join(failed)}. See {bundle.folder / 'report.html'}.{advice if small else ''}"
        )


def _advice(bundle: Bundle, repair: bool, planned: bool, can_judge: bool) -> str:
    """What may help an int8 file that failed."""
    if planned:
        return " The plan was followed as it is; without --plan, repairs are tried."
    if not repair:
        return " Without --no-repair, what may help is tried."
    if not can_judge:
        return " No repair was tried: --samples took all training images, and none is left to judge one by."
    if _was_enough(bundle):
        return (
            " On the training images that judge repairs it lost less than is allowed, so that no more was tried: do "
            "the test images differ from those? --equalise, --bias-correction and --adaround ask for what was not."
        )
    return (
        " What is left for int8 is a training that knows of it: "
        "`sightline train RECIPE --qat --from MODEL`, then export what it wrote."
    )


def _was_enough(bundle: Bundle) -> bool:
    """Whether the last attempt passed where repairs are judged; of a single one, the first, nothing is recorded."""
    from export.repair import REPAIRS, Record

    file = bundle.folder / REPAIRS
    return not file.exists() or Record.model_validate_json(file.read_text()).attempts[-1].enough


def _build_plans(bundle: Bundle, precisions: tuple[Precision, ...]) -> None:
    from edge.runners.plans import find_toolkit
    from export.build import build_into
    from export.tensorrt import device_to_build_for

    toolkit = find_toolkit()
    device = device_to_build_for(toolkit)
    for precision in precisions:
        path, _ = build_into(bundle, precision, toolkit, device)
        click.echo(f"TensorRT plan: {path}")
