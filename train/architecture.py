"""From a recipe's import string to a network."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import keras

from edge.errors import InputError
from train.describe import graph_of


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
        model = _functional(make(height, width, *arguments, **options), (height, width, 3))
        if not _is_graph(model):
            raise InputError(
                f"{import_string} gives a {type(model).__name__}, whose layers cannot be seen from outside. Expected "
                "a functional or Sequential model: keras.Model(inputs, outputs)."
            )
        return _opened(model)
    except ValueError as error:
        raise InputError(
            f"{import_string} cannot be built for pictures of {height}x{width}: {error}"
        ) from error


def _functional(model: keras.Model, picture: tuple[int | None, ...]) -> keras.Model:
    """A Sequential model as the functional one that it is, which can be rebuilt with other choices."""
    if not isinstance(model, keras.Sequential):
        return model
    if not model.built:
        model.build((None, *picture))
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _opened(model: keras.Model) -> keras.Model:
    """The same network with the layers of models inside it in their place: there choices and checks reach them."""
    if not any(map(_is_graph, model.layers)):
        return model

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        # A model's `call`, unlike calling it, puts its layers one by one into the new graph.
        return (layer.call if _is_graph(layer) else layer)(*args, **kwargs)

    flat = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    # There each layer is also part of the graph that it came from.
    alone = keras.models.clone_model(flat)
    alone.set_weights(
        flat.get_weights()
    )  # in the order of this graph, which need not be that of the nested one
    return _opened(alone)


def _is_graph(layer: Any) -> bool:
    return graph_of(layer) is not None
