"""`sightline evaluate` for face detectors: COCO's figures, or WIDER FACE's protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from edge.console import open_console
from edge.errors import InputError
from edge.results import Faces
from train.detection.data import BoxedImages, load_boxed
from train.detection.evaluate import SCORE_FLOOR, bundle_detections, keras_detections, resized, size_of
from train.detection.measure import SIZES, Figures, Measured, measure, without_nan
from train.detection.plot import Line, check_plot_path, plot
from train.detection.wider import WiderFigures, WiderImages, is_wider, load_wider, wider_figures
from train.evaluate import Subject, evaluation_progress

_Images = TypeVar("_Images", BoxedImages, WiderImages)


@dataclass(frozen=True)
class DetectionOptions:
    """What the command was asked for; `size` is WIDTHxHEIGHT, `plot` the file to draw into."""

    data: str
    split: str = "test"
    limit: int | None = None
    size: str | None = None
    plot: Path | None = None

    def refuse_for(self, subject: Subject) -> None:
        """Raises InputError where an option was given that a classifier does not have."""
        given = [name for name, value in (("--size", self.size), ("--plot", self.plot)) if value]
        if given:
            raise InputError(
                f"{' and '.join(given)}: for face detectors only; {subject.name} is a classifier."
            )


def evaluate_faces(subject: Subject, options: DetectionOptions) -> dict[str, Any]:
    """Measure, print the table, draw the plot, and return what `--json` writes.

    Raises:
        InputError: the data or an option is wrong. SourceError: a picture cannot be decoded.
    """
    if options.plot:
        check_plot_path(options.plot)
    if options.size:
        subject = _with_size(subject, options.size)
    if is_wider(options.data):
        return _on_wider(subject, options)
    images = _limited(load_boxed(options.data, options.split), options.limit)
    measured = measure(images, _found(subject, images), subject.input)
    console = open_console(120)
    console.print(_table(measured))
    _say(console, _about(subject, images), *images.notes)
    _draw(console, options.plot, _title(subject, images.source), _lines(measured))
    extra = {"faces": measured.overall.faces, "notes": list(images.notes)}
    return {**_common(subject, images.source), **measured.as_json(), **extra}


def _with_size(subject: Subject, size: str) -> Subject:
    """The Keras model with another input; an exported one has its size built in."""
    width, height = size_of(size)
    if subject.backend != "keras":
        raise InputError(
            f"--size is for .keras files: the bundle {subject.name} is bound to {_size(subject)}. "
            "Export one of that size."
        )
    spec = subject.input.model_copy(update={"width": width, "height": height})
    return replace(subject, input=spec, model=resized(subject.model, height, width))


def _found(subject: Subject, images: BoxedImages | WiderImages) -> list[Faces]:
    with evaluation_progress(subject.name, len(images)) as advance:
        if subject.backend == "keras":
            return keras_detections(subject.model, images, subject.input, advance=advance)
        return bundle_detections(subject.model, images, advance=advance)


def _limited(images: _Images, limit: int | None) -> _Images:
    """`limit` images, evenly spread over the split."""
    if limit is None or limit >= len(images):
        return images
    chosen = np.linspace(0, len(images) - 1, limit).round().astype(int)
    source = f"{images.source} {limit} of {len(images)}"
    return replace(images, images=tuple(images.images[index] for index in chosen), source=source)


def _common(subject: Subject, source: str) -> dict[str, Any]:
    return {
        "model": subject.name,
        "data": source,
        "backend": subject.backend,
        "precision": subject.precision,
        "input": [subject.input.width, subject.input.height],
        "score_floor": SCORE_FLOOR,
    }


# -- what is shown --------------------------------------------------------------------------------


def _table(measured: Measured) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("faces", no_wrap=True)
    for heading in (
        "images",
        "n",
        "AP50",
        "95 % interval",
        "101 points",
        "AP50-95",
        "recall at 1 false/image",
    ):
        table.add_column(heading, justify="right", no_wrap=heading != "recall at 1 false/image")
    sizes = {f"{name} {_range(*SIZES[name])}": part for name, part in measured.by_size.items()}
    groups = [{"all": measured.overall}, measured.by_source, sizes]
    for group in groups:
        for name, figures in group.items():
            table.add_row(name, *_cells(figures))
        table.add_section()
    return table


def _cells(figures: Figures) -> tuple[str, ...]:
    interval = " to ".join(_share(bound) for bound in figures.ci95)
    values = (figures.ap50_coco, figures.ap50_95, figures.recall_at_one)
    counts = (f"{figures.images:,}", f"{figures.faces:,}")
    return (*counts, _share(figures.ap50), interval, *(_share(value) for value in values))


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _range(low: float, high: float) -> str:
    if low == 0:
        return f"< {high:.0f} px"
    return f">= {low:.0f} px" if np.isinf(high) else f"{low:.0f}-{high:.0f} px"


def _about(subject: Subject, images: BoxedImages) -> str:
    return (
        f"{_title(subject, images.source)}. 101 points and AP50-95 as pycocotools counts; sizes are square "
        f"roots of areas at the input; detections from a score of {SCORE_FLOOR}."
    )


def _title(subject: Subject, source: str) -> str:
    return f"{subject.name}, {subject.backend} {subject.precision}, {_size(subject)}, {source}"


def _size(subject: Subject) -> str:
    return f"{subject.input.width}x{subject.input.height}"


def _lines(measured: Measured) -> dict[str, Line]:
    parts = {"all": measured.overall, **measured.by_source}
    return {
        f"{name}  AP50 {parts[name].ap50:.3f}": (curve.recall, curve.precision)
        for name, curve in measured.curves.items()
        if parts[name].faces
    }


def _draw(console: Console, path: Path | None, title: str, lines: dict[str, Line]) -> None:
    if path and lines:
        plot(path, title, lines)
    elif path:
        _say(console, f"{path} is not written: no face counts, or none was found.")


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


# -- WIDER FACE -----------------------------------------------------------------------------------


def _on_wider(subject: Subject, options: DetectionOptions) -> dict[str, Any]:
    images = load_wider(options.data)
    images = _limited(images, options.limit)
    found = _found(subject, images)
    figures = {setting: wider_figures(images, found, setting) for setting in images.settings}
    console = open_console(120)
    console.print(_wider_table(figures))
    _say(console, f"{_title(subject, images.source)}: WIDER FACE's protocol, {len(images):,} images.")
    _draw(console, options.plot, _title(subject, images.source), _wider_lines(figures))
    return {**_common(subject, images.source), "n": len(images), **_wider_json(figures)}


def _wider_lines(figures: dict[str, WiderFigures]) -> dict[str, Line]:
    """From the first face found on: before, precision is 0/0."""
    return {
        f"{name}  AP {part.average_precision:.3f}": (
            part.recall[part.recall > 0],
            part.precision[part.recall > 0],
        )
        for name, part in figures.items()
        if part.average_precision > 0
    }


def _wider_json(figures: dict[str, WiderFigures]) -> dict[str, Any]:
    """`value` is that of the last setting: hard."""
    name, last = list(figures.items())[-1]
    parts = {
        setting: {"value": part.average_precision, "faces": part.faces, "ci95": part.ci95}
        for setting, part in figures.items()
    }
    found = {"value": last.average_precision, "ci95": last.ci95, **parts}
    return {"metric": f"wider_{name}", **without_nan(found)}


def _wider_table(figures: dict[str, WiderFigures]) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("setting", "faces", "AP", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    for name, part in figures.items():
        interval = " to ".join(_share(bound) for bound in part.ci95)
        table.add_row(name, f"{part.faces:,}", _share(part.average_precision), interval)
    return table
