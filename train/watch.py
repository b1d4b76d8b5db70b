"""How a training shows itself: a bar on a terminal, elsewhere one line an epoch."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from train.recipe import AnyRecipe


class Watch:
    """A `train.fit.Watcher` that prints; a context manager."""

    def __init__(self, recipe: AnyRecipe, steps_per_epoch: int, console: Console) -> None:
        self._recipe, self._steps_per_epoch, self._console = recipe, steps_per_epoch, console
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Watch:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        total = self._recipe.epochs * self._steps_per_epoch
        if self._task is None:  # Not before: after a resume the time left must not count the old steps.
            self._task = self._bar.add_task("", total=total, completed=step, epoch="", note="")
        epoch = f"{(step - 1) // self._steps_per_epoch + 1}/{self._recipe.epochs}"
        self._bar.update(self._task, completed=step, epoch=epoch, note=_note(metrics))

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        if not self._console.is_terminal:
            text = f"epoch {epoch}/{self._recipe.epochs}  {_note(metrics)}"
            self._console.print(text, highlight=False, soft_wrap=True)


def _note(metrics: dict[str, float]) -> str:
    known = (name for name in _NOTES if name in metrics)
    return "  ".join(_NOTES[name](metrics[name]) for name in known)


_NOTES: dict[str, Callable[[float], str]] = {
    "loss": "loss {:.3f}".format,
    "accuracy": lambda share: f"accuracy {100 * share:.1f} %",
    "validation_top1": "validation {:.1f} %".format,
    "validation_ap50": "validation AP50 {:.3f}".format,
}
