"""Reading and writing `.keras` files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import InputError
from edge.files import whole_file
from train.backend import import_keras

if TYPE_CHECKING:
    import keras


OWN_LAYERS = "train.choices.structure"
"""Where a layer of ours is defined that a trained network may hold: Keras finds it once that is imported."""


def load_keras(path: Path) -> keras.Model:
    """The model of a `.keras` file, in Keras's safe mode: a file cannot bring code of its own.

    Raises:
        InputError: the file is missing, is no Keras model, or is refused by the safe mode.
        MissingPackageError: Keras is not installed.
    """
    if not path.is_file():
        raise InputError(f"No model {path}: expected a .keras file. `sightline train RECIPE` writes one.")
    keras = import_keras()
    importlib.import_module(OWN_LAYERS)
    try:
        return keras.models.load_model(path)
    except Exception as error:  # Keras raises whatever its many deserialisers meet.
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{path} is not a Keras model that can be loaded ({first_line}). "
            "Expected a .keras file of Keras 3 without Lambda layers; train or save it anew."
        ) from error


def in_float32(model: keras.Model) -> keras.Model:
    """The same network and weights, computing in float32 whatever precision it was trained in.

    A model that does so already is returned as it is.
    """
    if all(layer.compute_dtype in ("float32", None) for layer in model._flatten_layers()):
        return model
    keras = import_keras()

    def plain(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # a bare operation computes in what it is given
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=plain, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def save_keras(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with whole_file(path) as temporary:
            model.save(temporary)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error}. Choose another folder with --out.") from error
