"""The float network and a target's int8 network side by side, one layer at a time, on the same images.

Repairs that look at data need, for each layer in its turn, what it is given in float and what it is given in int8,
all layers before it being repaired already. One walk over the graph gives both, and holds only those tensors
that are still to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from calibration.graph import Graph, Node, call_layer, make_layer
from calibration.kinds import WEIGHTED
from calibration.observers import batches
from calibration.plan import Plan
from calibration.quantize import TensorParams
from calibration.rounding import rounded_inputs, rounded_nodes
from calibration.samples import Pictures
from edge.bundle import Format

Values = NDArray[np.float32]

MEMORY_BYTES = 128 * 2**20
MOST_IMAGES = 256
"""What the tensors of both networks that are alive at once may take, and so many images at most; the smaller
decides how many walk."""

CHUNK = 32
"""Images that go through a layer at a time."""


@dataclass(frozen=True)
class Stage:
    """A convolution in its turn.

    Attributes:
        node: prepared, in float; rounded: the same as the plan rounds it.
        exact, given: its input, float32 (n, H, W, C), in the float network and in the int8 network so far; the
            latter rounded as the layer reads it.
    """

    node: Node
    rounded: Node
    exact: Values
    given: Values


Repair = Callable[[Stage], Node]
"""Gives the convolution that the int8 network goes on with."""


def walk(graph: Graph, plan: Plan, images: Pictures, target: Format, repair: Repair) -> None:
    """Take some of the images through both networks.

    Args:
        graph: folded; `plan` says how it is prepared, and rounded where the target does.
        images: evenly spaced ones among them walk, as many as the memory is meant for.
    """
    ready = plan.prepared(graph, target)
    places = _Places(ready, plan, target)
    pixels = np.concatenate(list(batches(images[:: _stride(ready, len(images))])))
    first = ready.nodes[0]
    exact: dict[str, Values] = {first.name: pixels}
    given: dict[str, Values] = {first.name: pixels}
    left = {node.name: len(ready.consumers(node.name)) for node in ready.nodes}
    for node in ready.nodes[1:]:
        inputs = [[network[name] for name in node.inputs] for network in (exact, given)]
        inputs[1] = places.read(node, inputs[1])
        used = node
        if node.kind in WEIGHTED:
            used = repair(Stage(node, plan.with_rounded_kernel(node), inputs[0][0], inputs[1][0]))
        exact[node.name] = run(node, inputs[0])
        given[node.name] = places.gave(node, run(used, inputs[1]))
        for name in set(node.inputs):
            left[name] -= 1
            if not left[name]:
                del exact[name], given[name]


def run(node: Node, inputs: list[Values]) -> Values:
    """One layer by itself, each input float32 (n, ...)."""
    layer = make_layer(node)
    layer.build([x.shape for x in inputs] if len(inputs) > 1 else inputs[0].shape)
    if node.weights:
        layer.set_weights(node.weights)
    images = len(inputs[0])
    found = np.empty((images, *node.shape), np.float32)
    for start in range(0, images, CHUNK):
        part = slice(start, start + CHUNK)
        found[part] = np.asarray(call_layer(layer, [x[part] for x in inputs]))
    return found


@dataclass(frozen=True)
class _Places:
    """Where a target rounds: TFLite what a layer gives, TensorRT what it reads."""

    graph: Graph
    plan: Plan
    target: Format

    def read(self, node: Node, inputs: list[Values]) -> list[Values]:
        if self.target == "tflite":
            return inputs
        rounds = rounded_inputs(self.graph, node, self.plan.float_layers)
        return [
            self._grid(self.graph[name]).rounded(values) if index in rounds else values
            for index, (name, values) in enumerate(zip(node.inputs, inputs, strict=True))
        ]

    def gave(self, node: Node, values: Values) -> Values:
        return self._grid(node).rounded(values) if node.name in self._rounded else values

    @cached_property
    def _rounded(self) -> frozenset[str]:
        if self.target == "onnx":
            return frozenset()
        return frozenset(node.name for node in rounded_nodes(self.graph, self.plan.float_layers))

    def _grid(self, node: Node) -> TensorParams:
        return self.plan.params(self.graph, node, self.target)


def _stride(graph: Graph, images: int) -> int:
    """Every how many-th image walks."""
    most = min(MOST_IMAGES, max(1, MEMORY_BYTES // (2 * 4 * _largest_alive(graph))))
    return -(-images // most)


def _largest_alive(graph: Graph) -> int:
    """Values of one image that are held at once, at the fullest moment of a walk."""
    sizes = {node.name: int(np.prod(node.shape)) for node in graph.nodes}
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    alive = [
        sum(
            sizes[earlier.name]
            for earlier in graph.nodes[: index + 1]
            if earlier.name == node.name or last.get(earlier.name, -1) >= index
        )
        for index, node in enumerate(graph.nodes)
    ]
    return max(alive)
