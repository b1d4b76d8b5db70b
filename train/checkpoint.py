"""Checkpoints: the model with its optimiser, and how far the training had come, in one file."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError
from edge.files import whole_file
from train.weights import load_keras

if TYPE_CHECKING:
    import keras

STATE = "sightline.json"
SEEDS = "seeds.json"
"""The members that we add to the `.keras` archive; Keras does not look at them."""


@dataclass(frozen=True)
class State:
    """How far a training had come.

    Attributes:
        recipe: all its fields.
        data_sha256: of the images trained on.
        step: batches done.
        metrics: means over the batches done of the epoch that was broken off.
        seconds: spent on them.
        first_loss: of the very first batch; None where it was not kept.
        history: of the epochs that are complete, see `train.fit.Trained`.
    """

    recipe: dict[str, Any]
    data_sha256: str
    step: int
    metrics: dict[str, float]
    seconds: float
    first_loss: float | None = None
    history: tuple[dict[str, float], ...] = ()


def save_checkpoint(path: Path, model: keras.Model, state: State) -> None:
    """Write both, whole or not at all, so that weights and step never disagree.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with whole_file(path) as temporary:
            model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(STATE, json.dumps(asdict(state)))
                archive.writestr(SEEDS, json.dumps(_seeds(model)))
    except OSError as error:
        raise InputError(f"Cannot write the checkpoint {path}: {error}.") from error


def load_checkpoint(path: Path, recipe: dict[str, Any], data_sha256: str) -> tuple[keras.Model, State]:
    """The compiled model and its state.

    Raises:
        InputError: there is none, or it belongs to another recipe or other data.
    """
    if not path.is_file():
        raise InputError(f"Nothing to resume: {path} does not exist. Train without --resume.")
    try:
        model = load_keras(path)
    except InputError as error:
        raise InputError(f"The checkpoint {path} is damaged: remove it, and train anew. {error}") from error
    state = _state(path)
    differing = [key for key in recipe if state.recipe.get(key) != recipe[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"{path} belongs to another recipe: {key} was {state.recipe.get(key)!r}, now {recipe[key]!r}. "
            "Resume with the same recipe and KEY=VALUE; to begin anew, remove it or choose another --out."
        )
    if state.data_sha256 != data_sha256:
        raise InputError(
            f"{path} was trained on other images (SHA-256 {state.data_sha256[:12]}…, now "
            f"{data_sha256[:12]}…). Resume with the same --data; to begin anew, remove it or choose another --out."
        )
    _restore_seeds(model, path)
    return model, state


def _seeds(model: keras.Model) -> dict[str, list[int]]:
    """The state of each layer that draws at random, such as dropout; Keras leaves it out of its files."""
    from keras.ops import convert_to_numpy

    return {name: convert_to_numpy(drawn.state).tolist() for name, drawn in _generators(model)}


def _restore_seeds(model: keras.Model, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        seeds = json.loads(archive.read(SEEDS)) if SEEDS in archive.namelist() else {}
    for name, generator in _generators(model):
        if name in seeds:
            generator.state.assign(seeds[name])


def _generators(model: keras.Model) -> list[tuple[str, Any]]:
    """Also those of models inside it, whose layers' names may repeat."""
    found = ((layer.name, getattr(layer, "seed_generator", None)) for layer in model._flatten_layers())
    return [
        (f"{number} {name}", generator)
        for number, (name, generator) in enumerate(found)
        if generator is not None
    ]


def _state(path: Path) -> State:
    try:
        with zipfile.ZipFile(path) as archive:
            return State(**json.loads(archive.read(STATE)))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is a Keras model, but no checkpoint of ours ({error}). Remove it, and train anew."
        ) from error
