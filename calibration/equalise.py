"""Cross-layer equalisation: the channels between layers brought to one scale, the function unchanged.

ReLU(s * x) is s * ReLU(x) for s > 0. So a channel's kernel and bias may be divided by s, if what reads the channel
is multiplied by s (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, section 4.1). A small channel then is not lost in the one step of its tensor.

What makes a channel has a scale for each of them and loses nothing by any s. What reads them has one scale for all, so
that s weighs how far a channel reaches, on calibration images, against the weights that read it: reach^a / weight^(1-a)
(Xiao et al. 2022, "SmoothQuant", arXiv 2211.10438, equation 4). Before a depthwise kernel, which has a scale for each
channel again, that is the reach.

Between the two may stand ReLU, leaky or not, pools, padding, cropping, upsampling, and a product with something that
has a scale of its own, as that of squeeze-excite. All layers that make the terms of a sum share one scale, and all that
read the terms or the sum. A bounded activation (ReLU6) does not let a scale through, and neither do swish and joins:
such channels are left as they are. For swish and hard-swish see `calibration.gates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.gates import rescales
from calibration.graph import Graph, Node
from calibration.kinds import POOLS, WEIGHTED, is_relu
from calibration.quantize import by_channel

Factors = Mapping[str, tuple[float, ...]]
"""By the name of the layer that makes the channels, what each of them is divided by."""

SHARE = 0.7
"""The exponent a. Activations lose more than weights: few of their values are near the largest."""

LARGEST_FACTOR = 2.0**16
"""Beyond, a channel is dead, not small."""

_LETS_THROUGH = POOLS | {"LeakyReLU", "ZeroPadding2D", "Cropping2D", "UpSampling2D"}

Kernel = NDArray[np.float64]
Reach = NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """Tensors whose channels have their scales in common: their names, what makes the channels, and what reads them."""

    tensors: tuple[str, ...]
    makers: tuple[Node, ...]
    readers: tuple[Node, ...]


def equalising_factors(graph: Graph, reach: Mapping[str, Reach]) -> dict[str, tuple[float, ...]]:
    """The factors that equalise a folded graph, by maker; empty where there is nothing to equalise.

    Args:
        reach: by measured node, the largest magnitude of each channel, see `calibration.observers.reach`.
    """
    found: dict[str, tuple[float, ...]] = {}
    for channels in channels_of(graph):
        tensors = [reach[name] for name in channels.tensors if name in reach]
        # What only rescales for a gate has a scale for each channel, and the gate suffers no loss from any.
        readers = [reader for reader in channels.readers if not rescales(reader)] or channels.readers
        weights = [_weight(reader, _read_by(graph, reader, reach)) for reader in readers]
        factor = _factor(np.max(tensors, axis=0).astype(np.float64), np.max(weights, axis=0))
        if (factor != 1).any():
            found |= {maker.name: tuple(map(float, factor)) for maker in channels.makers}
    return found


def equalised(graph: Graph, factors: Factors) -> Graph:
    """The same function with each channel of the named layers divided by its factor, and their readers multiplied.

    Exact but for the rounding of float32.
    """
    if not factors:
        return graph
    layers = [node for node in graph.nodes if node.kind in WEIGHTED]
    kernels = {node.name: _kernel(node) for node in layers}
    biases = {node.name: node.weights[1] for node in layers if node.config["use_bias"]}
    for channels in channels_of(graph):
        makers = [maker.name for maker in channels.makers]
        if makers[0] in factors:
            factor = np.array(factors[makers[0]])
            _scale(kernels, channels, factor)
            biases |= {name: (biases[name] / factor).astype(np.float32) for name in makers if name in biases}

    def changed(node: Node) -> Node:
        if node.name not in kernels:
            return node
        kernel = kernels[node.name].reshape(node.weights[0].shape).astype(np.float32)
        return replace(node, weights=(kernel, biases[node.name]) if node.name in biases else (kernel,))

    return replace(graph, nodes=tuple(map(changed, graph.nodes)))


def unequalised(graph: Graph) -> dict[str, str]:
    """The layers whose channels are left as they are, and why: the node that lets no scale through."""
    spaces = _Spaces(graph)
    weighted = (node.name for node in graph.nodes if node.kind in WEIGHTED)
    return {name: why for name in weighted if (why := spaces.obstacle(name))}


def channels_of(graph: Graph) -> tuple[Channels, ...]:
    """All channels of a folded graph that may have another scale."""
    spaces = _Spaces(graph)
    held: dict[str, list[str]] = {}
    made: dict[str, list[Node]] = {}
    read: dict[str, list[Node]] = {}
    for node in graph.nodes:
        held.setdefault(spaces.root(node.name), []).append(node.name)
        if node.kind in WEIGHTED:
            made.setdefault(spaces.root(node.name), []).append(node)
            read.setdefault(spaces.root(node.inputs[0]), []).append(node)
    return tuple(
        Channels(tuple(held[root]), tuple(makers), tuple(read[root]))
        for root, makers in made.items()
        if not spaces.obstacle(root)
    )


class _Spaces:
    """Which tensors have their channels' scales in common; each such space is named by one of them, its root."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._parent = {node.name: node.name for node in graph.nodes}
        self._obstacles: dict[str, str] = {}
        for node in graph.nodes:
            self._place(node)
        for name in graph.outputs.values():
            self._block(name, "it is an output")
        read = {self.root(name) for node in graph.nodes if node.kind in WEIGHTED for name in node.inputs}
        for node in graph.nodes:
            if self.root(node.name) not in read:
                self._block(node.name, "nobody reads it")

    def root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def obstacle(self, name: str) -> str:
        """Why the tensor's channels keep their scales; empty where they need not."""
        return self._obstacles.get(self.root(name), "")

    def _place(self, node: Node) -> None:
        if node.kind in WEIGHTED:
            return  # its output is a space of its own
        if node.kind == "Add" and len({self._graph[name].shape for name in node.inputs}) == 1:
            for name in node.inputs:
                self._join(name, node.name)
        elif node.kind == "Multiply":
            self._place_product(node)
        elif _homogeneous(node):
            self._join(node.inputs[0], node.name)
        else:
            self._block(node.name, f"it is added to {node.kind} '{node.name}'")
            for name in node.inputs:
                self._block(name, f"it is read by {node.kind} '{node.name}'")

    def _place_product(self, node: Node) -> None:
        """It scales with its largest factor that has as many channels; the others must not scale."""
        sizes = {name: self._graph[name].shape for name in node.inputs}
        whole = [name for name in node.inputs if sizes[name][-1] == node.shape[-1]]
        first = max(whole, key=lambda name: math.prod(sizes[name]))
        self._join(first, node.name)
        others = list(node.inputs)
        others.remove(first)
        for name in others:
            self._block(name, f"it is read by {node.kind} '{node.name}'")

    def _join(self, one: str, other: str) -> None:
        kept, gone = self.root(one), self.root(other)
        if kept != gone:
            self._parent[gone] = kept
            if why := self._obstacles.pop(gone, ""):
                self._block(kept, why)

    def _block(self, name: str, why: str) -> None:
        self._obstacles.setdefault(self.root(name), why)


def _homogeneous(node: Node) -> bool:
    """Whether a positive factor of a channel goes through the node unchanged."""
    unbounded = node.config.get("max_value") is None and node.config.get("activation") != "relu6"
    return (is_relu(node) and unbounded) or node.kind in _LETS_THROUGH


def _factor(reach: Kernel, weight: Kernel) -> Kernel:
    """By channel, their geometric mean 1; 1 for a channel that is zero, or that no weight reads."""
    alive = (reach > 0) & (weight > 0)
    if not alive.any():
        return np.ones_like(reach)
    factor = np.where(alive, reach, 1) ** SHARE / np.where(alive, weight, 1) ** (1 - SHARE)
    factor /= np.exp(np.log(factor[alive]).mean())
    bounded: Kernel = np.where(alive, np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR), 1)
    return bounded


def _weight(reader: Node, reach: Kernel) -> Kernel:
    """How much of any one output a unit of each channel makes, relative to what all channels make of it.

    Relative, because each output channel has a scale of its own; so it is the same however the network's channels were
    scaled. Of a depthwise kernel it is one over the reach.
    """
    energy = np.square(_by_input(reader, _kernel(reader))).sum(axis=0)
    made = energy * np.square(reach)[:, None]
    whole = made if reader.kind == "DepthwiseConv2D" else made.sum(axis=0, keepdims=True)
    share = np.divide(energy, whole, out=np.zeros_like(energy), where=whole > 0)
    largest: Kernel = np.sqrt(share).max(axis=1)
    return largest


def _read_by(graph: Graph, reader: Node, reach: Mapping[str, Reach]) -> Kernel:
    """The reach of what a layer reads: that of the measured node from which it has its range."""
    name = reader.inputs[0]
    while name not in reach:
        name = graph[name].inputs[0]
    return reach[name].astype(np.float64)


def _scale(kernels: dict[str, Kernel], channels: Channels, factor: Kernel) -> None:
    """Divide what makes the channels, multiply what reads them."""
    for maker in channels.makers:
        kernel = kernels[maker.name]
        kernels[maker.name] = (by_channel(maker, kernel) / factor).reshape(kernel.shape)
    for reader in channels.readers:
        kernel = kernels[reader.name]
        kernels[reader.name] = (_by_input(reader, kernel) * factor[:, None]).reshape(kernel.shape)


def _by_input(node: Node, kernel: Kernel) -> Kernel:
    """(taps, input channels, outputs of each): both kinds of kernels are (h, w, in, out or multiplier)."""
    return kernel.reshape(-1, *kernel.shape[2:])


def _kernel(node: Node) -> Kernel:
    return node.weights[0].astype(np.float64)
