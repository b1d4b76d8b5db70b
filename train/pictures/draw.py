"""The pictures with words in them, drawn by Matplotlib: curves, accuracy by class, confusion matrix, mistakes."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.curves import Hint, History
from train.data import LabelledImages
from train.detection.plot import COLORS, figure_class
from train.pictures.mistakes import ClassAccuracy, Counts, Mistake

OPTION = "--report"
DPI = 110

NUMBERED = 25
"""Classes up to which a matrix has room for the number of every cell."""

NAMED = 100
"""Classes up to which every row is named; of more, every second, third and so on."""

LEVEL = 3
"""Characters up to which a column's name stands upright."""

MISTAKE_COLUMNS = 6

TRAINING, VALIDATION = COLORS[1], COLORS[2]


def curves(name: str, history: History, said: Sequence[Hint]) -> bytes:
    """Loss and accuracy by epoch, and below them in words what they show."""
    figure = figure_class(OPTION)(figsize=(9, 4.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    _line(left, history, "loss", 1, "training", TRAINING)
    _line(right, history, "accuracy", 100, "training", TRAINING)
    _line(right, history, "validation_top1", 1, "held out", VALIDATION)
    left.set(ylim=(0, None))
    for axes, title in ((left, "loss"), (right, "top-1, %")):
        _bare(axes, title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if right.lines:
        right.legend(frameon=False, fontsize=9)
    figure.suptitle(name, x=0.01, ha="left", fontsize=12, parse_math=False)
    words = "\n".join(textwrap.fill(f"{hint.sign} {hint.advice}", 120) for hint in said)
    figure.supxlabel(words, x=0.01, ha="left", fontsize=9, color="#444444")
    return _png(figure)


def classes(name: str, parts: Sequence[ClassAccuracy], overall: float) -> bytes:
    """Each class's accuracy with its 95 % interval, the worst at the top; a line at that of all images."""
    figure = figure_class(OPTION)(figsize=(6.4, 1.4 + 0.24 * len(parts)), dpi=DPI, layout="constrained")
    axes, rows = figure.subplots(), np.arange(len(parts))
    middle = np.array([part.top1.per_cent for part in parts])
    bounds = np.array([part.top1.ci95 for part in parts])
    reach = np.abs(bounds.T - middle)
    axes.errorbar(middle, rows, xerr=reach, fmt="o", color=COLORS[1], markersize=5, elinewidth=1.6)
    axes.axvline(overall, color=COLORS[2], linewidth=1)
    axes.set_yticks(rows, [_short(part.label) for part in parts], parse_math=False)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlabel(f"top-1, %, with its 95 % interval; the line is all images, {overall:.2f} %")
    _bare(axes, name)
    return _png(figure)


def matrix(name: str, counts: Counts, labels: Sequence[str]) -> bytes:
    """The confusion matrix: mistakes shaded by their share of the row, what was right in grey."""
    size = len(labels)
    side = min(16.0, 2.4 + 0.5 * size)
    figure = figure_class(OPTION)(figsize=(side, side), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    dark = shades(counts)
    axes.imshow(dark, cmap="Blues", vmin=0, vmax=1.25)
    axes.imshow(
        np.ma.masked_array(np.full(counts.shape, 0.25), ~np.eye(size, dtype=bool)),
        cmap="Greys",
        vmin=0,
        vmax=1,
    )
    step = -(-size // NAMED)
    shown, font = range(0, size, step), 9 if size <= NUMBERED else 5.5
    turned = 90 if max(map(len, labels)) > LEVEL else 0
    for axis, turn in ((axes.xaxis, turned), (axes.yaxis, 0)):
        names = [_short(labels[index]) for index in shown]
        axis.set_ticks(list(shown), names, fontsize=font, rotation=turn, parse_math=False)
    if size <= NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "white" if dark[row, column] > 0.7 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=ink)
    axes.set(xlabel="answer", ylabel="what it is")
    axes.tick_params(length=0)
    _bare(axes, name, grid=False)
    return _png(figure)


def shades(counts: Counts) -> Any:
    """How dark a mistake is, 0 to 1: the square root of its share of the row over the largest such share."""
    shares = counts * (1 - np.eye(len(counts))) / np.maximum(counts.sum(axis=1), 1)[:, None]
    return np.sqrt(shares / (shares.max() or 1.0))


def mistakes(name: str, images: LabelledImages, found: Sequence[Mistake]) -> bytes:
    """The images, each with the answer and its probability, and with what it is."""
    columns = MISTAKE_COLUMNS  # Also for a single mistake: the title needs the width.
    rows = -(-len(found) // columns)
    figure = figure_class(OPTION)(figsize=(1.75 * columns, 0.5 + 2.1 * rows), dpi=DPI, layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, mistake in zip(cells, found, strict=False):
        axes.imshow(images.images[mistake.index])
        answer, truth = (_short(images.class_names[index]) for index in (mistake.answer, mistake.truth))
        words = f"{answer}, {100 * mistake.confidence:.1f} %\nis {truth}, {100 * mistake.for_truth:.1f} %"
        axes.set_title(words, fontsize=8, parse_math=False)
    figure.suptitle(name, x=0.01, ha="left", fontsize=11, parse_math=False)
    return _png(figure)


def _line(axes: Any, history: History, metric: str, factor: float, label: str, color: str) -> None:
    """Epochs that lack the metric are passed over; a single one is a dot."""
    points = [(e.get("epoch", i), factor * e[metric]) for i, e in enumerate(history, 1) if metric in e]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, label=label, color=color, linewidth=1.8, marker="o" if len(x) == 1 else None)


def _bare(axes: Any, title: str, grid: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(True, color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)


def _short(label: str) -> str:
    return textwrap.shorten(label, 20, placeholder="…") if " " in label else label[:20]


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the built-in font lacks is drawn as boxes; the page shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(stream, format="png")
    return stream.getvalue()
