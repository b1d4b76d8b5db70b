"""The command `search`."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.console import open_console
from edge.errors import InputError, MissingPackageError
from edge.tables import resolve
from train.commands import DATA_HELP, data_source

if TYPE_CHECKING:
    from train.recipe import AnyRecipe
    from train.search.run import Perform, Plan, Stage

FOLDER = Path("build/search")
COARSE_TRIALS, COARSE_PART = 24, 10
FINE_TRIALS, FINE_PART = 8, 3
"""Trials of each stage by default, and the part of the recipe's epochs that each is trained for."""


@click.command()
@click.argument("recipe")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="DIR", help=DATA_HELP)
@click.option(
    "--space",
    multiple=True,
    metavar="KEY=LOW..HIGH",
    help="Search that field as well, or there; KEY=VALUE,VALUE for words, KEY alone for its usual range.",
)
@click.option(
    "--coarse", metavar="TRIALSxEPOCHS", help="Of stage one. [default: 24 x a tenth of the recipe's epochs]"
)
@click.option("--fine", metavar="TRIALSxEPOCHS", help="Of stage two. [default: 8 x a third of them]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Of the values drawn.",
)
@click.option("--ray", metavar="ADDRESS", help="Run trials on a Ray cluster; 'local' starts one here.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"For the trials. [default: {FOLDER}/<name>]",
)
def search(
    recipe: str,
    assignments: tuple[str, ...],
    data: str | None,
    space: tuple[str, ...],
    coarse: str | None,
    fine: str | None,
    seed: int,
    ray: str | None,
    out: Path | None,
) -> None:
    """Search RECIPE's learning rate, decay and what else is named, judged on training images held out.

    Random: a coarse stage of short trials over the whole space, a fine one of longer trials around the best. Give the
    same command again to go on after a kill, or a second time at once to share the work.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("optuna", "search", "`sightline search`") from error
    from train.recipe import changed, load_recipe

    chosen = changed(load_recipe(recipe), assignments)
    plan = _plan(chosen, space, assignments, (coarse, fine), seed)
    source = data_source(chosen, data)
    aside = getattr(chosen, "hold_out", None) if "hold_out" in _keys(assignments) else None
    folder = out or FOLDER / chosen.name
    command = ["sightline", "train", recipe, *assignments], ["--data", "DIR"] if data else []
    _run(plan, folder, source, aside, ray, command)


def _run(
    plan: Plan,
    folder: Path,
    source: str,
    aside: int | None,
    ray: str | None,
    command: tuple[list[str], list[str]],
) -> None:
    from train.backend import import_keras

    import_keras()
    from train.data import tell_notes
    from train.search.objective import Objective
    from train.search.report import Progress, report
    from train.search.run import one_by_one
    from train.search.run import search as run
    from train.search.study import Study

    console = open_console(stderr=True)
    objective = Objective(plan.recipe, source, aside)
    tell_notes(objective.about.data.source, objective.about.notes)
    study = Study(folder, plan.settings(objective.about.data.sha256))
    told = Progress(plan, study, console)
    perform: Perform = one_by_one(partial(objective, console=console))
    if ray is not None:
        perform = resolve("train.search.cluster:on_ray")(
            ray, plan.recipe, source, aside, objective.about.data.sha256
        )
    try:
        found = run(plan, study, perform, told.tell)
    except KeyboardInterrupt:
        click.echo(f"\nStopped; {told.state()}. The same command goes on from there.", err=True)
        sys.exit(2)
    report(found, folder, objective, command)


def _plan(
    recipe: AnyRecipe,
    space: tuple[str, ...],
    assignments: tuple[str, ...],
    stages: tuple[str | None, str | None],
    seed: int,
) -> Plan:
    from train.search.run import Plan
    from train.search.space import space_of

    return Plan(
        recipe,
        space_of(recipe, space, _keys(assignments)),
        _stage("--coarse", stages[0], COARSE_TRIALS, recipe.epochs // COARSE_PART),
        _stage("--fine", stages[1], FINE_TRIALS, recipe.epochs // FINE_PART),
        seed,
    )


def _stage(option: str, text: str | None, trials: int, epochs: int) -> Stage:
    from train.search.run import Stage

    if text is None:
        return Stage(trials, max(1, epochs))
    match = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,4})", text)
    if match is None:
        raise InputError(f"{option} {text}: expected TRIALSxEPOCHS, such as {trials}x{max(1, epochs)}.")
    return Stage(*(int(number) for number in match.groups()))


def _keys(assignments: tuple[str, ...]) -> list[str]:
    return [text.partition("=")[0] for text in assignments]
