"""Where int8 hurts: which layers lose the most, by themselves and as the network runs.

Two questions with two prices. `layer_errors` asks how much noise rounding puts on each layer's output; one pass
over a few images answers for all layers. `sensitivity` asks what that does to the results; it runs the network
twice a layer.

A layer here is a convolution (dense layers are convolutions by now) with the ReLU that is fused into it: its
kernel and its output are what rounding it means. So each rounded tensor counts once, with the layer that makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.fold import fused_relu
from calibration.graph import Graph, Node, build, infer
from calibration.kinds import WEIGHTED
from calibration.observers import KEEP_RANGE, batches, widest
from calibration.plan import Plan
from calibration.samples import Pictures
from calibration.simulate import simulate
from edge.bundle import Format

Values = NDArray[np.float32]
Sums = NDArray[np.float64]
Heads = dict[str, Values]

CEILING_DB = 120.0
"""Of a layer on which rounding changes nothing that float32 shows."""


@dataclass(frozen=True)
class LayerError:
    """What rounding does to one layer's output.

    Attributes:
        name: of the convolution.
        own_db: signal to quantization noise in dB where this layer alone is rounded, its input exact.
        accumulated_db: the same where all layers before it are rounded too, as the artefact runs.
    """

    name: str
    own_db: float
    accumulated_db: float


def layer_errors(
    graph: Graph, plan: Plan, images: Pictures, target: Format = "tflite"
) -> tuple[LayerError, ...]:
    """The noise of every layer with weights, in one pass; the worst by itself first.

    In dB, the median over the channels of 10 log10(sum of squares / sum of squared errors). By channel, since one
    large channel hides in a sum over all of them what it costs the others, whose steps it widens.

    Args:
        graph: folded.
        images: uint8 (N, H, W, 3) RGB; memory holds one batch of them.
        target: whose rounding; the ONNX artefact's is TensorRT's.
    """
    pair = _Pair(graph, plan, target)
    if not pair.layers:
        return ()
    watch = pair.watching()
    own, accumulated = ({node.name: _Noise() for node in pair.layers} for _ in range(2))
    for pixels in batches(images):
        for outputs in watch(pixels):
            own[outputs.name].add(outputs.wanted, outputs.alone)
            accumulated[outputs.name].add(outputs.wanted, outputs.together)
    found = (LayerError(node.name, own[node.name].db, accumulated[node.name].db) for node in pair.layers)
    return tuple(sorted(found, key=lambda error: error.own_db))


@dataclass(frozen=True)
class Sensitivity:
    """What one layer costs the results.

    Attributes:
        name: of the convolution.
        drop: of a hundred images, how many change their first answer where this layer alone is int8: the place of the
            first head's largest value.
        gain: how many more keep it in the int8 network where this layer alone stays in float.
        alone_error: mean squared error of the heads against float where this layer alone is int8, as a share
            of their mean square; rest_error: the same where all others are.
    """

    name: str
    drop: float
    gain: float
    alone_error: float
    rest_error: float


def sensitivity(
    graph: Graph, plan: Plan, images: Pictures, target: Format = "tflite"
) -> tuple[Sensitivity, ...]:
    """Each layer alone in int8, and each alone in float; the one with the largest error alone comes first.

    By the error, since on a few hundred images answers change by chance.

    Args:
        graph: folded.
        images: uint8 (N, H, W, 3) RGB.
    """
    pair = _Pair(graph, plan, target)
    names = frozenset(node.name for node in pair.layers)
    exact = _infer(pair.exact, images)
    int8_kept = _kept(exact, _infer(pair.int8, images))
    found = []
    for name in (node.name for node in pair.layers):
        alone = _infer(pair.variant(frozenset({name}), others=False), images)
        rest = _infer(pair.variant(names - {name}, others=True), images)
        drop, gain = 100 - _kept(exact, alone), _kept(exact, rest) - int8_kept
        found.append(Sensitivity(name, drop, gain, _error(exact, alone), _error(exact, rest)))
    return tuple(sorted(found, key=lambda layer: -layer.alone_error))


def most_relieving(graph: Graph, plan: Plan, images: Pictures, target: Format = "tflite") -> str | None:
    """The layer that takes the most error out of the heads where it, too, stays in float; None where all do.

    Judged by the artefact as it would be: not by a layer's own noise, which the layers behind may forgive, and with
    the rounding of its output where an int8 layer reads it.

    Args:
        graph: folded; images: uint8 (N, H, W, 3) RGB, through one network a layer.
    """
    exact = _infer(build(graph), images)
    layers = [n.name for n in graph.nodes if n.kind in WEIGHTED and n.name not in plan.float_layers]

    def left(name: str) -> float:
        mixed = plan.in_float(*plan.float_layers, name)
        return _error(exact, _infer(simulate(graph, mixed, target), images))

    return min(layers, key=left, default=None)


def layer_rows(graph: Graph, plan: Plan, images: Pictures, target: Format = "tflite") -> list[dict[str, Any]]:
    """Both measures of each layer in one row, for a table or JSON; the lowest `own_db` first."""
    costs = {cost.name: cost for cost in sensitivity(graph, plan, images, target)}
    return [asdict(error) | asdict(costs[error.name]) for error in layer_errors(graph, plan, images, target)]


def _kept(exact: Heads, found: Heads) -> float:
    """Of a hundred images, those that keep their first answer."""
    return 100 * float((_named(found) == _named(exact)).mean())


def _named(heads: Heads) -> NDArray[np.int64]:
    """The place of the largest value of each image, (N,)."""
    first = next(iter(heads.values()))
    places: NDArray[np.int64] = first.reshape(len(first), -1).argmax(axis=1)
    return places


def _infer(model: Any, images: Pictures) -> Heads:
    parts = [infer(model, pixels) for pixels in batches(images)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _error(exact: Heads, found: Heads) -> float:
    """The mean over the heads."""
    shares = [np.mean((found[name] - y) ** 2) / max(np.mean(y**2), 1e-20) for name, y in exact.items()]
    return float(np.mean(shares))


@dataclass(frozen=True)
class _Outputs:
    """Of one layer, each (n, ..., channels): in float, rounded on exact input, and in the int8 network."""

    name: str
    wanted: Values
    alone: Values
    together: Values


class _Noise:
    """Sums of squares by channel."""

    def __init__(self) -> None:
        self.signal: Sums | float = 0.0
        self.noise: Sums | float = 0.0

    def add(self, wanted: Values, found: Values) -> None:
        """Both (n, ..., channels)."""
        self.signal = self.signal + _squares(wanted)
        self.noise = self.noise + _squares(found - wanted)

    @property
    def db(self) -> float:
        """The median over the channels that carry a signal."""
        live = np.asarray(self.signal) > 0
        if not live.any():
            return CEILING_DB
        share = np.asarray(self.noise)[live] / np.asarray(self.signal)[live]
        return float(np.median(-10 * np.log10(np.maximum(share, 10 ** (-CEILING_DB / 10)))))


def _squares(values: Values) -> Sums:
    sums: Sums = np.square(values, dtype=np.float64).reshape(-1, values.shape[-1]).sum(axis=0)
    return sums


class _Pair:
    """The float network and a target's simulation of the same layers."""

    def __init__(self, graph: Graph, plan: Plan, target: Format) -> None:
        self.graph = plan.without_shifts(target).prepared(graph, target)
        self.layers = tuple(node for node in self.graph.nodes if node.kind in WEIGHTED)
        self._simulated = partial(simulate, graph, plan, target)
        self.exact, self.int8 = build(self.graph), self._simulated()
        own = {node.name for node in self.graph.nodes}
        self._rounds = {layer.name for layer in self.int8.layers} - own

    def watching(self) -> Callable[[Values], Iterator[_Outputs]]:
        """Gives, of normalised pixels, what each layer makes of them."""
        import keras

        last = [self._last(node).name for node in self.layers]
        given = [self.exact.get_layer(node.inputs[0]).output for node in self.layers]
        wanted = [self.exact.get_layer(name).output for name in last]
        float_model = keras.Model(self.exact.input, [*given, *wanted])
        int8_model = keras.Model(self.int8.input, [self.int8.get_layer(name).output for name in last])

        def watch(pixels: Values) -> Iterator[_Outputs]:
            exact = keras.tree.flatten(float_model(pixels, training=False))
            found = keras.tree.flatten(int8_model(pixels, training=False))
            count = len(self.layers)
            for node, x, y, z in zip(self.layers, exact[:count], exact[count:], found, strict=True):
                meant = widest(self.graph, self._last(node))
                outputs = (y, self._alone(node, x), self._rounded(node, z))
                yield _Outputs(node.name, *(np.clip(values, *meant) for values in outputs))

        return watch

    def variant(self, rounded: frozenset[str], others: bool) -> Any:
        """The network with some of its layers in int8; it is so until the next call.

        Args:
            rounded: these layers; others: whether tensors that belong to none are rounded: pixels, sums, pools.
        """
        model, switches = self._switched
        for name in (node.name for node in self.layers):
            source = self.int8 if name in rounded else self.exact
            model.get_layer(name).set_weights(source.get_layer(name).get_weights())
        for name, switch in switches.items():
            owner = self._owner.get(name)
            switch.on.assign(others if owner is None else owner in rounded)
        return model

    @cached_property
    def _owner(self) -> dict[str | None, str]:
        """By the layer that rounds, the convolution whose output it is."""
        return {self.round_of(node): node.name for node in self.layers}

    @cached_property
    def _switched(self) -> tuple[Any, dict[str, Any]]:
        """One network for all variants, with a switch at each rounding: building one takes longer than running it."""
        import keras

        switches = {name: _switch_layer()(name=f"{name}_switch") for name in self._rounds}

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            given = layer(*args, **kwargs)
            return switches[layer.name]([given, args[0]]) if layer.name in switches else given

        copy = self._simulated()
        model = keras.models.clone_model(copy, clone_function=lambda layer: layer, call_function=call)
        return model, switches

    def round_of(self, node: Node) -> str | None:
        """The name of the simulation's layer that rounds what a convolution and its ReLU give, if any does.

        TensorRT rounds where it reads, which may be behind a maximum or a reshape: these change no value.
        """
        return self._round_behind(self._last(node))

    def _round_behind(self, node: Node) -> str | None:
        if f"{node.name}_round" in self._rounds:
            return f"{node.name}_round"
        readers = (reader for reader in self.graph.consumers(node.name) if reader.kind in KEEP_RANGE)
        return next(filter(None, map(self._round_behind, readers)), None)

    def _last(self, node: Node) -> Node:
        """The ReLU that is fused into a convolution, or itself."""
        return fused_relu(self.graph, node) or node

    def _alone(self, node: Node, values: Any) -> Any:
        for name in dict.fromkeys((node.name, self._last(node).name)):
            values = self.int8.get_layer(name)(values)
        return self._rounded(node, values)

    def _rounded(self, node: Node, values: Any) -> Any:
        name = self.round_of(node)
        return self.int8.get_layer(name)(values) if name else values


@cache
def _switch_layer() -> Any:
    """The switch's class. Made on first use, since defining it needs Keras."""
    import keras

    class Switch(keras.layers.Layer):  # type: ignore[misc]
        """The first of two tensors where it is on, else the second."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.on = self.add_weight(shape=(), dtype="bool", initializer="ones", trainable=False)

        def call(self, inputs: Any) -> Any:
            return keras.ops.where(self.on, inputs[0], inputs[1])

    return Switch
