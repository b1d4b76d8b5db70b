"""A network rebuilt with other choices: activations, batch normalisation, dropout, L2, a layer for the inputs.

Works on any functional model, so a recipe may say `activation=elu` whatever its architecture. The weights
are fresh; the layers keep their names, and a new one is named after that which it stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from edge.errors import InputError
from train.choices import OWN

REPLACED = frozenset({"relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh"})
"""The activations that a choice replaces. A sigmoid stays: it is a gate, or the output of one class."""

PIECES = 2
"""Of a maxout unit: as many linear ones, so its layer has twice the weights."""

_POOLS = (layers.MaxPooling2D, layers.AveragePooling2D)
_PER_CHANNEL = (*_POOLS, layers.BatchNormalization, layers.Dropout)
_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU)


@keras.saving.register_keras_serializable("sightline")
class Maxout(layers.Layer):
    """The larger of two linear units (Goodfellow et al. 2013, arXiv 1302.4389): (..., 2 C) to (..., C)."""

    def call(self, inputs: Any) -> Any:
        """Unit i is the larger of channels i and C + i."""
        half = inputs.shape[-1] // PIECES
        return ops.maximum(inputs[..., :half], inputs[..., half:])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Half the channels."""
        return (*input_shape[:-1], input_shape[-1] // PIECES)


_MAKERS: dict[str, Callable[[str], layers.Layer]] = {
    "relu": lambda name: layers.ReLU(name=name),
    # Keras's default slope is 0.3; Maas et al. 2013 had 0.01, the lecture too.
    "leaky_relu": lambda name: layers.LeakyReLU(negative_slope=0.01, name=name),
    "elu": lambda name: layers.ELU(name=name),
    "maxout": lambda name: Maxout(name=name),
}


def activation_layer(activation: str, name: str) -> layers.Layer:
    """A layer of that name; Keras has all but maxout."""
    make = _MAKERS.get(activation)
    return make(name) if make else layers.Activation(activation, name=name)


@dataclass(frozen=True)
class Structure:
    """What is to be changed in a network.

    Attributes:
        activation: of all hidden units, or `own`.
        norm: `batch` puts batch normalisation behind each hidden convolution and dense layer that has
            none, `none` takes it out, `own` leaves it.
        dropout: share of the units dropped before each dense layer while training, the others scaled
            up (inverted dropout); 0 leaves the architecture's.
        l2: half of that times the squared kernels is added to the loss, so that a kernel's gradient
            grows by `l2` times the kernel.
    """

    activation: str = OWN
    norm: str = OWN
    dropout: float = 0.0
    l2: float = 0.0


def rebuilt(model: keras.Model, structure: Structure, first: layers.Layer | None = None) -> keras.Model:
    """The same network with the choices applied and fresh weights; `first` is called on its inputs.

    Raises:
        InputError: a choice does not fit the network.
    """
    if structure == Structure() and first is None:
        return model
    _check(model, structure)
    rebuild = _Rebuild(model, structure, first)
    return keras.models.clone_model(model, clone_function=rebuild.layer, call_function=rebuild.call)


def hidden_activation(layer: Any) -> str | None:
    """The replaceable activation that a layer is or ends in; None for another or none."""
    if isinstance(layer, layers.LeakyReLU):
        return "leaky_relu"
    if isinstance(layer, (layers.ReLU, layers.ELU)):
        return type(layer).__name__.lower()
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name if name in REPLACED else None


def heads(model: keras.Model) -> set[str]:
    """The names of the last layers that have a kernel, one behind each output."""
    return {name for tensor in model.outputs if (name := _kernel_before(tensor._keras_history.operation))}


def _kernel_before(layer: Any) -> str | None:
    while getattr(layer, "kernel", None) is None:
        sources = _sources(layer)
        if not sources:
            return None
        layer = sources[0]
    return str(layer.name)


def _sources(layer: Any) -> list[Any]:
    return [t._keras_history.operation for node in layer._inbound_nodes for t in node.input_tensors]


def _readers(layer: Any) -> list[Any]:
    return [node.operation for node in layer._outbound_nodes]


def _check(model: keras.Model, structure: Structure) -> None:
    if structure.activation != OWN and not any(hidden_activation(layer) for layer in model.layers):
        raise InputError(f"activation={structure.activation}: {model.name} has no activation to replace.")
    if structure.dropout and not any(isinstance(layer, layers.Dense) for layer in model.layers):
        raise InputError(f"dropout={structure.dropout}: {model.name} has no dense layer to put it before.")


class _Rebuild:
    """`clone_model`'s two functions: how each layer is made anew, and how it is called."""

    def __init__(self, model: keras.Model, structure: Structure, first: layers.Layer | None) -> None:
        self._structure, self._first, self._heads = structure, first, heads(model)
        self._old = {layer.name: layer for layer in model.operations}
        self._wide = set(_widened(model)) if structure.activation == "maxout" else set()
        self._pixels: Any = None

    def layer(self, old: Any) -> Any:
        """The new layer; one that is to be replaced or taken out becomes another kind."""
        replaced = self._structure.activation != OWN and hidden_activation(old)
        if replaced and isinstance(old, _ACTIVATIONS):
            return activation_layer(self._structure.activation, old.name)
        if isinstance(old, layers.BatchNormalization) and self._structure.norm == "none":
            return layers.Identity(name=old.name)
        config = old.get_config()
        if getattr(old, "kernel", None) is not None:
            config |= self._kernel_config(old)
        if isinstance(old, layers.Dropout) and self._structure.dropout:
            config["rate"] = self._structure.dropout
        return type(old).from_config(config)

    def _kernel_config(self, old: Any) -> dict[str, Any]:
        config: dict[str, Any] = {}
        if self._stands_apart(old):
            config["activation"] = None
        if old.name in self._wide:
            config |= {
                size: PIECES * getattr(old, size) for size in ("filters", "units") if hasattr(old, size)
            }
        if self._structure.norm == "none":
            config["use_bias"] = True
        elif self._gets_norm(old):
            config["use_bias"] = False
        if self._structure.l2 and not isinstance(old, layers.DepthwiseConv2D):
            config["kernel_regularizer"] = keras.regularizers.L2(self._structure.l2 / 2)
        return config

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer's output, with what is new before and after it."""
        if self._first is not None:
            args = keras.tree.map_structure(self._from_first, args)
        if isinstance(layer, layers.Identity) and isinstance(
            self._old[layer.name], layers.BatchNormalization
        ):
            return args[0]
        old = self._old[layer.name]
        if self._structure.dropout and isinstance(layer, layers.Dense) and not _follows_dropout(old):
            dropped = layers.Dropout(self._structure.dropout, name=f"{layer.name}_dropout")(args[0])
            args = (dropped, *args[1:])
        x = layer(*args, **kwargs)
        if self._gets_norm(old):
            x = layers.BatchNormalization(name=f"{layer.name}_norm")(x)
        if self._stands_apart(old):
            name = self._structure.activation
            x = activation_layer(
                name if name != OWN else str(hidden_activation(old)), f"{layer.name}_activation"
            )(x)
        return x

    def _from_first(self, value: Any) -> Any:
        """The network's input as `first` gives it; any other value as it is."""
        history = getattr(value, "_keras_history", None)
        if history is None or not isinstance(history.operation, layers.InputLayer):
            return value
        if self._pixels is None:
            assert self._first is not None
            self._pixels = self._first(value)
        return self._pixels

    def _stands_apart(self, old: Any) -> bool:
        """Whether the activation inside a convolution or dense layer becomes a layer of its own."""
        inside = getattr(old, "kernel", None) is not None and hidden_activation(old) is not None
        return inside and (self._structure.activation != OWN or self._gets_norm(old))

    def _gets_norm(self, old: Any) -> bool:
        kernel = getattr(old, "kernel", None) is not None and old.name not in self._heads
        return self._structure.norm == "batch" and kernel and not _has_norm(old)


def _has_norm(layer: Any) -> bool:
    """Whether batch normalisation follows, at once or behind a pool."""
    return any(
        isinstance(reader, layers.BatchNormalization) or (isinstance(reader, _POOLS) and _has_norm(reader))
        for reader in _readers(layer)
    )


def _follows_dropout(layer: Any) -> bool:
    return any(isinstance(source, layers.Dropout) for source in _sources(layer))


def _widened(model: keras.Model) -> Iterator[str]:
    """The layers whose units maxout halves again: those that feed an activation."""
    for layer in model.layers:
        if hidden_activation(layer) is None:
            continue
        source = layer
        while isinstance(source, (*_ACTIVATIONS, *_PER_CHANNEL)) and _sources(source):
            source = _sources(source)[0]
        if not isinstance(source, (layers.Conv2D, layers.Dense)):
            raise InputError(
                f"activation=maxout does not fit {model.name}: '{layer.name}' follows '{source.name}' "
                f"({type(source).__name__}), whose channels cannot be doubled. Expected a convolution or a dense layer."
            )
        yield source.name
