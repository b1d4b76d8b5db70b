"""A model as a list of plain nodes: what folding, calibration and both exporters work on.

Keras layers are awkward to rewrite in place. A `Graph` is the same network as immutable values:
read it from a Keras model, rewrite it with ordinary functions, build a Keras model from it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

Weights = tuple[NDArray[np.float32], ...]
KerasTensor = Any


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
    """Nodes in an order in which each comes after its inputs; the last one is the only output."""

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        for node in self.nodes:
            if node.name in known or not known.issuperset(node.inputs):
                raise ValueError(f"node {node.name} is a duplicate or stands before its inputs")
            known.add(node.name)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def output(self) -> Node:
        """The node whose output is the model's."""
        return self.nodes[-1]

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read `name`."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def only_consumer(self, name: str) -> Node | None:
        """The node that reads `name`, where there is exactly one and `name` is not the output."""
        readers = self.consumers(name)
        return readers[0] if len(readers) == 1 and name != self.output.name else None


Call = Callable[[Any, Node, list[KerasTensor]], KerasTensor]


def read(model: Any) -> Graph:
    """The graph of a Keras Functional or Sequential model with one input and one output.

    Raises:
        InputError: several inputs or outputs, a nested model, or a layer that is called twice.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"Model '{model.name}' has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "int8 export takes models with one of each. Export fp32 and fp16 only (--precisions fp32,fp16)."
        )
    nodes = [_node(call) for call in _calls(model)]
    graph = Graph(_unique(nodes))
    output_name = model.outputs[0]._keras_history.operation.name
    return Graph(_ending_with(output_name, graph.nodes))


def build(graph: Graph, call: Call | None = None, batch: int | None = None) -> Any:
    """A Keras model of the graph.

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
    model = keras.Model(tensors[graph.nodes[0].name], tensors[graph.output.name])
    for node in graph.nodes:
        model.get_layer(node.name).set_weights(node.weights)
    return model


def make_layer(node: Node) -> Any:
    """A fresh Keras layer from the node's kind and configuration."""
    import keras

    return getattr(keras.layers, node.kind).from_config(node.config)


def call_layer(layer: Any, inputs: list[KerasTensor]) -> KerasTensor:
    """Call a layer the way its kind expects: merging layers take a list."""
    return layer(inputs if len(inputs) > 1 else inputs[0])


def _calls(model: Any) -> Iterable[Any]:
    """The model's calls in topological order; Keras keeps them by depth, deepest first."""
    import keras

    functional = (
        model if hasattr(model, "_nodes_by_depth") else keras.Model(model.inputs[0], model.outputs[0])
    )
    by_depth = functional._nodes_by_depth
    return (call for depth in sorted(by_depth, reverse=True) for call in by_depth[depth])


def _node(call: Any) -> Node:
    layer = call.operation
    if hasattr(layer, "layers"):
        raise InputError(
            f"Layer '{layer.name}' is a model inside the model. Call its layers on the outer model's tensors, "
            "so that the network is one graph, or export fp32 and fp16 only."
        )
    parents = tuple(tensor._keras_history.operation.name for tensor in call.arguments.keras_tensors)
    weights = tuple(np.asarray(w, np.float32) for w in layer.get_weights())
    shape = tuple(call.output_tensors[0].shape[1:])
    return Node(layer.name, type(layer).__name__, layer.get_config(), weights, parents, shape)


def _unique(nodes: list[Node]) -> tuple[Node, ...]:
    names = [node.name for node in nodes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"Layer '{twice[0]}' is called more than once; one range cannot serve several places. "
            "Give each call a layer of its own, or export fp32 and fp16 only."
        )
    return tuple(nodes)


def _ending_with(name: str, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    output = [node for node in nodes if node.name == name]
    return tuple(node for node in nodes if node.name != name) + tuple(output)
