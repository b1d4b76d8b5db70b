"""One training from recipe to files: what the command `train` does."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from edge.console import open_console
from edge.errors import InputError
from edge.files import alone_with, check_writable, sha256
from edge.machine import read_text
from edge.tables import resolve
from train.backend import import_keras
from train.card import Card, card_if_any, this_machine, weights_sha256, write_card
from train.pictures.command import report_of_training
from train.pictures.report import check_report
from train.recipe import AnyRecipe
from train.weights import save_keras

if TYPE_CHECKING:
    import keras

    from train.data import LabelledImages
    from train.fit import Lesson, Metrics, Trained, Watcher
    from train.watch import Watch


@dataclass(frozen=True)
class Job:
    """What to train and where to write it.

    Attributes:
        recipe: what; data: on what, the source that `--data` names.
        out: the folder for the model, its card and, meanwhile, the checkpoint.
        command: that trains the same again, for the card.
        tensorboard: the folder for its logs, see `train.tensorboard`; None for none.
        report: whether to write a page of what a classifier has learnt and where it errs, see `train.pictures`.
        sanity: whether the quick checks come first, see `train.sanity`; a resumed training has had them.
        resume: whether to go on from the checkpoint; checkpoint_interval_s: how often to leave one.
    """

    recipe: AnyRecipe
    data: str
    out: Path
    command: str
    resume: bool
    checkpoint_interval_s: float
    sanity: bool = True
    tensorboard: Path | None = None
    report: bool = False

    @property
    def report_path(self) -> Path:
        """The page to come, where `report` asks for one."""
        return self.out / f"{self.recipe.name}.report.html"

    @property
    def model_path(self) -> Path:
        """The `.keras` file to come."""
        return self.out / f"{self.recipe.name}.keras"

    @property
    def checkpoint(self) -> Path:
        """Where the training can be resumed from; gone once the model is written."""
        return self.out / f"{self.recipe.name}.checkpoint.keras"

    def run(self) -> Card:
        """Train, write the model, test it once and write its card.

        What can go wrong early does: data, output folder and network are tried before the training.

        Raises:
            InputError: data, recipe, checkpoint or output folder are wrong, another training's checkpoint would be
                overwritten, or another one is under way there.
            CheckFailed: a check before the training failed, or it diverged.
        """
        with alone_with(self.model_path):
            return self._run()

    def _run(self) -> Card:
        check_writable(self.out, "--out")
        if self.checkpoint.is_file() and not self.resume:
            raise InputError(
                f"{self.checkpoint} is what a training left that was stopped, or diverged. Go on with --resume; to "
                "begin anew, remove it or choose another folder with --out."
            )
        if self.tensorboard is not None:
            check_writable(self.tensorboard / self.recipe.name, "--tensorboard")
        if self.report:
            check_report(self.report_path)
        import_keras()
        lesson = self.lesson()
        images = self._judged(lesson)
        trained = self._fit(lesson)
        save_keras(trained.model, self.model_path)
        metrics = _last_epoch(trained.metrics) | lesson.test(trained.model)
        self.written(lesson, trained.model)
        card = self._card(lesson, trained, metrics)
        write_card(card, self.model_path)
        self.checkpoint.unlink(missing_ok=True)
        if images is not None:
            report_of_training(self.report_path, images, trained.model, card)
        return card

    def _judged(self, lesson: Lesson) -> LabelledImages | None:
        """The images of the report, None where none is wanted; raises InputError where there cannot be one."""
        images: LabelledImages | None = getattr(lesson, "judged", None)
        if not self.report:
            return None
        if images is None:
            raise InputError(
                f"--report: for the training of classifiers in float; recipe {self.recipe.name} is for another. "
                "`sightline evaluate BUNDLE --report FILE.html` reports an exported one."
            )
        return images

    def lesson(self) -> Lesson:
        """What the recipe teaches; raises InputError where the data are wrong."""
        lesson: Lesson = resolve(self.recipe.lesson).of(self.recipe, self.data, self.out)
        return lesson

    def written(self, lesson: Lesson, model: keras.Model) -> None:
        """Called when the model is on the disk: what else a kind of job writes, before the card."""

    def _fit(self, lesson: Lesson) -> Trained:
        from train.data import tell_notes
        from train.fit import fit
        from train.watch import Watch

        console = open_console(stderr=True)
        tell_notes(lesson.about.data.source, lesson.about.notes)
        _tell_if_slow(console, lesson.recipe)
        _tell_if_smoothed(console, lesson.recipe)
        if self.sanity and not self.resume:
            from train.sanity import quick

            quick(lesson).require()
        with Watch(lesson.recipe, lesson.steps, console) as watch, self._watched(watch) as watcher:
            return fit(lesson, self.checkpoint, watcher, self.resume, self.checkpoint_interval_s)

    def _watched(self, watch: Watch) -> AbstractContextManager[Watcher]:
        if self.tensorboard is None:
            return nullcontext(watch)
        from train.tensorboard import Logged

        return Logged(self.tensorboard / self.recipe.name, watch)

    def _card(self, lesson: Lesson, trained: Trained, metrics: Metrics) -> Card:
        from train.describe import describe

        recipe, about, description = lesson.recipe, lesson.about, describe(trained.model)
        return Card(
            name=recipe.name,
            task=about.task,
            labels=about.labels,
            input=recipe.input,
            recipe=recipe.as_dict(),
            seed=recipe.seed,
            command=self.command,
            data=about.data,
            terms=recipe.terms or None,
            origin=about.origin,
            machine=this_machine(),
            seconds=round(trained.seconds, 1),
            parameters=description.parameters,
            macs=description.macs,
            metrics=_rounded(metrics),
            history=tuple(_rounded(epoch) for epoch in trained.history),
            weights_sha256=weights_sha256(trained.model),
            model_sha256=sha256(self.model_path),
        )


def _rounded(metrics: Metrics) -> Metrics:
    """What a card can hold: JSON has no NaN, which an AP without a face is."""
    return {name: round(value, 4) for name, value in metrics.items() if math.isfinite(value)}


def _tell_if_slow(console: Console, recipe: AnyRecipe) -> None:
    import keras

    from train.speed import slow_here

    cpuinfo, devices = read_text(Path("/proc/cpuinfo")), keras.distribution.list_devices()
    for name in ("precision", "teacher_precision"):
        precision = getattr(recipe, name, "float32")
        if slow_here(precision, cpuinfo, devices):
            console.print(
                f"{name}={precision}: this processor has no bfloat16 arithmetic that pays (on Intel: AMX) and may be "
                f"far slower so than with {name}=float32.",
                highlight=False,
            )


def _tell_if_smoothed(console: Console, recipe: AnyRecipe) -> None:
    teacher: str = getattr(recipe, "teacher", "")
    card = card_if_any(Path(teacher)) if teacher else None
    smoothing = (card.recipe or {}).get("label_smoothing") if card else None
    if smoothing:
        console.print(
            f"teacher={teacher} learnt with label_smoothing={smoothing:g}: its answers are smoothed labels, and teach "
            "little more than the labels do. One trained with label_smoothing=0 teaches more.",
            highlight=False,
        )


def _last_epoch(metrics: Metrics) -> Metrics:
    """What the last epoch reported, under the card's names."""
    names = {"loss": "train_loss", "accuracy": "train_top1"}
    factors = {"accuracy": 100.0}
    return {names.get(name, name): value * factors.get(name, 1.0) for name, value in metrics.items()}
