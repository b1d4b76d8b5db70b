"""The convolutions of an ONNX graph: their kernels in int8, and the biases that they cannot hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.graph import Graph, Node
from calibration.kinds import WEIGHTED
from calibration.plan import Plan


def computed_biases_apart(graph: Any) -> None:
    """Add what is computed by a node of its own: Keras and tf2onnx take a vector beside a convolution for its bias.

    Where it has one already, ONNX knows no second; and TensorRT wants constants.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name for tensor in graph.initializer}
    column = numpy_helper.from_array(np.array([1, -1, 1, 1], np.int64), "bias_as_map")
    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        computed = [name for name in conv.input[2:] if name not in constants]
        if not computed:
            continue
        kept, output = [name for name in conv.input if name not in computed], conv.output[0]
        at = list(graph.node).index(conv) + 1
        sums = [f"{conv.name}_before_{number}" for number in range(len(computed))] + [output]
        conv.input[:], conv.output[0] = kept, sums[0]
        for number, name in enumerate(computed):
            reshape = helper.make_node("Reshape", [name, column.name], [f"{sums[number]}_map"])
            add = helper.make_node("Add", [sums[number], reshape.output[0]], [sums[number + 1]])
            for node, kind in ((add, "add"), (reshape, "map")):
                node.name = f"{sums[number]}_{kind}"
                graph.node.insert(at + 2 * number, node)
        if column not in graph.initializer:
            graph.initializer.append(column)


def float_kernels_apart(graph: Any) -> None:
    """Give layers in float kernels of their own: tf2onnx stores equal constants once."""
    from onnx import numpy_helper

    real = _dequantized(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    shared = {conv.input[1] for conv in convolutions if conv.input[0] in real}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for conv in convolutions:
        name, own = conv.input[1], f"{conv.input[1]}_float"
        if name not in shared or conv.input[0] in real:
            continue
        if own not in constants:
            constants[own] = numpy_helper.from_array(numpy_helper.to_array(constants[name]), own)
            graph.initializer.append(constants[own])
        conv.input[1] = own


def quantize_kernels(onnx_graph: Any, graph: Graph, plan: Plan) -> None:
    """Store the kernel of each convolution that reads int8 as int8 with a DequantizeLinear by output channel.

    The kernels already hold rounded values, so the division is exact. They are found by content:
    names do not survive the conversion, equal kernels have equal scales.
    """
    from onnx import helper, numpy_helper

    rounded = [
        node
        for node in plan.rounded(graph, "onnx").nodes
        if node.kind in WEIGHTED and node.name not in plan.float_layers
    ]
    scales = {_onnx_kernel(node).tobytes(): plan.kernel_scales[node.name] for node in rounded}
    initializers = {tensor.name: tensor for tensor in onnx_graph.initializer}
    done: set[str] = set()
    dequantize = []
    for conv in int8_convolutions(onnx_graph):
        name = conv.input[1]
        conv.input[1] = f"{name}_dequantized"
        if name in done:
            continue
        done.add(name)
        kernel = numpy_helper.to_array(initializers[name])
        step = np.array(scales[kernel.tobytes()], np.float32)
        integers = np.rint(kernel / step[:, None, None, None]).astype(np.int8)
        initializers[name].CopyFrom(numpy_helper.from_array(integers, name))
        zeros = np.zeros(len(step), np.int8)
        onnx_graph.initializer.append(numpy_helper.from_array(step, f"{name}_scale"))
        onnx_graph.initializer.append(numpy_helper.from_array(zeros, f"{name}_zero"))
        inputs = [name, f"{name}_scale", f"{name}_zero"]
        dequantize.append(
            helper.make_node("DequantizeLinear", inputs, [conv.input[1]], name=f"{name}_dq", axis=0)
        )
    body = list(onnx_graph.node)
    del onnx_graph.node[:]
    onnx_graph.node.extend([*dequantize, *body])


def int8_convolutions(graph: Any) -> list[Any]:
    """Those whose pixels come out of a DequantizeLinear: the others stay in float."""
    real = _dequantized(graph)
    return [node for node in graph.node if node.op_type == "Conv" and node.input[0] in real]


def _dequantized(graph: Any) -> set[str]:
    return {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}


def _onnx_kernel(node: Node) -> NDArray[np.float32]:
    """The kernel in ONNX's layout: (out, in, h, w), a depthwise one (in * multiplier, 1, h, w)."""
    kernel = node.weights[0]
    if node.kind == "DepthwiseConv2D":
        height, width = kernel.shape[:2]
        return np.ascontiguousarray(kernel.reshape(height, width, 1, -1).transpose(3, 2, 0, 1))
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def large_biases_apart(graph: Any) -> None:
    """Add a bias by a node of its own where ONNX Runtime would spoil it.

    Its optimiser WeightBiasQuantization divides the bias of a convolution between Q/DQ by the product of both
    scales, in float16: beyond 65,504, or where the product is too small for a float16, infinity becomes an
    arbitrary integer (seen in 1.32: a channel with the bias 2.77 gave 0). An addition it leaves alone.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    for conv in [node for node in int8_convolutions(graph) if len(node.input) > 2]:
        bias, *steps = (
            numpy_helper.to_array(constants[name])
            for name in (conv.input[2], *(made[source].input[1] for source in conv.input[:2]))
        )
        if not _overflows(bias, steps[0] * steps[1]):
            continue
        name, output = conv.input.pop(), conv.output[0]
        shaped = numpy_helper.from_array(bias.reshape(1, -1, 1, 1), f"{conv.name}_bias_apart")
        graph.initializer.append(shaped)
        conv.output[0] = f"{output}_unbiased"
        add = helper.make_node("Add", [conv.output[0], shaped.name], [output], name=f"{conv.name}_bias")
        graph.node.insert(list(graph.node).index(conv) + 1, add)
        if not any(name in node.input for node in graph.node):
            graph.initializer.remove(constants[name])


def _overflows(bias: NDArray[np.float16], step: NDArray[np.float16]) -> bool:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        steps = np.where(bias == 0, 0, bias / step)
    return not bool(np.isfinite(steps).all())
