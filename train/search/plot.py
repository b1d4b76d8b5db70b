"""The picture of a search: the measure of every trial over each field that was searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from edge.errors import InputError
from edge.files import whole_file
from train.search.run import COARSE, FINE, Found, done
from train.search.space import Choice, Range
from train.search.study import Trial

GREY, BLUE, ORANGE, GREEN = "#8a8a8a", "#0072b2", "#d55e00", "#009e73"
"""All but the grey are Okabe and Ito's, which colour-blind readers can tell apart."""

COLUMNS = 3

FEW_DECADES, LONG = 300, 30
"""Up to that ratio of its ends a logarithmic axis has plain numbers; names of more characters in all are turned."""

FROM_ONE_TICKS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def plot(path: Path, found: Found) -> None:
    """A PNG with a panel a field: its values along its own scale, the measure upwards.

    Raises:
        InputError: the file cannot be written.
    """
    names = list(found.plan.space)
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.2 + 3.6 * columns, 0.9 + 3.2 * rows), dpi=130, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, name in zip(grid.flat, names, strict=False):
        _panel(axes, found, name)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    grid.flat[0].set_ylim(top=min(grid.flat[0].get_ylim()[1], _measure(found)[1]))  # of all, which share it
    shown = [axes.get_legend_handles_labels() for axes in grid.flat]
    legend = {
        label: handle for handles, labels in shown for handle, label in zip(handles, labels, strict=True)
    }
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    figure.suptitle(f"{found.plan.recipe.name}: {len(found.trials)} trials", fontsize=11)
    try:
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror}. Choose another folder with --out."
        ) from error


def _panel(axes: Any, found: Found, name: str) -> None:
    part = found.plan.space[name]
    if isinstance(part, Choice):
        names = [word.rpartition(":")[2] for word in str(part).split(",")]
        turned = {"rotation": 20, "ha": "right"} if len("".join(names)) > LONG else {}
        axes.set_xticks(range(len(names)), names, **turned)
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        _scale(axes, part, found.around[name])
    for stage, color, marker in ((COARSE, GREY, "o"), (FINE, BLUE, "o")):
        trials = [trial for trial in done(found.trials, stage) if not trial.own]
        epochs = (found.plan.coarse if stage == COARSE else found.plan.fine).epochs
        label = f"{stage}, {epochs} epoch{'s' * (epochs > 1)}"
        axes.scatter(
            [_x(part, trial, name) for trial in trials],
            [trial.validation for trial in trials],
            s=26, marker=marker, label=label, color=color,
            facecolors="none" if stage == COARSE else color, clip_on=False,
        )  # fmt: skip
    _cut(axes, found, name)
    _best(axes, found, name)
    axes.set_xlabel(name)
    axes.grid(True, color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(_measure(found)[0])


def _scale(axes: Any, part: Range, around: Range | Choice) -> None:
    if part.scale == "log":
        axes.set_xscale("log")
        if part.high < FEW_DECADES * part.low:
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    elif part.scale == "from one":
        axes.set_xscale("function", functions=(_from_one, lambda x: 1 - 10.0**-x))
        axes.set_xticks([tick for tick in FROM_ONE_TICKS if part.low <= tick <= part.high])
    elif part.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if isinstance(around, Range):
        axes.axvspan(
            around.low, around.high, color=BLUE, alpha=0.07, linewidth=0, label="where fine was drawn"
        )
    for end in (part.low, part.high):
        axes.axvline(end, color=GREY, linewidth=0.9, linestyle=":")


def _cut(axes: Any, found: Found, name: str) -> None:
    """Trials without a measure, along the lower edge."""
    lost = [trial for trial in found.trials if trial.ending != "done" and not trial.own]
    if lost:
        x = [_x(found.plan.space[name], trial, name) for trial in lost]
        along = axes.get_xaxis_transform()
        axes.scatter(
            x, [0.02] * len(x), marker="x", s=30, color=ORANGE, transform=along, label="cut or failed"
        )


def _best(axes: Any, found: Found, name: str) -> None:
    if found.own is not None:
        axes.axhline(
            found.own.validation, color=GREEN, linewidth=1.2, linestyle="--", label="the recipe's own values"
        )
    if not found.best.own:
        x, y = _x(found.plan.space[name], found.best, name), found.best.validation
        axes.scatter(
            [x], [y], marker="*", s=190, color=ORANGE, edgecolors="white", linewidths=0.8, label="best",
            clip_on=False,
        )  # fmt: skip


def _x(part: Range | Choice, trial: Trial, name: str) -> Any:
    value = trial.values[name]
    return part.values.index(value) if isinstance(part, Choice) else value


def _from_one(x: Any) -> Any:
    """The scale of a momentum; matplotlib also asks beyond its end."""
    return -np.log10(np.maximum(1 - np.asarray(x, float), 1e-9))


def _measure(found: Found) -> tuple[str, float]:
    """In words, and the most that there can be of it."""
    if found.plan.recipe.data == "faces":
        return "AP50 of the val split", 1.0
    return "top-1 of the images held out, %", 100.0
