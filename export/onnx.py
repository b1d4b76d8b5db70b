"""ONNX files: fp32, fp16 and int8 with Q/DQ pairs, all with the camera's uint8 NHWC pixels as input.

The graph begins with Cast, Transpose and the normalisation, in this order: NVIDIA's parser takes
uint8 only into a Cast. Batch 1 is fixed, opset 18, and 19 for int8: the first with float16 Q/DQ.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.fold import WEIGHTED
from calibration.graph import Graph, Node, heads
from calibration.plan import Plan
from calibration.simulate import simulate
from edge.errors import InputError
from edge.native import logger_held_back, stderr_held_back

OPSET = 18
OPSET_INT8 = 19
INPUT = "pixels"
_BODY_INPUT = "normalised"


def fp32(model: Any) -> bytes:
    """ONNX with float32 inside: uint8 (1, H, W, 3) in, float32 heads out, named as `heads(model)`.

    Args:
        model: a Keras model with batch 1, float32 (1, H, W, 3) in [-1, 127/128] to its heads.
    """
    return _checked(_with_pixel_input(_converted(model)))


def fp16(model: Any) -> bytes:
    """The same with float16 inside; the heads leave as float32."""
    return _checked(_with_pixel_input(_in_float16(_converted(model))))


def int8(graph: Graph, plan: Plan) -> bytes:
    """Q/DQ pairs from the plan: symmetric int8, kernels by channel, what is left in float16.

    So are the layers that the plan leaves in float: none of their tensors has a pair.
    """
    body = _converted(simulate(graph, plan, "onnx", batch=1), {_FAKE_QUANT: (_quantize_dequantize, [])})
    _round_after_copies(body.graph)
    _float_kernels_apart(body.graph)
    _quantize_kernels(body.graph, graph, plan)
    half = _in_float16(body)
    _large_biases_apart(half.graph)
    return _checked(_with_pixel_input(half), OPSET_INT8)


# -- Keras to ONNX --------------------------------------------------------------------------------


_FAKE_QUANT = "FakeQuantWithMinMaxArgs"
Handlers = dict[str, tuple[Callable[..., None], list[Any]]]


def _converted(model: Any, handlers: Handlers | None = None) -> Any:
    """tf2onnx's graph, NCHW inside: float32 (1, 3, H, W) `normalised` to heads, maps as NHWC."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name=_BODY_INPUT)]
    names = list(heads(model))

    def outputs(pixels: Any) -> Any:
        values = model(pixels, training=False)
        return values if isinstance(values, dict) else {names[0]: values}

    function = tf.function(outputs, input_signature=signature)
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        stderr_held_back(),
        logger_held_back("tf2onnx"),  # `_checked` says what it means
    ):
        converted, _ = tf2onnx.convert.from_function(
            function,
            input_signature=signature,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_complement_of_erf, []), **(handlers or {})},
            inputs_as_nchw=[_BODY_INPUT],
        )
        converted = _optimised_again(converted)
    # TensorFlow sorts a dictionary by its keys.
    ordered = sorted(converted.graph.output, key=lambda output: names.index(output.name))
    del converted.graph.output[:]
    converted.graph.output.extend(ordered)
    return converted


def _optimised_again(model: Any) -> Any:
    """tf2onnx's optimiser leaves a Transpose behind by chance, in three of 800 conversions of LeNet-5.

    A second pass took it out each time. Where it finds none to take out, the first one's graph stays as it is.
    """
    if not _transposes(model):
        return model
    from tf2onnx.graph import GraphUtil

    again = GraphUtil.optimize_model_proto(model)
    return again if _transposes(again) < _transposes(model) else model


def _transposes(model: Any) -> int:
    return sum(node.op_type == "Transpose" for node in model.graph.node)


def _complement_of_erf(context: Any, node: Any, name: str, args: list[Any]) -> None:
    """tf2onnx handler: TensorFlow computes GELU with erfc, ONNX has erf alone."""
    (source,), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(node.name)
    one = context.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    erf = context.make_node("Erf", [source], name=f"{name}_erf", shapes=[shape], dtypes=[dtype])
    context.make_node(
        "Sub", [one, erf.output[0]], name=name, outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _quantize_dequantize(context: Any, node: Any, name: str, args: list[Any]) -> None:
    """tf2onnx handler: a simulated rounding becomes a signed, symmetric Q/DQ pair.

    tf2onnx's own translation has uint8 zero points, which TensorRT's parser refuses.
    """
    from onnx import TensorProto

    source, output = node.input[0], node.output[0]
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    scale = np.float32(node.get_attr("max").f / 127)
    context.remove_node(node.name)
    scale_name = context.make_const(f"{name}_scale", np.array(scale, np.float32)).output[0]
    zero_name = context.make_const(f"{name}_zero", np.array(0, np.int8)).output[0]
    quantized = context.make_node(
        "QuantizeLinear",
        [source, scale_name, zero_name],
        name=f"{name}_quantize",
        shapes=[shape],
        dtypes=[TensorProto.INT8],
    )
    context.make_node(
        "DequantizeLinear",
        [quantized.output[0], scale_name, zero_name],
        name=f"{name}_dequantize",
        outputs=[output],
        shapes=[shape],
        dtypes=[dtype],
    )


# -- rewriting the ONNX graph ---------------------------------------------------------------------


def _with_pixel_input(model: Any) -> Any:
    """Put Cast, Transpose and (x - 128) / 128 before the network, in the network's own type."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    body_type = graph.input[0].type.tensor_type
    _, channels, height, width = (dim.dim_value for dim in body_type.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(body_type.elem_type)
    constants = {"pixel_zero": 128, "pixel_step": 1 / 128}
    head = [
        helper.make_node("Cast", [INPUT], ["pixels_float"], name="pixels_cast", to=body_type.elem_type),
        helper.make_node(
            "Transpose", ["pixels_float"], ["pixels_nchw"], name="pixels_transpose", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Sub", ["pixels_nchw", "pixel_zero"], ["pixels_centred"], name="pixels_centre"),
        helper.make_node("Mul", ["pixels_centred", "pixel_step"], [_BODY_INPUT], name="pixels_scale"),
    ]
    body = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*head, *body])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, height, width, channels]))
    graph.initializer.extend(
        numpy_helper.from_array(np.array(v, dtype), name) for name, v in constants.items()
    )
    return model


def _round_after_copies(graph: Any) -> None:
    """Bring a rounding back behind its Concat or Slice: tf2onnx moves it before, so that integers are copied.

    TensorRT wants each QuantizeLinear read by a DequantizeLinear alone.
    """
    from onnx import helper

    made = {name: node for node in graph.node for name in node.output}
    for copy in [node for node in graph.node if node.op_type in ("Concat", "Slice")]:
        count = len(copy.input) if copy.op_type == "Concat" else 1  # a Slice's others are its bounds
        roundings = [made[name] for name in copy.input[:count] if name in made]
        if len(roundings) < count or any(node.op_type != "QuantizeLinear" for node in roundings):
            continue
        _, scale, zero = roundings[0].input
        output, exact = copy.output[0], f"{copy.output[0]}_exact"
        copy.input[:count] = [node.input[0] for node in roundings]
        copy.output[:] = [exact]
        quantize = helper.make_node(
            "QuantizeLinear", [exact, scale, zero], [output], name=f"{copy.name}_quantize"
        )
        graph.node.insert(list(graph.node).index(copy) + 1, quantize)
        made |= {exact: copy, output: quantize}  # the next join may read it
        read = {name for node in graph.node for name in node.input}
        for node in roundings:
            if node.output[0] not in read and node in graph.node:
                graph.node.remove(node)


def _float_kernels_apart(graph: Any) -> None:
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


def _quantize_kernels(onnx_graph: Any, graph: Graph, plan: Plan) -> None:
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
    for conv in _int8_convolutions(onnx_graph):
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


def _int8_convolutions(graph: Any) -> list[Any]:
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


def _large_biases_apart(graph: Any) -> None:
    """Add a bias by a node of its own where ONNX Runtime would spoil it.

    Its optimiser WeightBiasQuantization divides the bias of a convolution between Q/DQ by the product of both
    scales, in float16: beyond 65,504, or where the product is too small for a float16, infinity becomes an
    arbitrary integer (seen in 1.32: a channel with the bias 2.77 gave 0). An addition it leaves alone.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    for conv in [node for node in _int8_convolutions(graph) if len(node.input) > 2]:
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


def _in_float16(model: Any) -> Any:
    """All floating point becomes float16; a Cast at each head brings it back to float32."""
    from onnxconverter_common import float16

    with warnings.catch_warnings():
        # It warns of weights below float16's smallest value: they become it, or zero, as they must.
        warnings.simplefilter("ignore", UserWarning)
        half = float16.convert_float_to_float16(model)
    _copy_in_float16(half.graph)
    for output in half.graph.output:
        _cast_back(half.graph, output)
    return half


def _copy_in_float16(graph: Any) -> None:
    """Take the casts around each Resize away: the converter keeps it in float32, but ours only copies."""
    made = {name: node for node in graph.node for name in node.output}
    for resize in [node for node in graph.node if node.op_type == "Resize"]:
        before = made[resize.input[0]]
        if before.op_type == "Cast":
            resize.input[0] = before.input[0]
            graph.node.remove(before)
        for after in [node for node in graph.node if resize.output[0] in node.input]:
            if after.op_type == "Cast":
                graph.node.remove(after)
                resize.output[0] = after.output[0]


def _cast_back(graph: Any, output: Any) -> None:
    from onnx import TensorProto, helper

    head = output.name
    for node in graph.node:
        node.output[:] = [f"{head}_half" if name == head else name for name in node.output]
    cast = helper.make_node("Cast", [f"{head}_half"], [head], name=f"{head}_cast", to=TensorProto.FLOAT)
    graph.node.append(cast)
    shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    output.CopyFrom(helper.make_tensor_value_info(head, TensorProto.FLOAT, shape))


def _checked(model: Any, opset: int = OPSET) -> bytes:
    """The file's bytes, after ONNX's own checker; an operator that was left in TensorFlow's form fails it."""
    import onnx

    model.producer_name, model.producer_version = "sightline", ""
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    unknown = sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type)})
    if unknown:
        raise InputError(
            f"ONNX has no operator for TensorFlow's {', '.join(unknown)}, which a layer of this model uses. "
            "Replace the layer, or export TFLite only (--formats tflite)."
        )
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
