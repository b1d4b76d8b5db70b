"""Keras with its backend, started without their chatter."""

from __future__ import annotations

import importlib
import logging
import os
import platform
from types import ModuleType

from edge.errors import MissingPackageError
from edge.native import stderr_held_back

PURPOSE = "Training, and reading a .keras file,"
X86 = ("x86_64", "AMD64")
"""Where oneDNN's kernels are asked for: TensorFlow itself takes them with AVX512-VNNI and newer alone. With AVX2 a step
of `resnet20_cifar10` is 1.75 times as fast with them, of `cifar10_nano` 1.48 (bench/training_kernels.py)."""


def settle_tensorflow() -> None:
    """Set what TensorFlow's C++ part reads when it is loaded, unless the user has; its warnings are not for users."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Errors that end the process alone.
    if platform.machine() in X86:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def import_keras() -> ModuleType:
    """The module `keras` on the backend that `KERAS_BACKEND` names, TensorFlow by default.

    Raises:
        MissingPackageError: Keras or its backend is not installed.
    """
    settle_tensorflow()
    try:
        with stderr_held_back():
            return importlib.import_module("keras")
    except ImportError as error:
        raise MissingPackageError(error.name or "keras", "train", PURPOSE) from error
