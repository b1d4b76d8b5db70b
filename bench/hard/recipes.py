"""How the hard networks are trained: Adam without weight decay, minutes each on two cores.

`trained` keeps the `.keras` file and its card in a cache folder and trains only what is missing there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from train.card import read_card
from train.job import Job
from train.recipe import Recipe


def _recipe(name: str, network: str) -> Recipe:
    return Recipe(
        name=name,
        model=f"bench.hard.networks:{network}",
        data="cifar10",
        epochs=5,
        learning_rate=4e-3,
        optimiser="adam",
        warmup_epochs=0.25,
        flip=True,
        seed=0,
    )


HARD = {
    "mobilenet-v3": _recipe("mobilenet-v3", "mobilenet_v3"),
    "efficientnet": _recipe("efficientnet", "efficientnet"),
    "depthwise": _recipe("depthwise", "depthwise"),
    "depthwise-swish": _recipe("depthwise-swish", "depthwise_swish"),
}


def trained(name: str, data: str, cache: Path) -> Path:
    """The `.keras` file of a hard network, trained now where the cache has none of this very recipe."""
    recipe = HARD[name]
    path = cache / f"{name}.keras"
    if path.exists() and read_card(path).recipe == recipe.as_dict():
        return path
    command = f"python bench/quantization.py --data DIR --models {name}"
    job = Job(recipe, data, cache, command, resume=False, checkpoint_interval_s=120, sanity=False)
    replace(job, resume=job.checkpoint.is_file()).run()
    return path
