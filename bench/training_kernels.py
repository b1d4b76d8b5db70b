"""What oneDNN's kernels are worth in training: steps of one recipe with them and without, in turn.

    python bench/training_kernels.py [RECIPE] [KEY=VALUE]... [--data DIR] [--steps 16] [--rounds 3]

TensorFlow reads the setting when it is loaded, so that each turn is a process of its own; batches are made
beforehand. `nice` and `taskset` say which cores it gets, TF_NUM_INTRAOP_THREADS how many threads.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import click

from edge.machine import this_machine
from edge.tables import resolve
from train.backend import import_keras
from train.recipe import changed, load_recipe

WARM_UP = 8
"""Steps that are not counted: graphs are traced for each size of crop."""


def step_s(name: str, changes: tuple[str, ...], data: str, steps: int) -> float:
    """The median second of a training step, in this process."""
    import_keras()
    recipe = changed(load_recipe(name), changes)
    with tempfile.TemporaryDirectory() as out:
        lesson = resolve(recipe.lesson).of(recipe, data, Path(out))
        batches, model, took = list(islice(lesson.batches(0, 0), WARM_UP + steps)), lesson.compiled(), []
    for inputs, targets in batches:
        begin_s = time.perf_counter()
        model.train_on_batch(inputs, targets)
        took.append(time.perf_counter() - begin_s)
    return statistics.median(took[WARM_UP:])


def in_a_process(onednn: bool, arguments: list[str]) -> float:
    """The same in a new process, with the setting or without."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": str(int(onednn))}
    command = [sys.executable, __file__, *arguments, "--alone"]
    ran = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(ran.stdout.split()[-1])


@click.command()
@click.argument("recipe", default="lenet_digits")
@click.argument("changes", nargs=-1)
@click.option("--data", default="digits", show_default=True)
@click.option("--steps", default=16, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--alone", is_flag=True, hidden=True)
def main(recipe: str, changes: tuple[str, ...], data: str, steps: int, rounds: int, alone: bool) -> None:
    """Measure in turn, and print both and their ratio."""
    if alone:
        click.echo(step_s(recipe, changes, data, steps))
        return
    arguments = [recipe, *changes, "--data", data, "--steps", str(steps)]
    took: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for onednn in (False, True) if number % 2 == 0 else (True, False):
            took[onednn].append(in_a_process(onednn, arguments))
    without, with_it = statistics.median(took[False]), statistics.median(took[True])
    ratios = [a / b for a, b in zip(took[False], took[True], strict=True)]
    click.echo(
        f"{recipe}: {without * 1e3:.0f} ms a step without oneDNN, {with_it * 1e3:.0f} with it: "
        f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f} over {rounds} rounds "
        f"of {steps} steps); {this_machine().cpu}, TensorFlow {version('tensorflow')}"
    )


if __name__ == "__main__":
    main()
