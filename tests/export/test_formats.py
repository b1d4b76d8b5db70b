"""What is in the files: types, scales and operators, and that they compute what was simulated."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import PRECISIONS, Bundle
from edge.golden import check
from edge.runners import open_runner
from edge.runners.plans import Toolkit
from edge.runners.tflite import TfliteRunner
from export.job import Job
from export.onnx import _optimised_again, fp16
from export.tensorrt import build_plan
from train.data import load


@pytest.fixture(scope="session")
def bundle(lenet_bundle: Path) -> Bundle:
    return Bundle.open(lenet_bundle)


@cache
def _graph(path: Path) -> Any:
    return onnx.load(path).graph


def _interpreter(bundle: Bundle, precision: Any) -> Any:
    content = bundle.content(bundle.artefact("tflite", precision))
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter


def test_tflite_int8_holds_integers_only(bundle: Bundle) -> None:
    interpreter = _interpreter(bundle, "int8")
    types = {np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    assert types <= {"int8", "int32"}
    (pixels,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (pixels["dtype"], pixels["quantization"]) == (np.int8, (1 / 128, 0))
    assert logits["dtype"] == np.int8


def test_float16_reaches_as_far_as_its_format_does() -> None:
    """The converter's own bounds, 1e-7 and 10,000, would halve the one bias and double the other's weights."""
    pixels = keras.Input((4, 4, 3), batch_size=1, name="pixels")
    conv = keras.layers.Conv2D(2, 1, name="conv")
    model = keras.Model(pixels, keras.layers.Flatten(name="flat")(conv(pixels)))
    conv.set_weights([np.full((1, 1, 3, 2), 2.0**-24, np.float32), np.float32([20_000.0, -60_000.0])])
    half = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(fp16(model)).graph.initializer
    }
    values = np.concatenate([value.ravel() for value in half.values() if value.dtype == np.float16])
    assert {2.0**-24, 20_000.0, -60_000.0} <= {float(value) for value in values}


def test_tflite_kernels_have_a_scale_for_each_channel(bundle: Bundle) -> None:
    scales = [
        len(detail["quantization_parameters"]["scales"])
        for detail in _interpreter(bundle, "int8").get_tensor_details()
        if detail["dtype"] == np.int8 and len(detail["shape"]) == 4
    ]
    assert {6, 16, 120, 84, 10} <= set(scales)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_starts_with_uint8_pixels_cast_transpose_normalise(bundle: Bundle, precision: Any) -> None:
    graph = _graph(bundle.folder / f"model.{precision}.onnx")
    (pixels,) = graph.input
    shape = [dim.dim_value for dim in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, pixels.type.tensor_type.elem_type, shape) == (
        "pixels",
        TensorProto.UINT8,
        [1, 32, 32, 3],
    )
    assert [node.op_type for node in graph.node[:4]] == ["Cast", "Transpose", "Sub", "Mul"]
    assert sum(node.op_type == "Transpose" for node in graph.node) == 1
    (logits,) = graph.output
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", TensorProto.FLOAT)


def test_onnx_int8_obeys_tensorrt(bundle: Bundle) -> None:
    model = onnx.load(bundle.folder / "model.int8.onnx")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rounding = [node for node in model.graph.node if node.op_type.endswith("QuantizeLinear")]
    rounding += [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert model.opset_import[0].version == 19
    assert rounding
    for node in rounding:
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert (scale.dtype, zero.dtype) == (np.float16, np.int8)
        assert not zero.any()
        assert (scale > 0).all()
    for conv in (node for node in model.graph.node if node.op_type == "Conv"):
        producers = {name: node for node in model.graph.node for name in node.output}
        kernel, data = producers[conv.input[1]], producers[conv.input[0]]
        assert kernel.op_type == data.op_type == "DequantizeLinear"
        assert constants[kernel.input[0]].dtype == np.int8
        assert len(constants[kernel.input[1]]) == len(constants[kernel.input[0]])
        assert constants[conv.input[2]].dtype == np.float16


def test_onnx_rounds_nothing_between_a_convolution_and_its_relu(bundle: Bundle) -> None:
    graph = _graph(bundle.folder / "model.int8.onnx")
    producers = {name: node for node in graph.node for name in node.output}
    relus = [node for node in graph.node if node.op_type == "Relu"]
    assert len(relus) == 4
    assert {producers[relu.input[0]].op_type for relu in relus} == {"Conv"}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_golden_vectors_pass(bundle: Bundle, backend: str, precision: Any) -> None:
    result = check(bundle, backend, precision)
    assert result <= (3.0 if precision == "int8" else 0.2)


def test_both_int8_artefacts_agree(bundle: Bundle) -> None:
    images = load("digits", "test").images
    labels = []
    for backend in ("tflite", "onnx"):
        runner = open_runner(bundle, backend, "int8")
        labels.append([int(runner.infer(image[None])["logits"].argmax()) for image in images])
    assert np.mean(np.equal(*labels)) >= 0.97


def test_the_tflite_runner_hands_out_arrays_of_its_own(bundle: Bundle) -> None:
    runner = TfliteRunner(bundle, "fp32")
    images = load("digits", "test").images
    first = runner.infer(images[:1])["logits"]
    kept = first.copy()
    runner.infer(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_nvidias_builder_takes_every_onnx_file_and_uses_int8(bundle: Bundle) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
    toolkit = Toolkit(trt, "tensorrt_rtx", trt.__version__)
    weights = {
        p: build_plan(bundle.content(bundle.artefact("onnx", p)), toolkit).weights_bytes for p in PRECISIONS
    }
    assert weights["fp16"] <= 0.55 * weights["fp32"]
    assert weights["int8"] <= 0.4 * weights["fp32"]


@pytest.mark.parametrize("needed", [False, True])
def test_a_transposition_that_the_converter_left_behind_is_taken_out(needed: bool) -> None:
    """There and back; where it is only there, it stays."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["there"], "there", perm=[0, 3, 1, 2]),
        helper.make_node("Relu", ["there"], ["out" if needed else "positive"], "relu"),
        helper.make_node("Transpose", ["positive"], ["out"], "back", perm=[0, 2, 3, 1]),
    ]
    before, after = [1, 2, 3, 4], [1, 4, 2, 3] if needed else [1, 2, 3, 4]
    pixels, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("pixels", before), ("out", after))
    )
    graph = helper.make_graph(nodes[: 2 if needed else 3], "left", [pixels], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    result = _optimised_again(model)
    assert sum(node.op_type == "Transpose" for node in result.graph.node) == needed
    assert (result is model) == needed


def test_the_heads_of_a_dictionary_keep_their_names_in_float_only_files() -> None:
    """Keras's own flattening sorts by key; the model's order is another one."""
    import keras

    pixels = keras.Input((8, 8, 3))
    heads = {"score": keras.layers.Conv2D(1, 3)(pixels), "box": keras.layers.Conv2D(4, 3)(pixels)}
    job = SimpleNamespace(precisions=("fp32",), model=keras.Model(pixels, heads))
    shapes = {name: tensor.shape[-1] for name, tensor in Job.single.func(job).output.items()}
    assert shapes == {"score": 1, "box": 4}
