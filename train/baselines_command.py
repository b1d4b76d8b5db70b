"""The commands `baselines` and `ensemble`: simpler classifiers beside a network, and several networks together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

from edge.bundle import InputSpec
from edge.console import open_console, print_whole
from edge.errors import InputError
from edge.files import check_could_write, write_text
from train.commands import DATA_HELP
from train.data import SPLITS, LabelledImages, check_classes, few
from train.evaluate_command import images_of

if TYPE_CHECKING:
    from train.baselines import Result, Rows
    from train.ensemble import Member
    from train.evaluate import Top1

PIXELS = InputSpec(height=32, width=32, resize="crop")
"""Larger pictures are shrunk for the rows of raw pixels: a classifier of these gains nothing from more."""

Pair = tuple[LabelledImages, LabelledImages]
"""Training images and test images."""


@click.command()
@click.option("--data", required=True, metavar="DIR", help=DATA_HELP)
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Also on what this network's last layer sees.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="That many training images, spread over the classes.",
)
@click.option("--skip-corrupt", is_flag=True, help="Leave out pictures that cannot be decoded.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the result there."
)
def baselines(
    data: str, features: Path | None, limit: int | None, skip_corrupt: bool, json_path: Path | None
) -> None:
    """Compare five kinds of classifier, on raw pixels and on the features of a trained network."""
    from train.baselines import KINDS, compare, held_out

    if json_path:
        check_could_write(json_path)
    table, found = _baseline_table(), []
    for seen, pair, (train, test) in _views(data, features, limit, skip_corrupt):
        aside = held_out(pair[0])
        for name in KINDS:
            result = compare(name, (train, pair[0].labels), (test, pair[1].labels), aside)
            found.append({"on": seen, "dimensions": train.shape[1]} | result.as_json())
            table.add_row(f"{seen}, {train.shape[1]:,}", *_cells(result))
        table.add_section()
    print_whole(table)
    console = open_console(140)
    console.print(f"{len(pair[0]):,} training images, {len(pair[1]):,} test images.", highlight=False)
    if any(row["edge"] for row in found):
        console.print("* the first or the last of the values tried: a better one may lie beyond.")
    if json_path:
        about = {"data": pair[1].source, "train": pair[0].source, "n_train": len(pair[0])}
        write_text(json_path, json.dumps(about | {"results": found}, indent=2) + "\n")


def _views(
    data: str, features: Path | None, limit: int | None, skip_corrupt: bool
) -> Iterator[tuple[str, Pair, tuple[Rows, Rows]]]:
    """What the classifiers see: its name, the images, and their rows for training and test."""
    from train.baselines import feature_rows, pixel_rows, without_last_layer
    from train.card import read_card
    from train.weights import load_network

    # A wrong model must be told before minutes are spent on pixels.
    network, card = (load_network(features), read_card(features)) if features else (None, None)
    pair = _loaded(data, PIXELS, limit, skip_corrupt)
    yield "pixels", pair, (pixel_rows(pair[0]), pixel_rows(pair[1]))
    if network is not None and card is not None:
        pair = _loaded(data, card.input, limit, skip_corrupt, tell=False)
        before_last = without_last_layer(network)
        yield card.name, pair, (feature_rows(before_last, pair[0]), feature_rows(before_last, pair[1]))


def _loaded(data: str, size: InputSpec, limit: int | None, skip_corrupt: bool, tell: bool = True) -> Pair:
    train, test = (images_of(data, split, size, None, skip_corrupt, tell) for split in SPLITS)
    check_classes(train)
    return few(train, limit), test


def _baseline_table() -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("on, dimensions", "kind", "classifier", "chosen"):
        table.add_column(heading, no_wrap=True)
    for heading in ("top-1, %", "95 % interval", "fit, s", "predict, s"):
        table.add_column(heading, no_wrap=True, justify="right")
    return table


def _cells(result: Result) -> tuple[str, ...]:
    from train.baselines import KINDS

    chosen = f"{result.chosen}{'*' if result.edge else ''}" or "-"
    times = (f"{seconds:.2f}" for seconds in (result.fit_s, result.predict_s))
    return (result.kind, KINDS[result.kind].words, chosen, *_accuracy(result.top1), *times)


def _accuracy(top1: Top1) -> tuple[str, str]:
    low, high = top1.ci95
    return f"{top1.per_cent:.2f}", f"{low:.2f} to {high:.2f}"


# -- ensemble -------------------------------------------------------------------------------------


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@click.option("--data", required=True, metavar="DIR", help=DATA_HELP)
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Of the data.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="That many images, spread over the classes."
)
@click.option("--skip-corrupt", is_flag=True, help="Leave out pictures that cannot be decoded.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the result there."
)
def ensemble(
    models: tuple[str, ...],
    data: str,
    split: str,
    limit: int | None,
    skip_corrupt: bool,
    json_path: Path | None,
) -> None:
    """Measure several classifiers, .keras files or bundles, and the mean of their probabilities: top-1."""
    from train.ensemble import Member, joined, members_of

    if len(models) < 2:
        raise InputError(
            f"An ensemble has at least two members, found {models[0]} alone. Name another model."
        )
    if json_path:
        check_could_write(json_path)
    with ExitStack() as opened:
        subjects = [opened.enter_context(closing(subject)) for subject in members_of(models)]
        members: list[Member] = []
        # Members of one input size look at the same pictures, read once; of all, the notes are told once.
        seen = cache(lambda size: images_of(data, split, size, limit, skip_corrupt, tell=not members))
        for subject in subjects:
            images = seen(subject.input)
            members.append(Member.measured(subject, images))
    together = joined(members)
    _show_ensemble(members, together)
    if json_path:
        write_text(json_path, json.dumps(_ensemble_json(members, together, images), indent=2) + "\n")


def _show_ensemble(members: list[Member], together: Member) -> None:
    table = Table(box=box.SIMPLE)
    for heading in ("model", "top-1, %", "95 % interval"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "model" else "right")
    for member in (*members, together):
        table.add_row(member.name, *_accuracy(member.top1))
    print_whole(table)
    console = open_console(140)
    best = max(members, key=lambda member: member.top1.right)
    gained, lost = together.against(best)
    console.print(
        f"Against {best.name} alone: of {together.top1.n:,} images {gained} put right, {lost} wrong.",
        highlight=False,
    )


def _ensemble_json(members: list[Member], together: Member, images: LabelledImages) -> dict[str, Any]:
    rows = [{"model": member.name} | member.top1.as_json() for member in members]
    return {"data": images.source, "members": rows} | together.top1.as_json()
