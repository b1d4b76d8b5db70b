"""One training from recipe to files: what the command `train` does."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from edge.bundle import InputSpec
from edge.errors import InputError
from edge.files import sha256
from train.backend import import_keras
from train.card import Card, data_card, this_machine, weights_sha256, write_card
from train.data import SPLITS, LabelledImages, load
from train.evaluate import Top1, keras_top1
from train.recipe import Recipe
from train.weights import save_keras

if TYPE_CHECKING:
    from train.fit import Trained


@dataclass(frozen=True)
class Job:
    """What to train and where to write it.

    Attributes:
        recipe: what; data: on what, see `train.data.load`.
        out: the folder for the model, its card and, meanwhile, the checkpoint.
        command: that trains the same again, for the card.
        resume: whether to go on from the checkpoint; checkpoint_interval_s: how often to leave one.
    """

    recipe: Recipe
    data: str
    out: Path
    command: str
    resume: bool
    checkpoint_interval_s: float

    @property
    def model_path(self) -> Path:
        """The `.keras` file to come."""
        return self.out / f"{self.recipe.name}.keras"

    @property
    def checkpoint(self) -> Path:
        """Where the training can be resumed from; gone once the model is written."""
        return self.out / f"{self.recipe.name}.checkpoint.keras"

    def run(self) -> Card:
        """Train, test once, write the model and its card.

        What can go wrong early does: data, output folder and network are tried before the training.

        Raises:
            InputError: data, recipe, checkpoint or output folder are wrong.
            CheckFailed: the training diverged.
        """
        _check_writable(self.out)
        recipe = self.recipe
        images, test = (
            load(self.data, split, recipe.height, recipe.width, recipe.resize) for split in SPLITS
        )
        import_keras()
        from train.fit import training_split

        chosen, held_out = training_split(images, recipe)
        trained = self._fit(chosen, held_out)
        top1 = keras_top1(trained.model, test)
        save_keras(trained.model, self.model_path)
        card = self._card(chosen, trained, top1)
        write_card(card, self.model_path)
        self.checkpoint.unlink(missing_ok=True)
        return card

    def _fit(self, data: LabelledImages, held_out: LabelledImages | None) -> Trained:
        from train.augment import steps_per_epoch
        from train.fit import fit
        from train.watch import Watch

        with Watch(self.recipe, steps_per_epoch(data, self.recipe), Console(stderr=True)) as watch:
            return fit(
                self.recipe, data, held_out, self.checkpoint, watch, self.resume, self.checkpoint_interval_s
            )

    def _card(self, data: LabelledImages, trained: Trained, top1: Top1) -> Card:
        from train.describe import describe

        recipe, description = self.recipe, describe(trained.model)
        return Card(
            name=recipe.name,
            labels=data.class_names,
            input=InputSpec(height=recipe.height, width=recipe.width, resize=recipe.resize),
            recipe=recipe.as_dict(),
            seed=recipe.seed,
            command=self.command,
            data=data_card(data),
            machine=this_machine(),
            seconds=round(trained.seconds, 1),
            parameters=description.parameters,
            macs=description.macs,
            metrics=_metrics(trained.metrics, top1),
            weights_sha256=weights_sha256(trained.model),
            model_sha256=sha256(self.model_path),
        )


def _check_writable(folder: Path) -> None:
    """Hours of training must not end at a folder that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"Cannot write to the folder {folder}: {error.strerror}. Choose another with --out."
        ) from error


def _metrics(last_epoch: dict[str, float], top1: Top1) -> dict[str, float]:
    low, high = top1.ci95
    metrics = {"test_top1": top1.per_cent, "test_n": top1.n, "test_ci95_low": low, "test_ci95_high": high}
    metrics |= {"train_loss": last_epoch["loss"], "train_top1": 100 * last_epoch["accuracy"]}
    if "validation_top1" in last_epoch:
        metrics["validation_top1"] = last_epoch["validation_top1"]
    return {name: round(value, 4) for name, value in metrics.items()}
