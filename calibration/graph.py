"""A model as a list of plain nodes: what folding, calibration and both exporters work on.

Keras layers are awkward to rewrite in place. A `Graph` is the same network as immutable values:
read it from a Keras model, rewrite it with ordinary functions, build a Keras model from it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

Weights = tuple[NDArray[np.float32], ...]
KerasTensor = Any
LOGITS = "logits"
"""The head's name of a model with one output; several heads have the names of their layers."""
FLOAT_ALONE = "Export fp32 and fp16 only (--precisions fp32,fp16)."
"""What is left to who has a model that int8 does not know."""


@dataclass(frozen=True, eq=False)
class Node:
    """One layer.

    Attributes:
        name: of the Keras layer; unique in its graph.
        kind: the layer's class name ("Conv2D").
        config: the layer's configuration, as Keras gives it.
        weights: float32, in the layer's own order (kernel, bias for a convolution).
        inputs: names of the nodes it reads.
        shape: of its output without the batch, (H, W, C) or (C,).
    """

    name: str
    kind: str
    config: dict[str, Any]
    weights: Weights
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network with one input and one head or several.

    Attributes:
        nodes: in an order in which each comes after its inputs; the first one is the input.
        outputs: by head, the name of the node that gives it, in the model's order.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]

    def __post_init__(self) -> None:
        known: set[str] = set()
        for node in self.nodes:
            if node.name in known or not known.issuperset(node.inputs):
                raise ValueError(f"node {node.name} is a duplicate or stands before its inputs")
            known.add(node.name)
        if not self.outputs or not known.issuperset(self.outputs.values()):
            raise ValueError(f"the outputs {list(self.outputs.values())} are not all nodes")

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read `name`."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def only_consumer(self, name: str) -> Node | None:
        """The node that reads `name`, where there is exactly one and `name` is no output."""
        readers = self.consumers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs.values() else None


Call = Callable[[Any, Node, list[KerasTensor]], KerasTensor]


def read(model: Any) -> Graph:
    """The graph of a Keras Functional or Sequential model with one input.

    Models inside it are taken apart, and a layer that is called twice becomes two nodes with the same weights:
    each place has a range of its own.

    Raises:
        InputError: several inputs, sizes that are not fixed, or a model without a recorded graph.
    """
    from calibration.reading import nodes_of

    if len(model.inputs) != 1:
        names = ", ".join(tensor._keras_history.operation.name for tensor in model.inputs)
        raise InputError(
            f"Model '{model.name}' has {len(model.inputs)} inputs ({names}); expected one, the pixels. "
            f"Give the others as constants. {FLOAT_ALONE}"
        )
    nodes, names_of = nodes_of(model)
    return Graph(nodes, {head: names_of[id(tensor)] for head, tensor in heads(model).items()})


def heads(model: Any) -> dict[str, KerasTensor]:
    """A model's outputs by name, in its own order: of a dictionary by its keys, else by their layers.

    Raises:
        InputError: two of several outputs have the same name.
    """
    if len(model.outputs) == 1:
        return {LOGITS: model.outputs[0]}
    if isinstance(model.output, dict):
        return dict(model.output)
    names = [tensor._keras_history.operation.name for tensor in model.outputs]
    if len(set(names)) < len(names):
        raise InputError(
            f"Model '{model.name}' has outputs {', '.join(names)}; each needs a name of its own."
        )
    return dict(zip(names, model.outputs, strict=True))


def infer(model: Any, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a Keras model: float32 (N, H, W, 3) in [-1, 127/128] to its heads, float32 (N, ...), by name."""
    outputs = model(pixels, training=False)
    if not isinstance(outputs, dict) or len(model.outputs) == 1:
        import keras

        outputs = dict(zip(heads(model), keras.tree.flatten(outputs), strict=True))
    return {name: np.asarray(values, np.float32) for name, values in outputs.items()}


def build(graph: Graph, call: Call | None = None, batch: int | None = None) -> Any:
    """A Keras model of the graph; several heads come as a dictionary.

    Args:
        graph: what to build.
        call: makes a node's output from (layer, node, inputs); by default it calls the layer.
            The int8 simulation puts its rounding there.
        batch: a fixed batch size; any size otherwise.
    """
    import keras

    tensors: dict[str, KerasTensor] = {}
    for node in graph.nodes:
        if node.kind == "InputLayer":
            tensors[node.name] = keras.Input(node.shape, batch_size=batch, name=node.name)
            continue
        layer = make_layer(node)
        inputs = [tensors[name] for name in node.inputs]
        tensors[node.name] = call(layer, node, inputs) if call else call_layer(layer, inputs)
    outputs = {head: tensors[name] for head, name in graph.outputs.items()}
    model = keras.Model(
        tensors[graph.nodes[0].name], outputs if len(outputs) > 1 else next(iter(outputs.values()))
    )
    for node in graph.nodes:
        model.get_layer(node.name).set_weights(node.weights)
    return model


def make_layer(node: Node) -> Any:
    """A fresh Keras layer from the node's kind and configuration."""
    import keras

    if node.kind == "UpSampling2D" and node.config["interpolation"] == "nearest":
        return _nearest_layer()(node.config["size"], name=node.name)
    if node.kind == "HardSwish":
        return _hard_swish_layer()(name=node.name)
    return getattr(keras.layers, node.kind).from_config(node.config)


def call_layer(layer: Any, inputs: list[KerasTensor]) -> KerasTensor:
    """Call a layer the way its kind expects: merging layers take a list."""
    return layer(inputs if len(inputs) > 1 else inputs[0])


@cache
def _nearest_layer() -> Any:
    """The class that stands for nearest UpSampling2D. Made on first use, since defining it needs Keras."""
    import keras
    import tensorflow as tf

    class Nearest(keras.layers.Layer):  # type: ignore[misc]
        """The same copy of pixels as one operation: Keras's own is ten reshapes and tiles in the files."""

        def __init__(self, size: tuple[int, int], **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.size = size

        def call(self, inputs: Any) -> Any:
            _, height, width, _ = inputs.shape
            size = (height * self.size[0], width * self.size[1])
            # With no half-pixel centres: pixel i is read from i // size, which every runtime computes alike.
            return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=size)

    return Nearest


@cache
def _hard_swish_layer() -> Any:
    """The class that stands for hard-swish. Made on first use, since defining it needs Keras."""
    import keras
    import tensorflow as tf

    class HardSwish(keras.layers.Layer):  # type: ignore[misc]
        """x * relu6(x + 3) / 6, in the one order of operations that TFLite's converter makes HARD_SWISH of."""

        def call(self, inputs: Any) -> Any:
            return inputs * tf.nn.relu6(inputs + 3.0) * (1 / 6)

    return HardSwish
