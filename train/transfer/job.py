"""One training from recipe and trained network to files: what `sightline train --from` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from edge.files import sha256
from train.card import Origin
from train.classifier import training_split
from train.data import SPLITS, LabelledImages, check_classes, load
from train.job import Job
from train.transfer.lesson import TransferLesson
from train.transfer.recipe import TransferRecipe, transfer_recipe
from train.transfer.source import Source, evidence, open_source, parts
from train.transfer.strategy import AUTO, STRATEGIES, Decision, decide


@dataclass(frozen=True)
class TransferJob(Job):
    """One training from recipe and trained network to files.

    Attributes:
        start: the `.keras` file of the network; strategy: one of `STRATEGIES`, or `auto`.
        assignments: KEY=VALUE of the call, which come before the strategy's own.
    """

    start: Path = Path()
    strategy: str = AUTO
    assignments: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """Named after the network it started from too: of another one there is nothing to resume."""
        return self.out / f"{self.recipe.name}.{sha256(self.start)[:12]}.checkpoint.keras"

    def lesson(self) -> TransferLesson:
        """Read network and data, decide; raises InputError where they are wrong."""
        recipe, assigned = self.recipe, {text.partition("=")[0] for text in self.assignments}
        source = open_source(self.start, recipe)
        if source.card is None:
            click.echo(f"{self.start} has no card: the terms of its training data are not known.", err=True)
        size = (recipe.height, recipe.width, recipe.resize)
        images, test = (load(self.data, split, *size, skip_corrupt=recipe.skip_corrupt) for split in SPLITS)
        check_classes(images)
        data, held_out = training_split(images, recipe)
        decision = self._decided(source, data)
        click.echo(f"Strategy {decision.strategy}: {STRATEGIES[decision.strategy]}.\n  {decision.reason}.")
        chosen = replace(
            transfer_recipe(recipe, assigned, len(data), decision.strategy),
            source=self.start.name,
            source_sha256=sha256(self.start),
            terms=source.terms,
        )
        cut = parts(source, decision.strategy, len(data.class_names))
        return TransferLesson(chosen, cut, data, held_out, test, origin_of(source, chosen, decision))

    def _decided(self, source: Source, data: LabelledImages) -> Decision:
        if self.strategy != AUTO:
            return Decision(self.strategy, "As --strategy says")
        return decide(evidence(source, data))


def origin_of(source: Source, recipe: TransferRecipe, decision: Decision) -> Origin:
    """What the card says of the network that the training began with."""
    card = source.card
    unchanged = {"linear": source.cuts.last, "finetune-more": None}
    return Origin(
        model=recipe.source,
        model_sha256=recipe.source_sha256,
        labels=card.labels if card else None,
        data=card.data if card else None,
        strategy=decision.strategy,
        reason=decision.reason,
        cut=unchanged.get(decision.strategy, source.cuts.earlier),
        terms=source.terms or None,
    )
