"""The precision-recall plot of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import InputError, MissingPackageError
from edge.files import whole_file
from train.detection.average_precision import Floats

SUFFIXES = (".png", ".svg", ".pdf")
COLORS = ("#1f1f1f", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The first for all pictures; the others are Okabe and Ito's, which colour-blind readers can tell apart."""

Line = tuple[Floats, Floats]
"""Recall, ascending, and precision, both float64 (k,), 0 to 1."""


def check_plot_path(path: Path) -> None:
    """Before minutes of measuring: is it of a format that can be drawn? Raises InputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"Cannot plot to {path}: expected a name that ends in {', '.join(SUFFIXES)}.")
    figure_class("--plot")


def plot(path: Path, title: str, lines: dict[str, Line]) -> None:
    """Draw recall against precision, one line for each label; the first is drawn thickest.

    Raises:
        InputError: the file cannot be written. MissingPackageError: matplotlib is not installed.
    """
    figure = figure_class("--plot")(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for index, (label, (recall, precision)) in enumerate(lines.items()):
        # A detector says nothing beyond its last recall: the line ends there, as its area does.
        x = np.concatenate([[0.0], recall])
        y = np.concatenate([precision[:1], precision])
        color = COLORS[index % len(COLORS)]
        axes.plot(x, y, label=label, color=color, linewidth=2.2 if index == 0 else 1.4)
    _style(axes, title)
    try:
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:].lower())
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}. Choose another --plot.") from error


def _style(axes: Any, title: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False, fontsize=9)


def figure_class(option: str) -> Any:
    """Matplotlib's figure without its global state, which would want a display.

    Raises:
        MissingPackageError: matplotlib is not installed, and `option` needs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("matplotlib", "train", option) from error
    return Figure
