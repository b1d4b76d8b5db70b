"""From a recipe's import string to a network."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import keras

from edge.errors import InputError


def architecture(
    import_string: str, height: int | None, width: int | None, *arguments: Any, weights: str = ""
) -> keras.Model:
    """What `module:function` makes of `(height, width, *arguments)`, with fresh weights; None is any size.

    `weights` names a file of weights to start from, which few architectures take.

    Raises:
        InputError: there is no such architecture, or it does not suit the input's size.
    """
    module, _, function = import_string.partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The recipe's model '{import_string}' cannot be imported ({error}). "
            "Expected module:function, such as train.models.lenet:lenet5."
        ) from error
    options = {"weights": weights} if weights else {}
    if weights and "weights" not in inspect.signature(make).parameters:
        raise InputError(f"weights={weights}: {import_string} starts from fresh weights alone.")
    try:
        model: keras.Model = make(height, width, *arguments, **options)
    except ValueError as error:
        raise InputError(
            f"{import_string} cannot be built for pictures of {height}x{width}: {error}"
        ) from error
    return _functional(model, (height, width, 3))


def _functional(model: keras.Model, picture: tuple[int | None, ...]) -> keras.Model:
    """A Sequential model as the functional one that it is, which can be rebuilt with other choices."""
    if not isinstance(model, keras.Sequential):
        return model
    if not model.built:
        model.build((None, *picture))
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
