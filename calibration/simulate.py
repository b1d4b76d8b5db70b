"""The int8 network in Keras: the same graph with rounding where the device rounds.

Each target has its own simulation, because each places its rounding differently, and each exporter
converts its own simulation: what was measured in Keras is what is written to the file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from calibration.graph import Call, Graph, KerasTensor, Node, build, call_layer
from calibration.kinds import WEIGHTED
from calibration.plan import Plan
from calibration.quantize import TensorParams
from calibration.rounding import rounded_inputs, rounded_nodes
from edge.bundle import Format


def simulate(graph: Graph, plan: Plan, target: Format, batch: int | None = None, fenced: bool = False) -> Any:
    """A Keras model that computes what the target's int8 artefact computes, up to a step or two.

    Kernels hold the real values of their integers for both targets.
    `tflite`: the input and each measured output is rounded, asymmetrically.
    `onnx`: the inputs of convolutions, average pools and upsampling, and the shortcut of an addition,
    are rounded, symmetrically, where TensorRT wants them.
    Layers that the plan leaves in float have their own kernels, see `calibration.rounding`.

    Args:
        batch: a fixed batch size, for converters; any size otherwise.
        fenced: for TFLite's converter, which rounds every layer that stands between two roundings: the input
            of each that stays in float goes through a Floor, which has no int8 form. The exporter takes it out.
    """
    rounded = plan.rounded(graph, target)
    if target == "onnx":
        return build(rounded, _tensorrt_call(rounded, plan), batch)
    uneven = replace(rounded, nodes=tuple(map(_with_uneven_bias, rounded.nodes)))
    return build(uneven, _tflite_call(uneven, plan, fenced), batch)


def _with_uneven_bias(node: Node) -> Node:
    """A bias whose values are all equal, with one of them moved by the least that a float can.

    TFLite's converter stores equal values as one, and rounds that one by the first channel's scale for all
    (seen in TensorFlow 2.21: of eight biases of 3.0 one stayed 3.0, another became 3.8).
    """
    if node.kind not in WEIGHTED or not node.config["use_bias"] or np.ptp(node.weights[1]) > 0:
        return node
    bias = node.weights[1].copy()
    bias[0] = np.nextafter(bias[0], np.float32(np.inf)) if bias[0] else bias[0]
    return replace(node, weights=(node.weights[0], bias))


def _tflite_call(graph: Graph, plan: Plan, fenced: bool) -> Call:
    rounds = {node.name for node in rounded_nodes(graph, plan.float_layers)}
    pixels: dict[str, KerasTensor] = {}

    def call(layer: Any, node: Node, inputs: list[KerasTensor]) -> KerasTensor:
        for index, name in enumerate(node.inputs):
            if name == graph.nodes[0].name:
                inputs[index] = _shared(
                    pixels, "input", inputs[index], plan.params(graph, graph.nodes[0], "tflite")
                )
        if fenced and node.name in plan.float_layers:
            inputs = [_fence_layer()(name=f"{node.name}_fence")(inputs[0])]
        output = call_layer(layer, inputs)
        if node.name in rounds:
            output = _round_layer()(plan.params(graph, node, "tflite"), name=f"{node.name}_round")(output)
        return output

    return call


def _tensorrt_call(graph: Graph, plan: Plan) -> Call:
    done: dict[str, KerasTensor] = {}

    def call(layer: Any, node: Node, inputs: list[KerasTensor]) -> KerasTensor:
        for index in rounded_inputs(graph, node, plan.float_layers):
            source = graph[node.inputs[index]]
            params = plan.params(graph, source, "onnx")
            inputs[index] = _shared(done, source.name, inputs[index], params)
        return call_layer(layer, inputs)

    return call


def _shared(
    done: dict[str, KerasTensor], name: str, tensor: KerasTensor, params: TensorParams
) -> KerasTensor:
    """Round a tensor once, however many layers read it."""
    if name not in done:
        done[name] = _round_layer()(params, name=f"{name}_round")(tensor)
    return done[name]


@cache
def _fence_layer() -> Any:
    """The fence's class, see `simulate`. Made on first use, since defining it needs Keras."""
    import keras
    import tensorflow as tf

    class Fence(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return tf.floor(inputs)

    return Fence


@cache
def _round_layer() -> Any:
    """The rounding layer's class. Made on first use, since defining it needs Keras."""
    import keras
    import tensorflow as tf

    fake_quant = tf.quantization.fake_quant_with_min_max_args

    class Round(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, params: TensorParams, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.params = params

        def call(self, inputs: Any) -> Any:
            low, high = self.params.limits
            return fake_quant(inputs, low, high, num_bits=8)

    return Round
