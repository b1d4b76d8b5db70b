"""`sightline seeds`: one recipe trained from several seeds; mean and spread, kept in the card of the first."""

from __future__ import annotations

import statistics
from pathlib import Path

import click

from edge.errors import InputError
from train.card import Card, SeedRun, read_card, write_card

METRICS = {"test_top1": "test top-1, %", "test_ap50": "test AP50"}


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL MODEL...")
def seeds(models: tuple[Path, ...]) -> None:
    """Compare .keras files of one recipe and several seeds, by the test figures of their cards.

    All runs are written into the card of the first MODEL, the one that is shipped.
    """
    cards = [read_card(path) for path in models]
    runs = runs_of(cards)
    write_card(cards[0].model_copy(update={"seeds": runs}), models[0])
    for run in runs:
        click.echo(f"seed {run.seed}  {run.value:.4g}")
    values = [run.value for run in runs]
    click.echo(
        f"{METRICS[runs[0].metric]}: mean {statistics.mean(values):.4g}, standard deviation "
        f"{statistics.stdev(values):.2g}, {min(values):.4g} to {max(values):.4g}; {len(runs)} seeds"
    )


def runs_of(cards: list[Card]) -> tuple[SeedRun, ...]:
    """What each card tells of its run, by seed.

    Raises:
        InputError: fewer than two, another recipe or other data, a seed twice, or a card without a test figure.
    """
    if len(cards) < 2:
        raise InputError("A spread needs at least two seeds: name another model.")
    runs = sorted(map(_run, cards), key=lambda run: run.seed)
    first = cards[0]
    for card in cards[1:]:
        if differing := _differing(first, card):
            raise InputError(
                f"Seed {card.seed} is another training than seed {first.seed}: {', '.join(differing)} differ. "
                "Train the same recipe on the same data, with seed=N (and name=NAME) alone changed."
            )
    if len({run.seed for run in runs}) < len(runs):
        raise InputError(f"The same seed twice: {', '.join(str(run.seed) for run in runs)}.")
    return tuple(runs)


def _run(card: Card) -> SeedRun:
    metric = next((name for name in METRICS if name in card.metrics), None)
    if card.seed is None or metric is None:
        raise InputError(
            f"The card of {card.name} has no seed or no test figure; `sightline train` writes both."
        )
    return SeedRun(
        seed=card.seed, metric=metric, value=card.metrics[metric], weights_sha256=card.weights_sha256
    )


def _differing(one: Card, other: Card) -> list[str]:
    mine, its = one.recipe or {}, other.recipe or {}
    fields = [
        key for key in sorted((mine.keys() | its.keys()) - {"seed", "name"}) if mine.get(key) != its.get(key)
    ]
    return fields + ["data"] * (
        one.data is None or other.data is None or one.data.sha256 != other.data.sha256
    )
