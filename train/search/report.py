"""What a search shows: a line a trial, the table of the best, warnings, the command to go on with, and files."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from rich import box
from rich.console import Console
from rich.table import Table

from edge.console import open_console, print_whole
from edge.files import write_text
from train.card import this_machine
from train.evaluate import Top1
from train.search.plot import plot
from train.search.run import COARSE, FINE, Found, Plan, done
from train.search.space import assignments, edge_warning
from train.search.study import Study, Trial

if TYPE_CHECKING:
    from train.search.objective import Objective

SHOWN = 5
"""Trials of each stage in the table."""


class Progress:
    """Tells of each trial that ended."""

    def __init__(self, plan: Plan, study: Study, console: Console) -> None:
        self._plan, self._study, self._console = plan, study, console
        self._before = len(study.trials())
        if self._before:
            console.print(f"{self._before} of {len(plan)} trials are done; going on.", highlight=False)

    def tell(self, trial: Trial) -> None:
        """One line, with how many have ended in all processes."""
        values = " ".join(assignments(trial.values)) or "the recipe's own values"
        text = f"{len(self._study.trials())}/{len(self._plan)}  {trial.name}  {trial.outcome}  {values}"
        self._console.print(f"{text}  {trial.seconds:.1f} s", highlight=False, soft_wrap=True)

    def state(self) -> str:
        """How far the search is."""
        return f"{len(self._study.trials())} of {len(self._plan)} trials are done"


def report(found: Found, folder: Path, objective: Objective, command: tuple[list[str], list[str]]) -> None:
    """Print and write everything that was found. `command` trains the recipe: what stands before and after values."""
    print_whole(_table(found))
    console = open_console(140)
    lines = [*_verdict(found, objective), *_warnings(found)]
    line = shlex.join([*command[0], *assignments(found.best.values), *command[1]])
    for text in (*lines, f"Train it with: {line}"):
        console.print(text, highlight=False, soft_wrap=True)
    plot(folder / "search.png", found)
    content = _as_json(found, objective) | {"notes": lines, "command": line}
    write_text(folder / "search.json", json.dumps(content, indent=2) + "\n")
    console.print(
        f"{folder / 'search.json'} and {folder / 'search.png'} are written.", highlight=False, soft_wrap=True
    )


def _table(found: Found) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("trial", "epochs", "validation", "loss", *found.plan.space, "s"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "trial" else "right")
    for stage in (FINE, COARSE):
        ranked = sorted(done(found.trials, stage), key=lambda trial: trial.rank, reverse=True)
        for place, trial in enumerate(ranked):
            if place < SHOWN or trial.own:
                table.add_row(*_cells(found, trial))
        table.add_section()
    return table


def _verdict(found: Found, objective: Objective) -> list[str]:
    """What the best is worth against the recipe's own values, as far as so many images can say."""
    best, own, n = found.best, found.own, objective.held_out
    text = f"Best: {best.name}, {best.outcome}"
    if n is None:
        compared = f"; the recipe's own values: {own.outcome}" if own else ""
        return [f"{text} of the val split{compared}."]
    low, high = _interval(best, n)
    lines = [f"{text} of {n:,} training images held out, 95 % interval {low:.2f} to {high:.2f}."]
    if best.own:
        return [*lines, "These are the recipe's own values: nothing that was drawn does better."]
    if own is None:
        return [*lines, "The recipe's own values were cut."]
    told = "" if _interval(own, n)[1] < low else " So few images do not tell the two apart for certain."
    return [*lines, f"The recipe's own values, trained for as many epochs: {own.outcome}.{told}"]


def _interval(trial: Trial, n: int) -> tuple[float, float]:
    assert trial.validation is not None
    return Top1(round(trial.validation / 100 * n), n).ci95


def _warnings(found: Found) -> list[str]:
    plan, values = found.plan, found.best.values
    edges = (edge_warning(plan.recipe, plan.space, name, value) for name, value in values.items())
    lines = [f"At an edge: {text}" for text in edges if text]
    for ending, words in (("cut", "were cut, for their loss diverged"), ("failed", "could not be trained")):
        lost = [trial for trial in found.trials if trial.ending == ending]
        if lost:
            lines.append(f"{len(lost)} of {len(plan)} trials {words}. {lost[0].name}: {lost[0].why}")
    return lines


def _as_json(found: Found, objective: Objective) -> dict[str, Any]:
    plan = found.plan
    return {
        "recipe": objective.recipe.as_dict(),
        "data": objective.about.data.model_dump(),
        "held_out": objective.held_out,
        "seed": plan.seed,
        "space": {name: str(part) for name, part in plan.space.items()},
        "around": {name: str(part) for name, part in found.around.items()},
        "stages": {COARSE: str(plan.coarse), FINE: str(plan.fine)},
        "best": found.best.name,
        "trials": [asdict(trial) for trial in found.trials],
        "machine": this_machine().model_dump(),
        "optuna": optuna.__version__,
    }


def _cells(found: Found, trial: Trial) -> tuple[str, ...]:
    own = {name: getattr(found.plan.recipe, name) for name in found.plan.space}
    values = (text.partition("=")[2] for text in assignments(trial.values or own))
    name = trial.name + (" (the recipe's)" if trial.own else "") + (" *" if trial == found.best else "")
    return (name, str(trial.epochs), trial.outcome, f"{trial.loss:.3f}", *values, f"{trial.seconds:.1f}")
