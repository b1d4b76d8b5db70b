"""What is in an int8 file some of whose layers stay in float, and that the runtimes and NVIDIA's builder take it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers
from plans import make_plan

from calibration.fold import fold
from calibration.graph import Graph, build, infer, read
from calibration.kinds import WEIGHTED
from calibration.plan import Plan
from calibration.simulate import simulate
from edge.pixels import normalise
from edge.runners.plans import Toolkit
from export import lint, tflite
from export import onnx as to_onnx
from export.tensorrt import build_plan

CHAIN = ("stem", "spoilt", "last")


def _chain() -> keras.Model:
    """Convolutions alone. The first channel that `spoilt` reads is zero, and its weights for it are huge."""
    x = pixels = keras.Input((16, 16, 3), name="pixels")
    for name in CHAIN[:-1]:
        x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name=name)(x)
    model = keras.Model(pixels, layers.Conv2D(5, 3, name="last")(x))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.2, weight.shape))
    stem, spoilt = model.get_layer("stem"), model.get_layer("spoilt")
    stem.kernel.assign(np.array(stem.kernel) * (np.arange(8) > 0))
    stem.bias.assign(np.array(stem.bias) * (np.arange(8) > 0))
    spoilt.kernel.assign(np.where(np.arange(8)[:, None] == 0, 300, np.array(spoilt.kernel)))
    return model


class Case:
    def __init__(self) -> None:
        blobs = np.random.default_rng(7).integers(0, 256, (32, 4, 4, 3), dtype=np.uint8)
        self.images = blobs.repeat(4, axis=1).repeat(4, axis=2)
        self.graph: Graph = fold(read(_chain()))
        self.plan = make_plan(self.graph, self.images, "made", "minmax")
        single = build(self.graph, batch=1)
        self.float = {
            "tflite": _run_tflite(tflite.fp32(single), self.images),
            "onnx": _run_onnx(to_onnx.fp32(single), self.images),
        }
        self.half = to_onnx.fp16(single)

    def mixed(self, *names: str) -> Plan:
        return self.plan.in_float(*names)

    def file(self, target: str, *names: str) -> bytes:
        return {"tflite": tflite, "onnx": to_onnx}[target].int8(self.graph, self.mixed(*names))

    def error(self, target: str, *names: str) -> float:
        run = {"tflite": _run_tflite, "onnx": _run_onnx}[target]
        return float(np.mean((run(self.file(target, *names), self.images) - self.float[target]) ** 2))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def _interpreter(content: bytes) -> Any:
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    return interpreter


def _run_tflite(content: bytes, images: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (pixels,), (head,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        integers = (image ^ 0x80).view(np.int8)[None]
        real = integers.astype(np.float32) / 128
        interpreter.set_tensor(pixels["index"], integers if pixels["dtype"] == np.int8 else real)
        interpreter.invoke()
        values = interpreter.get_tensor(head["index"])[0].astype(np.float32)
        scale, zero = head["quantization"]
        rows.append((values - zero) * scale if scale else values)
    return np.stack(rows)


def _run_onnx(content: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixels": image[None]})[0] for image in images])


def _operators(content: bytes) -> list[tuple[str, str]]:
    """Each operator of a TFLite file, with the type of what it gives."""
    interpreter = _interpreter(content)
    types = {t["index"]: np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}
    return [(op["op_name"], types[op["outputs"][0]]) for op in interpreter._get_ops_details()]


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_the_sabotaged_layer_in_float_repairs_the_heads(case: Case, target: str) -> None:
    assert case.error(target, "spoilt") < 0.02 * case.error(target)
    assert case.error(target, "last") > 0.5 * case.error(target)


@pytest.mark.parametrize(("name", "place"), [("stem", 0), ("spoilt", 1), ("last", 2)])
def test_tflite_has_just_that_layer_in_float(case: Case, name: str, place: int) -> None:
    content = case.file("tflite", name)
    wanted = [("CONV_2D", "int8")] * len(CHAIN)
    wanted[place : place + 1] = [("DEQUANTIZE", "float32"), ("CONV_2D", "float32"), ("QUANTIZE", "int8")]
    assert _operators(content) == wanted
    interpreter = _interpreter(content)
    (pixels,), (head,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (pixels["dtype"], pixels["quantization"]) == (np.int8, (1 / 128, 0))
    assert head["dtype"] == np.int8


def test_tflite_rounds_nothing_between_two_layers_in_float(case: Case) -> None:
    floats = [("CONV_2D", "float32")] * 2
    wanted = [("DEQUANTIZE", "float32"), *floats, ("QUANTIZE", "int8"), ("CONV_2D", "int8")]
    assert _operators(case.file("tflite", "stem", "spoilt")) == wanted


def test_with_all_layers_in_float_the_files_are_the_float_ones(case: Case) -> None:
    """TFLite's head is rounded all the same: half a step. ONNX is the float16 file."""
    head = case.plan.params(case.graph, case.graph["last"], "tflite")
    found = _run_tflite(case.file("tflite", *CHAIN), case.images)
    assert np.abs(found - case.float["tflite"]).max() <= 0.51 * head.scale
    content = case.file("onnx", *CHAIN)
    assert not any("QuantizeLinear" in node.op_type for node in onnx.load_from_string(content).graph.node)
    np.testing.assert_array_equal(_run_onnx(content, case.images), _run_onnx(case.half, case.images))


@pytest.mark.parametrize("name", CHAIN)
def test_onnx_has_no_pair_around_that_layer(case: Case, name: str) -> None:
    content = case.file("onnx", name)
    lint.check(content, name)
    graph = onnx.load_from_string(content).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    kinds = [[made.get(tensor) for tensor in n.input[:2]] for n in graph.node if n.op_type == "Conv"]
    for conv, (pixels, kernel) in zip(CHAIN, kinds, strict=True):
        assert (pixels == "DequantizeLinear") == (kernel == "DequantizeLinear") == (conv != name)
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    float_kernels = [n.input[1] for n in graph.node if n.op_type == "Conv" and n.input[1] in constants]
    assert [constants[kernel] for kernel in float_kernels] == [onnx.TensorProto.FLOAT16]


def _pyramid_case() -> tuple[Graph, Plan]:
    """Additions, upsampling, a joint, pools and several heads."""
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(pixels)
    side = layers.Conv2D(8, 3, padding="same", name="side")(x)
    x = layers.ReLU(name="merged")(layers.Add(name="add")([x, side]))
    coarse = layers.MaxPooling2D(2, name="pool")(x)
    up = layers.UpSampling2D(2, name="up")(layers.Conv2D(4, 1, name="narrow")(coarse))
    joint = layers.Concatenate(name="joint")([x, up])
    heads = [layers.Conv2D(2, 1, name="fine")(joint), layers.Conv2D(3, 1, name="coarse")(coarse)]
    graph = fold(read(keras.Model(pixels, heads)))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    return graph, make_plan(graph, images, "made", "minmax")


def test_any_layer_of_a_detectors_graph_may_stay_in_float() -> None:
    graph, plan = _pyramid_case()
    names = [node.name for node in graph.nodes if node.kind in WEIGHTED]
    for chosen in [*((name,) for name in names), tuple(names)]:
        mixed = plan.in_float(*chosen)
        lint.check(to_onnx.int8(graph, mixed), "model.int8.onnx")
        kinds = _operators(tflite.int8(graph, mixed))
        assert kinds.count(("CONV_2D", "float32")) == len(chosen)
        assert {kind for kind, given in kinds if given != "int8"} == {"CONV_2D", "DEQUANTIZE"}


def test_onnx_keeps_equal_kernels_of_int8_and_of_float_apart() -> None:
    """Kernels that lose nothing by rounding are one constant in the converted file."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    one, other = (layers.Conv2D(3, 1, use_bias=False, name=name) for name in ("one", "other"))
    model = keras.Model(pixels, other(one(pixels)))
    for layer in (one, other):
        layer.kernel.assign(np.full((1, 1, 3, 3), 127 / 1024, np.float32))
    graph, images = fold(read(model)), np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    plan = make_plan(graph, images, "made", "minmax").in_float("one")
    content = to_onnx.int8(graph, plan)
    lint.check(content, "model.int8.onnx")
    wanted = infer(simulate(graph, plan, "onnx"), normalise(images))["logits"]
    step = plan.params(graph, graph["one"], "onnx").scale
    np.testing.assert_allclose(_run_onnx(content, images), wanted, atol=step)


def test_nvidias_builder_takes_a_file_with_layers_in_float(case: Case) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
    toolkit = Toolkit(trt, "tensorrt_rtx", trt.__version__)
    int8, mixed = (
        build_plan(case.file("onnx", *names), toolkit).weights_bytes for names in ((), ("spoilt",))
    )
    assert mixed > int8
