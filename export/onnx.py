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

from calibration.graph import Graph, heads
from calibration.plan import Plan
from calibration.quantize import LARGEST_SCALE, SMALLEST_SCALE
from calibration.simulate import simulate
from edge.errors import InputError
from edge.native import logger_held_back, stderr_held_back
from export.lint_graph import MOVING
from export.onnx_convolutions import (
    computed_biases_apart,
    float_kernels_apart,
    large_biases_apart,
    quantize_kernels,
)

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
    float_kernels_apart(body.graph)
    quantize_kernels(body.graph, graph, plan)
    half = _in_float16(body)
    large_biases_apart(half.graph)
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
    computed_biases_apart(converted.graph)
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

    So behind what only moves values on the way there. TensorRT wants each QuantizeLinear read by a DequantizeLinear
    alone.
    """
    from onnx import helper

    made = {name: node for node in graph.node for name in node.output}
    for copy in _copies(graph):
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


def _copies(graph: Any) -> list[Any]:
    """Each Concat and Slice, and what moves values right before it, in the order of computation."""
    found: list[Any] = []
    wanted: set[str] = set()
    for node in reversed(graph.node):
        moves = node.op_type in MOVING and node.output[0] in wanted
        if moves or node.op_type in ("Concat", "Slice"):
            found.insert(0, node)
            wanted.update(node.input)
    return found


def _in_float16(model: Any) -> Any:
    """All floating point becomes float16; a Cast at each head brings it back to float32."""
    from onnxconverter_common import float16

    with warnings.catch_warnings():
        # It warns of weights beyond float16's bounds: they become the bound, as they must. Its own are narrower.
        warnings.simplefilter("ignore", UserWarning)
        half = float16.convert_float_to_float16(model, SMALLEST_SCALE, LARGEST_SCALE)
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
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        told = str(error).strip().splitlines()[0]
        raise InputError(
            f"ONNX has no such form of a layer of this model ({told}). Replace the layer, leave that precision out "
            "(--precisions), or export TFLite only (--formats tflite)."
        ) from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content
