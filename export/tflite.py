"""TFLite files: fp32, fp16 (weights), and int8 throughout but for what the plan leaves in float.

The int8 file's inputs and outputs are int8 in any case."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from calibration.graph import Graph
from calibration.plan import Plan
from calibration.simulate import simulate
from edge.errors import InputError
from edge.native import stderr_held_back


def fp32(model: Any) -> bytes:
    """float32 (1, H, W, 3) in [-1, 127/128] to float32 heads, from a Keras model with batch 1."""
    return _converted(model, lambda converter: None)


def fp16(model: Any) -> bytes:
    """The same with weights stored as float16; a CPU computes in float32, a GPU delegate in float16."""

    def half(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    return _converted(model, half)


def int8(graph: Graph, plan: Plan) -> bytes:
    """Integers only: int8 (1, H, W, 3) with scale 1/128 and zero point 0 in, int8 heads out.

    The converter takes every range from the rounding operations of the plan's simulation, and every
    kernel's scale from its largest value, which is 127 steps; it measures nothing itself.
    Layers that the plan leaves in float stand between a DEQUANTIZE and a QUANTIZE.
    """

    def integers(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8

    content = _converted(simulate(graph, plan, "tflite", batch=1, fenced=True), integers)
    return _without_fences(content) if plan.float_layers else content


def _without_fences(content: bytes) -> bytes:
    """The file without the Floors of `simulate`: what reads one reads what it reads."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    codes = [code.builtinCode for code in model.operatorCodes]
    for part in model.subgraphs:
        fences = [op for op in part.operators if codes[op.opcodeIndex] == schema.BuiltinOperator.FLOOR]
        before = {int(op.outputs[0]): int(op.inputs[0]) for op in fences}
        part.operators = [op for op in part.operators if op not in fences]
        for op in part.operators:
            op.inputs = [before.get(int(index), int(index)) for index in op.inputs]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _converted(model: Any, configure: Callable[[Any], None]) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    # The converter announces a temporary folder on stdout, and warns that it has no statistics of
    # its own: they are in the graph.
    with redirect_stdout(io.StringIO()), stderr_held_back(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        configure(converter)
        try:
            content: bytes = converter.convert()
        except ConverterError as error:
            raise InputError(
                f"TFLite has no form of this model ({str(error).strip().splitlines()[0]}). "
                "Replace the layer it names, or export ONNX only (--formats onnx)."
            ) from error
    return content
