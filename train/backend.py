"""Keras with its backend, started without their chatter."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from edge.errors import MissingPackageError
from edge.native import stderr_held_back

PURPOSE = "Training, and reading a .keras file,"


def import_keras() -> ModuleType:
    """The module `keras` on the backend that `KERAS_BACKEND` names, TensorFlow by default.

    Raises:
        MissingPackageError: Keras or its backend is not installed.
    """
    # Read by TensorFlow's C++ part when it is loaded: 3 keeps errors that end the process alone.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with stderr_held_back():
            return importlib.import_module("keras")
    except ImportError as error:
        raise MissingPackageError(error.name or "keras", "train", PURPOSE) from error
