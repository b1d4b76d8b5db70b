"""Each cell of the transfer table, with each strategy: is the decision the best one?

    sightline train lenet_cifar10 name=even data=folder norm=batch epochs=6 learning_rate=0.05 \\
        --data build/transfer/data/even --out build/transfer
    python bench/transfer.py --cifar10 DIR [--faces DIR] [--source build/transfer/even.keras] [--cell NAME]...

Makes the folders of `bench/transfer_data.py`, where they are absent, so that the first line can be run; with the source
network there it trains every strategy on every cell, and keeps what is done in OUT. Each run is what

    sightline train lenet_cifar10 data=folder seed=SEED [flip=false] --from SOURCE --strategy STRATEGY --data FOLDER

does. Seconds are those of the process's own CPU time, the frozen part's run over the images included, so that a
busy machine does not count. Where CIFAR-10 is absent it says so and ends with 0.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from transfer_data import write_all

from train.data import LabelledImages, few, load
from train.evaluate import Top1
from train.recipe import Recipe, load_recipe

OUT = Path("build/transfer")
SPEED_IMAGES, SPEED_ROUNDS = 1000, 5


@dataclass(frozen=True)
class Cell:
    """Little or much of a data set: its folders, one a seed; `mirrored` where a mirror image is of the same class."""

    folders: tuple[str, ...]
    mirrored: bool = True


CELLS = {
    "odd-little": Cell(tuple(f"odd-20-{seed}" for seed in range(3))),
    "odd-much": Cell(("odd-1000-0",)),
    "digits-little": Cell(tuple(f"digits-20-{seed}" for seed in range(3)), mirrored=False),
    "digits-all": Cell(("digits",), mirrored=False),
    "turned-much": Cell(("turned",), mirrored=False),
    "faces-much": Cell(("faces",)),
}


class Silent:
    """A watcher that says nothing."""

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        """Nothing."""


def rows(
    cell: Cell, folder: Path, source_path: Path, recipe: Recipe, done: set[Any]
) -> Iterator[dict[str, Any]]:
    """What each strategy reaches that is not `done`, and which one would have been chosen."""
    from train.transfer.source import evidence, open_source
    from train.transfer.strategy import STRATEGIES, decide

    source = open_source(source_path, recipe)
    size = (recipe.height, recipe.width)
    test = load(str((folder / cell.folders[0] / "test").resolve().parent), "test", *size)
    for seed, part in enumerate(cell.folders):
        data = load(str(folder / part), "train", *size)
        chosen = decide(evidence(source, data))
        for strategy in STRATEGIES:
            if (part, strategy) in done:
                continue
            top1, seconds = taught(
                source, data, test, strategy, replace(recipe, seed=seed, flip=cell.mirrored)
            )
            about = {"folder": part, "seed": seed, "strategy": strategy, "chosen": chosen.strategy}
            result = {"right": top1.right, "n": top1.n, "cpu_s": round(seconds, 1)}
            yield about | result | {"reason": chosen.reason}


def taught(
    source: Any, data: LabelledImages, test: LabelledImages, strategy: str, recipe: Recipe
) -> tuple[Top1, float]:
    """Top-1 on the test images, and the seconds of CPU time that the training took."""
    from train.evaluate import keras_top1
    from train.fit import fit
    from train.transfer.lesson import TransferLesson
    from train.transfer.recipe import transfer_recipe
    from train.transfer.source import parts

    begun = time.process_time()
    course = transfer_recipe(recipe, set(), len(data), strategy)
    lesson = TransferLesson(course, parts(source, strategy, len(data.class_names)), data, None)
    with TemporaryDirectory() as folder:
        trained = fit(lesson, Path(folder) / "checkpoint.keras", Silent())
    seconds = time.process_time() - begun
    return keras_top1(trained.model, test), seconds


def speed(source_path: Path, folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Seconds of an epoch of `linear` with the features kept, and with the frozen part run anew, in turn."""
    from train.transfer.lesson import TransferLesson
    from train.transfer.recipe import transfer_recipe
    from train.transfer.source import open_source, parts

    source, data = open_source(source_path, recipe), few(load(str(folder), "train"), SPEED_IMAGES)
    course, cut = transfer_recipe(recipe, set(), len(data), "linear"), parts(source, "linear", 5)
    lessons = {name: TransferLesson(course, cut, data, None) for name in ("kept", "anew")}
    vars(lessons["anew"])["_kept"] = None  # As if there were no memory for it.
    models = {name: lesson.compiled() for name, lesson in lessons.items()}
    taken: dict[str, list[float]] = {name: [] for name in lessons}
    for epoch in range(SPEED_ROUNDS + 1):  # The first one compiles, and fills what is kept.
        for name, lesson in lessons.items():
            begun = time.perf_counter()
            for inputs, targets in lesson.batches(epoch, 0):
                models[name].train_on_batch(inputs, targets)
            taken[name].append(time.perf_counter() - begun)
    medians = {name: float(np.median(seconds[1:])) for name, seconds in taken.items()}
    ratios = [anew / kept for kept, anew in zip(taken["kept"][1:], taken["anew"][1:], strict=True)]
    found = {f"{name}_s": round(seconds, 4) for name, seconds in medians.items()}
    spread = {"least": round(min(ratios), 1), "most": round(max(ratios), 1)}
    return (
        found
        | {"first_kept_s": round(taken["kept"][0], 2), "ratio": round(float(np.median(ratios)), 1)}
        | spread
    )


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: a row a cell and strategy, the chosen one starred."""
    lines = [
        "| data | strategy | top-1, % | interval | CPU s |",
        "| --- | --- | --: | --- | --: |",
    ]
    for cell in CELLS.values():
        of_cell = [row for row in found if row["folder"] in cell.folders]
        for strategy in dict.fromkeys(row["strategy"] for row in of_cell):
            runs = [row for row in of_cell if row["strategy"] == strategy]
            chosen = sum(row["chosen"] == strategy for row in runs)
            star = f" ({chosen} of {len(runs)} decisions)" if chosen else ""
            values = [100 * row["right"] / row["n"] for row in runs]
            low, high = (
                Top1(runs[0]["right"], runs[0]["n"]).ci95 if len(runs) == 1 else (min(values), max(values))
            )
            kind = "95 %" if len(runs) == 1 else f"least to most of {len(runs)}"
            folders = runs[0]["folder"] if len(runs) == 1 else runs[0]["folder"].rsplit("-", 1)[0] + "-SEED"
            seconds = np.mean([row["cpu_s"] for row in runs])
            lines.append(
                f"| {folders} | {strategy}{star} | {np.mean(values):.2f} "
                f"| {low:.2f} to {high:.2f} ({kind}) | {seconds:.1f} |"
            )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--cifar10", type=click.Path(path_type=Path))
@click.option("--faces", type=click.Path(path_type=Path))
@click.option("--source", type=click.Path(path_type=Path), default=OUT / "even.keras")
@click.option("--recipe", "recipe_name", default="lenet_cifar10")
@click.option("--cell", "chosen", multiple=True, type=click.Choice(list(CELLS)))
@click.option("--speed", "timed", is_flag=True, help="Only time an epoch with features kept and anew.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(
    cifar10: Path | None,
    faces: Path | None,
    source: Path,
    recipe_name: str,
    chosen: tuple[str, ...],
    timed: bool,
    out: Path,
) -> None:
    if cifar10 is None:
        click.echo("bench/transfer.py needs --cifar10 with CIFAR-10: skipped.")
        return
    folder = out / "data"
    parts = [part for cell in CELLS.values() for part in cell.folders if "-" in part]
    write_all(folder, str(cifar10), faces, parts)
    if not source.is_file():
        click.echo(f"The pictures are in {folder}; there is no {source} to start from yet, see --help.")
        return
    recipe = replace(load_recipe(recipe_name), data="folder", hold_out=0)  # type: ignore[type-var]
    if timed:
        click.echo(json.dumps(speed(source, folder / "odd-1000-0", recipe)))
        return
    for name in chosen or CELLS:
        cell, path = CELLS[name], out / f"{source.stem}-{name}.jsonl"
        if not all((folder / part).is_dir() for part in cell.folders):
            click.echo(f"{name}: without --faces there is no {cell.folders[0]}: skipped.")
            continue
        done = {(row["folder"], row["strategy"]) for row in _read(path)}
        for row in rows(cell, folder, source, recipe, done):
            with path.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
    click.echo(table([row for path in out.glob(f"{source.stem}-*.jsonl") for row in _read(path)]))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


if __name__ == "__main__":
    main()
