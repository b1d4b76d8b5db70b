"""Cross-layer equalisation: the channels between two layers brought to one scale, the function unchanged.

ReLU(s * x) is s * ReLU(x) for s > 0. So a channel's kernel and bias may be divided by s, if what reads the channel
is multiplied by s. With r1 and r2 the largest weights that make and read channel i, s = sqrt(r1 / r2) gives
both the same range (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv 1906.04721, section 4.1). A small channel then is not lost in the one step of its tensor.

Between the two may stand ReLU, leaky or not, pools, padding, cropping, upsampling, and a product with something that
has a scale of its own, as that of squeeze-excite. A bounded activation (ReLU6) does not let a scale through, and
neither do swish, sums and joins: such pairs are left as they are. For swish and hard-swish see `calibration.gates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.fold import POOLS, WEIGHTED, is_relu
from calibration.gates import rescales
from calibration.graph import Graph, Node
from calibration.quantize import by_channel

Factors = Mapping[str, tuple[float, ...]]
"""By the name of the layer that makes the channels, what each of them is divided by."""

SWEEPS = 100
CLOSE = 1.01
"""Sweeps over all pairs end when no factor is further from 1."""

LARGEST = 2.0**16
"""Of a factor in all: beyond, a channel is dead, not small."""

_LETS_THROUGH = POOLS | {"LeakyReLU", "ZeroPadding2D", "Cropping2D", "UpSampling2D"}

Channels = NDArray[np.float64]


def equalising_factors(graph: Graph) -> dict[str, tuple[float, ...]]:
    """The factors that equalise a folded graph; empty where no two layers form a pair."""
    weights = {node.name: np.abs(_kernel(node)) for node in graph.nodes if node.kind in WEIGHTED}
    pairs = list(_pairs(graph))
    total = {maker.name: np.ones(_channels(maker)) for maker, _ in pairs}
    for _ in range(SWEEPS):
        largest = 1.0
        for maker, readers in pairs:
            factor = _factor(weights, maker, readers, total[maker.name])
            total[maker.name] *= factor
            _divide(weights, maker, factor)
            for reader in readers:
                _multiply(weights, reader, factor)
            largest = max(largest, float(np.maximum(factor, 1 / factor).max()))
        if largest < CLOSE:
            break
    return {name: tuple(map(float, factor)) for name, factor in total.items() if (factor != 1).any()}


def equalised(graph: Graph, factors: Factors) -> Graph:
    """The same function with each channel of the named layers divided by its factor, and their readers multiplied.

    Exact but for the rounding of float32.
    """
    kernels = {node.name: _kernel(node) for node in graph.nodes if node.kind in WEIGHTED}
    biases: dict[str, NDArray[np.float32]] = {}
    for maker, readers in _pairs(graph):
        if maker.name not in factors:
            continue
        factor = np.array(factors[maker.name])
        _divide(kernels, maker, factor)
        for reader in readers:
            _multiply(kernels, reader, factor)
        if maker.config["use_bias"]:
            biases[maker.name] = (maker.weights[1] / factor).astype(np.float32)

    def changed(node: Node) -> Node:
        if node.name not in kernels:
            return node
        kernel = kernels[node.name].reshape(node.weights[0].shape).astype(np.float32)
        bias = (biases.get(node.name, node.weights[1]),) if node.config["use_bias"] else ()
        return replace(node, weights=(kernel, *bias))

    return replace(graph, nodes=tuple(changed(node) for node in graph.nodes)) if factors else graph


def unequalised(graph: Graph) -> dict[str, str]:
    """The layers whose channels are left as they are, and why: the node that lets no scale through."""
    reached = {node.name: _reached(graph, node) for node in graph.nodes if node.kind in WEIGHTED}
    return {name: obstacle for name, (_, obstacle) in reached.items() if obstacle}


def _pairs(graph: Graph) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Each layer whose channels are read by weighted layers alone, with those."""
    for node in graph.nodes:
        if node.kind in WEIGHTED:
            readers, obstacle = _reached(graph, node)
            if not obstacle:
                yield node, readers


def _reached(graph: Graph, maker: Node) -> tuple[tuple[Node, ...], str]:
    """The weighted layers that a layer's channels reach, and what else they reach, in words; empty for nothing."""
    scaled, readers = {maker.name}, []
    for node in graph.nodes:
        carriers = [name for name in node.inputs if name in scaled]
        if carriers and node.kind in WEIGHTED:
            readers.append(node)
        elif carriers and (_homogeneous(node) or _scaled_once(graph, node, carriers)):
            scaled.add(node.name)
        elif carriers:
            return (), f"it is read by {node.kind} '{node.name}'"
    if scaled & set(graph.outputs.values()):
        return (), "it is an output"
    return tuple(readers), "" if readers else "nobody reads it"


def _scaled_once(graph: Graph, node: Node, carriers: list[str]) -> bool:
    """Whether it is a product, of one factor with the scale, by channel, and others without."""
    return node.kind == "Multiply" and len(carriers) == 1 and graph[carriers[0]].shape[-1] == node.shape[-1]


def _homogeneous(node: Node) -> bool:
    """Whether a positive factor of a channel goes through the node unchanged."""
    unbounded = node.config.get("max_value") is None and node.config.get("activation") != "relu6"
    return (is_relu(node) and unbounded) or node.kind in _LETS_THROUGH


def _factor(
    weights: dict[str, Channels], maker: Node, readers: tuple[Node, ...], before: Channels
) -> Channels:
    """sqrt(r1 / r2) by channel; 1 for a channel that is zero on either side.

    What only rescales for a gate has a scale for each channel, and suffers no loss from any.
    """
    made = by_channel(maker, weights[maker.name]).max(axis=0)
    counted = [reader for reader in readers if not rescales(reader)] or readers
    read = np.max([_by_input(reader, weights[reader.name]).max(axis=(0, 2)) for reader in counted], axis=0)
    alive = (made > 0) & (read > 0)
    factor = np.sqrt(np.divide(made, read, out=np.ones_like(made), where=alive))
    bounded: Channels = np.clip(factor * before, 1 / LARGEST, LARGEST) / before
    return bounded


def _divide(weights: dict[str, Channels], maker: Node, factor: Channels) -> None:
    kernel = weights[maker.name]
    weights[maker.name] = (by_channel(maker, kernel) / factor).reshape(kernel.shape)


def _multiply(weights: dict[str, Channels], reader: Node, factor: Channels) -> None:
    kernel = weights[reader.name]
    weights[reader.name] = (_by_input(reader, kernel) * factor[:, None]).reshape(kernel.shape)


def _by_input(node: Node, kernel: Channels) -> Channels:
    """(taps, input channels, outputs of each): both kinds of kernels are (h, w, in, out or multiplier)."""
    return kernel.reshape(-1, *kernel.shape[2:])


def _kernel(node: Node) -> Channels:
    return node.weights[0].astype(np.float64)


def _channels(node: Node) -> int:
    return len(by_channel(node, node.weights[0]).T)
