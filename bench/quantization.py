"""Int8 of ours and of others, of the same float models on the same images in one run: what each loses.

    python bench/quantization.py --data DIR [--models NAME,...] [--n 2000] [--quantizers PYTHON] [--json FILE]

Ours is `sightline export` as it comes, both formats, with the repair loop; the others are TFLiteConverter, ONNX
Runtime's quantize_static, litert-quantizer and nvidia-modelopt with their defaults, on the same 512 calibration
images. The last two run in an environment of their own, PYTHON (see bench/requirements-quantization.txt); without
it they are left out. The shipped models come from models/; the hard ones (bench/hard) are trained into --cache
where they are not there yet, minutes each. DIR is CIFAR-10's folder; without it this ends with 0.

Drops are in points of top-1 against the float model in Keras, with 95 % intervals, paired by image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from bench.hard.recipes import HARD, trained
from bench.peers import converters
from calibration.plan import Plan
from calibration.settings import Settings
from edge.bundle import Bundle, Format
from edge.errors import InputError
from edge.files import sha256, write_text
from edge.machine import package_versions, this_machine
from edge.pixels import normalise
from export.classification import Classification
from export.job import Job
from export.pack import export_bundle
from export.parity import artefact_logits, paired_interval
from export.proof import Share, open_proof
from export.repair import PLAN
from train.card import read_card
from train.evaluate import keras_outputs
from train.weights import load_keras

SHIPPED = ("cifar10-nano", "cifar10-base")
OURS = "sightline"
SAMPLES, MAX_DROP = 512, 0.5
TOOLS = ("tensorflow", "keras", "ai-edge-litert", "onnx", "onnxruntime", "tf2onnx", "numpy")

Values = NDArray[np.float32]
Right = NDArray[np.bool_]
"""By image, whether the class is the true one."""


@dataclass(frozen=True)
class Result:
    """One file of one quantizer.

    Attributes:
        drop, interval: against the float model, in points; top1: in per cent.
        float_layers: convolutions and dense layers that ours left in float; None of the others.
        error: why there is no file; the figures are then 0.
    """

    model: str
    tool: str
    format: str
    top1: float = 0.0
    drop: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    float_layers: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Case:
    """A float model and the images of this run.

    Attributes:
        path: of its `.keras` file; model: what it holds.
        python: that has the quantizers of others; None for none.
        folder: for all files that are made.
    """

    name: str
    path: Path
    model: Any
    proof: Classification
    python: Path | None
    folder: Path

    @property
    def pixels(self) -> Values:
        """Of the test images."""
        return normalise(self.proof.test.images)

    @cached_property
    def bundle(self) -> Bundle:
        """What `sightline export MODEL --data DIR --precisions int8` makes."""
        job = Job(
            model=self.model,
            model_sha256=sha256(self.path),
            name=self.name,
            card=read_card(self.path),
            proof=self.proof,
            settings=Settings(),
            formats=("tflite", "onnx"),
            precisions=("int8",),
            max_drop=MAX_DROP,
        )
        return export_bundle(job, self.folder / "bundle", say=lambda line: click.echo(line, err=True))

    @cached_property
    def float_files(self) -> dict[str, Path]:
        """By format, the float model as Keras writes it."""
        return converters.float_files(self.model, self.folder)


Answer = Callable[[Case], Values]
"""Makes a file and gives its logits for the test images."""


def ours(format: Format) -> Answer:
    """The export, with its repair loop."""
    return lambda case: artefact_logits(
        case.bundle, case.bundle.artefact(format, "int8"), case.proof.test.images
    )


def others(suffix: str, make: Callable[[Case, Values, Path], None]) -> Answer:
    """A file that `make` writes, of the calibration images that ours has too."""

    def answer(case: Case) -> Values:
        out = case.folder / f"other{suffix}"
        out.unlink(missing_ok=True)
        make(case, normalise(np.asarray(case.proof.samples.images)), out)
        return converters.answers(out, case.pixels)

    return answer


def elsewhere(quantizer: str, format: Format) -> Answer:
    """One that runs in the other environment."""

    def make(case: Case, images: Values, out: Path) -> None:
        if case.python is None:
            raise RuntimeError("not asked for: --quantizers")
        converters.in_other_environment(case.python, quantizer, case.float_files[format], images, out)

    return others(f".{format}", make)


ENTRANTS: dict[tuple[str, Format], Answer] = {
    (OURS, "tflite"): ours("tflite"),
    (OURS, "onnx"): ours("onnx"),
    ("TFLiteConverter", "tflite"): others(
        ".tflite", lambda case, images, out: converters.tflite_default(case.model, images, out)
    ),
    ("litert-quantizer", "tflite"): elsewhere("litert-quantizer", "tflite"),
    ("quantize_static", "onnx"): others(
        ".onnx",
        lambda case, images, out: converters.onnxruntime_default(case.float_files["onnx"], images, out),
    ),
    ("nvidia-modelopt", "onnx"): elsewhere("modelopt", "onnx"),
}


def measured(case: Case) -> tuple[list[Result], dict[str, Right], float]:
    """All results of a model; by file, which images are named rightly; the float model's top-1."""
    test = case.proof.test
    exact = keras_outputs(case.model, test.images, lambda done: None).argmax(1) == test.labels
    right: dict[str, Right] = {}
    results = []
    for (tool, format), answer in ENTRANTS.items():
        try:
            hits = answer(case).argmax(1) == test.labels
        except Exception as error:  # That a quantizer fails is a result.
            results.append(Result(case.name, tool, format, error=" ".join(str(error).split())[:300]))
            continue
        right[f"{tool} {format}"] = hits
        results.append(
            Result(
                case.name,
                tool,
                format,
                top1=100 * float(hits.mean()),
                drop=100 * float(exact.mean() - hits.mean()),
                interval=paired_interval(exact, hits),
                float_layers=_float_layers(case.bundle) if tool == OURS else None,
            )
        )
    return results, right, 100 * float(exact.mean())


def _float_layers(bundle: Bundle) -> int:
    plan = bundle.folder / PLAN
    return len(Plan.read(plan).float_layers) if plan.exists() else 0


def best_other(results: list[Result], right: dict[str, Right]) -> str:
    """Ours against the best of the others, in one line."""
    rivals = [r for r in results if r.tool != OURS and not r.error]
    mine = [r for r in results if r.tool == OURS and not r.error]
    if not rivals or not mine:
        return "nothing to compare"
    best = max(rivals, key=lambda r: r.top1)
    lines = []
    for one in mine:
        low, high = paired_interval(right[f"{best.tool} {best.format}"], right[f"{OURS} {one.format}"])
        word = "worse" if low > 0 else "better" if high < 0 else "no significant difference"
        lines.append(f"{one.format} {one.top1 - best.top1:+.2f} points ({-high:+.2f} to {-low:+.2f}): {word}")
    return f"ours against the best other, {best.tool}: " + "; ".join(lines)


def table(results: list[Result], name: str, top1: float, n: int) -> Table:
    """Of one model."""
    made = Table(box=box.SIMPLE, title=f"{name}: float {top1:.2f} %, n = {n:,}", title_justify="left")
    for column in ("quantizer", "file", "top-1, %", "drop, points", "95 % interval", "in float"):
        made.add_column(column, justify="left" if column in ("quantizer", "file") else "right")
    for r in results:
        if r.error:
            made.add_row(r.tool, r.format, "none", r.error[:60], "", "")
            continue
        low, high = r.interval
        kept = "" if r.float_layers is None else str(r.float_layers)
        made.add_row(r.tool, r.format, f"{r.top1:.2f}", f"{r.drop:+.2f}", f"{low:+.2f} to {high:+.2f}", kept)
    return made


@click.command(help=__doc__)
@click.option("--data")
@click.option("--models", default=",".join((*SHIPPED, *HARD)), show_default=True)
@click.option("--n", default=2000, show_default=True, help="Test images, by class.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path("build/bench/quantization"))
@click.option("--quantizers", type=click.Path(path_type=Path), help="The Python that has the others.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(
    data: str | None, models: str, n: int, cache: Path, quantizers: Path | None, json_path: Path | None
) -> None:
    console = Console(width=110)
    if data is None:
        console.print("bench/quantization.py needs --data with CIFAR-10: skipped.")
        return
    everything: list[Result] = []
    for name in models.split(","):
        path = trained(name, data, cache) if name in HARD else Path("models") / f"{name}.keras"
        folder = cache / "files" / name
        folder.mkdir(parents=True, exist_ok=True)
        proof = open_proof(data, read_card(path), Share(SAMPLES, n))
        assert isinstance(proof, Classification)
        results, right, top1 = measured(Case(name, path, load_keras(path), proof, quantizers, folder))
        everything += results
        console.print(table(results, name, top1, n))
        console.print(best_other(results, right), highlight=False)
        if json_path is not None:
            about = {"n": n, "machine": this_machine().cpu, "versions": package_versions(TOOLS, absent="-")}
            rows = [asdict(result) for result in everything]
            write_text(json_path, json.dumps(about | {"results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench/quantization.py: {error}") from error
