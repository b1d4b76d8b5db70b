"""Reading and writing `.keras` files."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError
from edge.files import whole_file
from train.backend import import_keras

if TYPE_CHECKING:
    import keras


HDF5 = b"\x89HDF\r\n\x1a\n"
LONGEST = 200
"""Characters of a message of Keras's: some hold a network's whole configuration."""

OWN_LAYERS = "train.choices.structure"
"""Where a layer of ours is defined that a trained network may hold: Keras finds it once that is imported."""


def load_keras(path: Path) -> keras.Model:
    """The model of a `.keras` file, in Keras's safe mode: a file cannot bring code of its own.

    Raises:
        InputError: the file is missing, is no Keras model, is refused by the safe mode, or holds no graph of layers.
        MissingPackageError: Keras is not installed.
    """
    if (path / "saved_model.pb").is_file():
        raise InputError(
            f"{path} is a SavedModel of TensorFlow, which keeps no layers. Save the Keras model as a .keras file."
        )
    if not path.is_file():
        raise InputError(f"No model {path}: expected a .keras file. `sightline train RECIPE` writes one.")
    _check_form(path)
    keras = import_keras()
    importlib.import_module(OWN_LAYERS)
    try:
        model = keras.models.load_model(path)
    except Exception as error:  # Keras raises whatever its many deserialisers meet.
        raise InputError(f"{path} is not a Keras model that can be loaded: {_why(str(error))}") from error
    if not hasattr(model, "outputs"):
        raise InputError(
            f"{path} holds a {type(model).__name__} without a recorded graph. Save a keras.Model(inputs, outputs), or "
            "a keras.Sequential that begins with keras.Input((height, width, 3))."
        )
    return model


def _check_form(path: Path) -> None:
    """Whether it may be a model at all, before Keras is imported, which takes seconds."""
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(HDF5)) == HDF5
    wrong = ""
    if is_hdf5 and path.suffix == ".keras":
        wrong = "it is an HDF5 file; name it .h5"
    elif not is_hdf5 and not zipfile.is_zipfile(path):
        is_model = path.suffix in (".keras", ".h5")
        wrong = "it is damaged or cut short. Save it anew" if is_model else "expected a .keras file"
    if wrong:
        raise InputError(f"{path} is not a Keras model that can be loaded: {wrong}.")


def _why(told: str) -> str:
    """What is wrong with a file, and what to do, from Keras's message."""
    if unknown := re.search(r"Could not locate (?:class|function) '([^']+)'", told):
        return (
            f"it holds '{unknown[1]}', which is no part of Keras, and no file may bring code of its own. Build it from "
            "Keras's layers."
        )
    first_line = told.strip().partition("\n")[0].rstrip(".")
    shown = first_line if len(first_line) <= LONGEST else f"{first_line[:LONGEST]}…"
    return f"{shown}. Expected a .keras file of Keras 3 without Lambda layers; train or save it anew."


def load_network(path: Path) -> keras.Model:
    """As `load_keras`, without the softmax that a classifier may end in: tasks, losses and golden vectors want
    logits.
    """
    return without_softmax(load_keras(path))


def without_softmax(model: keras.Model) -> keras.Model:
    """The same network, its scores before the softmax that it ends in; as it is where it ends in none.

    Probabilities would go through a softmax again wherever a classifier's answer is read: of ten classes none could
    have more than e / (e + 9) = 0.23.
    """
    if len(model.outputs) != 1 or len(model.inputs) != 1:
        return model
    last = model.outputs[0]._keras_history.operation
    if _hands_on(last):
        shorter = _without_last(model)
        bare = without_softmax(shorter)
        return model if bare is shorter else bare
    if hasattr(last, "layers"):
        other: Any = without_softmax(last)
        if other is last:
            return model
    elif type(last).__name__ == "Softmax" and getattr(last, "axis", -1) in (-1, 1):
        return _without_last(model)  # Keras's layer or operation
    elif getattr(getattr(last, "activation", None), "__name__", "") == "softmax":
        other = type(last).from_config(last.get_config() | {"activation": "linear"})
    else:
        return model
    copy = import_keras().models.clone_model(
        model, clone_function=lambda layer: other if layer is last else layer
    )
    other.set_weights(last.get_weights())
    return copy


def _hands_on(layer: Any) -> bool:
    """Whether it gives what it reads, in another precision perhaps: what stands behind the softmax of some networks."""
    kind, activation = type(layer).__name__, getattr(layer, "activation", None)
    return kind in ("Identity", "Dropout") or (kind == "Activation" and activation.__name__ == "linear")


def _without_last(model: keras.Model) -> keras.Model:
    """The same network up to what its last layer or operation reads."""
    made_by = model.outputs[0]._keras_history
    before = made_by.operation._inbound_nodes[made_by.node_index].input_tensors[0]
    return import_keras().Model(model.inputs[0], before, name=model.name)


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
