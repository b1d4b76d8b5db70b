"""TensorRT's rules: our files obey them all, and each rule finds the one thing that was broken for it."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline
from edge.bundle import Bundle, Precision, shipped
from export import lint_rules
from export.lint import RULES, LintFailed, check, lint

onnx = pytest.importorskip("onnx")
FACES = "face-320x192"
"""The shipped network that has residual additions, upsampling and several heads."""


class Graph:
    """A shipped ONNX file that can be broken; nodes are found by a part of their name."""

    def __init__(self, precision: Precision, bundle: str = FACES) -> None:
        opened = Bundle.open(bundle)
        self.model = onnx.load_from_string(opened.content(opened.artefact("onnx", precision)))
        self.nodes = self.model.graph.node

    def node(self, operator: str, part: str = "") -> Any:
        return next(n for n in self.nodes if n.op_type == operator and part in n.name)

    def maker(self, tensor: str) -> Any:
        return next(n for n in self.nodes if tensor in n.output)

    def value(self, name: str) -> Any:
        return onnx.numpy_helper.to_array(next(t for t in self.model.graph.initializer if t.name == name))

    def put(self, node: Any, index: int, value: Any) -> None:
        """Give one input of one node a constant of its own: others may share the one it had."""
        name = f"broken_{len(self.model.graph.initializer)}"
        self.model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        node.input[index] = name

    def insert(self, before: Any, operator: str, inputs: list[str], **attributes: Any) -> str:
        """A new node before another; the name of its output."""
        name = f"broken_{operator}"
        self.nodes.insert(
            list(self.nodes).index(before),
            onnx.helper.make_node(operator, inputs, [name], name, **attributes),
        )
        return name

    def round(self, node: Any, index: int, operator: str = "QuantizeLinear") -> str:
        """Put a Q/DQ pair, on the grid of another one, before an input of a node; the name of the Q."""
        grid = list(self.node("QuantizeLinear").input[1:])
        quantized = self.insert(node, operator, [node.input[index], *grid])
        node.input[index] = self.insert(node, "DequantizeLinear", [quantized, *grid])
        return quantized

    def found(self) -> set[tuple[str, str]]:
        """(rule, node) of what the lint says."""
        return {(finding.rule.name, finding.node) for finding in lint(self.model.SerializeToString())}


def conv_and_its_inputs(graph: Graph, name: str = "res16_1a_1") -> tuple[Any, Any, Any]:
    """A convolution, the DequantizeLinear of its pixels and the one of its kernel."""
    conv = graph.node("Conv", name)
    return conv, graph.maker(conv.input[0]), graph.maker(conv.input[1])


# --- one way to break each rule: the broken node's name is returned


def old_opset(graph: Graph) -> str:
    graph.model.opset_import[0].version = 18
    return str(next(n for n in graph.nodes if n.op_type.endswith("QuantizeLinear") or "_dq" in n.name).name)


def new_opset(graph: Graph) -> str:
    graph.model.opset_import[0].version = 21
    return str(graph.nodes[0].name)


def on_integers(graph: Graph) -> str:
    relu = graph.node("Relu", "res16_1_relu")
    made = ["integers", "step", "zero"]
    node = onnx.helper.make_node("DynamicQuantizeLinear", [relu.input[0]], made, "dynamic")
    graph.nodes.insert(list(graph.nodes).index(relu), node)
    return "dynamic"


def any_batch(graph: Graph) -> str:
    graph.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    return str(graph.nodes[0].name)


def transpose_before_cast(graph: Graph) -> str:
    cast, transpose = graph.node("Cast", "pixels"), graph.node("Transpose", "pixels")
    transpose.input[0], cast.input[0] = "pixels", transpose.output[0]
    transpose.output[0], cast.output[0] = cast.input[0], "pixels_swapped"
    graph.node("Sub", "pixels").input[0] = "pixels_swapped"
    graph.nodes.remove(transpose)
    graph.nodes.insert(0, transpose)
    return "pixels_transpose"


def float_pixels(graph: Graph) -> str:
    graph.model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return "pixels_cast"


def asymmetric(graph: Graph) -> set[str]:
    _, dequantize, _ = conv_and_its_inputs(graph, "res16_1b_1")
    quantize = graph.maker(dequantize.input[0])
    for node in (quantize, dequantize):
        graph.put(node, 2, np.int8(-3))
    return {quantize.name, dequantize.name}


def unsigned(graph: Graph) -> set[str]:
    _, dequantize, _ = conv_and_its_inputs(graph, "res16_1b_1")
    quantize = graph.maker(dequantize.input[0])
    for node in (quantize, dequantize):
        graph.put(node, 2, np.uint8(0))
    return {quantize.name, dequantize.name}


def no_zero_point(graph: Graph) -> str:
    _, _, kernel = conv_and_its_inputs(graph)
    del kernel.input[2]
    return str(kernel.name)


def scaled_by(value: float) -> Callable[[Graph], str]:
    def broken(graph: Graph) -> str:
        _, _, kernel = conv_and_its_inputs(graph)
        scales = graph.value(kernel.input[1]).copy()
        scales[1] = value
        graph.put(kernel, 1, scales)
        return str(kernel.name)

    return broken


def computed_scale(graph: Graph) -> str:
    _, _, kernel = conv_and_its_inputs(graph)
    kernel.input[1] = graph.insert(kernel, "Identity", [kernel.input[1]])
    return str(kernel.name)


def single_scale_type(graph: Graph) -> str:
    _, _, kernel = conv_and_its_inputs(graph)
    graph.put(kernel, 1, graph.value(kernel.input[1]).astype(np.float32))
    return str(kernel.name)


def other_axis(graph: Graph) -> str:
    _, _, kernel = conv_and_its_inputs(graph)
    kernel.attribute[0].i = 1
    return str(kernel.name)


def too_few_scales(graph: Graph) -> str:
    _, _, kernel = conv_and_its_inputs(graph)
    for index in (1, 2):
        graph.put(kernel, index, graph.value(kernel.input[index])[:-1])
    return str(kernel.name)


def pixels_by_channel(graph: Graph) -> set[str]:
    _, dequantize, kernel = conv_and_its_inputs(graph, "res16_1b_1")
    quantize = graph.maker(dequantize.input[0])
    for node in (quantize, dequantize):
        node.input[1], node.input[2] = kernel.input[1], kernel.input[2]
    return {quantize.name, dequantize.name}


def other_grid(graph: Graph) -> str:
    _, dequantize, _ = conv_and_its_inputs(graph, "res16_1b_1")
    graph.put(dequantize, 1, graph.value(dequantize.input[1]) * np.float16(2))
    return str(dequantize.name)


def read_as_integers(graph: Graph) -> str:
    _, dequantize, _ = conv_and_its_inputs(graph, "res16_1b_1")
    quantize = graph.maker(dequantize.input[0])
    graph.insert(dequantize, "Identity", [quantize.output[0]])
    return str(quantize.name)


def float_kernel(graph: Graph) -> str:
    conv, _, kernel = conv_and_its_inputs(graph)
    graph.put(conv, 1, graph.value(kernel.input[0]).astype(np.float16))
    graph.nodes.remove(kernel)
    return str(conv.name)


def float_pixels_of_a_layer(graph: Graph) -> str:
    conv, dequantize, _ = conv_and_its_inputs(graph, "res16_1b_1")
    quantize = graph.maker(dequantize.input[0])
    conv.input[0] = quantize.input[0]
    graph.nodes.remove(dequantize)
    graph.nodes.remove(quantize)
    return str(conv.name)


def int32_bias(graph: Graph) -> str:
    conv, _, _ = conv_and_its_inputs(graph)
    count = len(graph.value(conv.input[2]))
    conv.input[2] = graph.insert(conv, "DequantizeLinear", ["", "", ""], axis=0)
    bias = graph.maker(conv.input[2])
    for index, value in enumerate(
        (np.ones(count, np.int32), np.ones(count, "f2"), np.zeros(count, np.int32))
    ):
        graph.put(bias, index, value)
    return str(conv.name)


def single_bias(graph: Graph) -> str:
    conv, _, _ = conv_and_its_inputs(graph)
    graph.put(conv, 2, graph.value(conv.input[2]).astype(np.float32))
    return str(conv.name)


def computed_bias(graph: Graph) -> str:
    conv, _, _ = conv_and_its_inputs(graph)
    conv.input[2] = graph.insert(conv, "Identity", [conv.input[2]])
    return str(conv.name)


def rounded_before_relu(graph: Graph) -> str:
    return graph.round(graph.node("Relu", "res16_1a_relu"), 0)


def rounded_between_add_and_relu(graph: Graph) -> str:
    return graph.round(graph.node("Relu", "res16_1_relu"), 0)


def rounded_layer_of_an_add(graph: Graph) -> str:
    add = graph.node("Add", "res16_1_add")
    graph.round(add, 1)
    return str(add.name)


def float_shortcut(graph: Graph) -> str:
    add = graph.node("Add", "res16_1_add")
    add.input[0] = graph.maker(graph.maker(add.input[0]).input[0]).input[0]
    return str(add.name)


def float32_constant(graph: Graph) -> str:
    graph.put(graph.node("Mul", "pixels_scale"), 1, np.float32(1 / 128))
    return "pixels_scale"


def float32_relu(graph: Graph) -> str:
    relu = graph.node("Relu", "res16_1_relu")
    relu.input[0] = graph.insert(relu, "Cast", [relu.input[0]], to=onnx.TensorProto.FLOAT)
    after = list(graph.nodes)[list(graph.nodes).index(relu) + 1]
    relu.output[0], wanted = "relu_float32", relu.output[0]
    back = onnx.helper.make_node("Cast", ["relu_float32"], [wanted], "back", to=onnx.TensorProto.FLOAT16)
    graph.nodes.insert(list(graph.nodes).index(after), back)
    return str(relu.name)


BREAKS: tuple[tuple[str, Callable[[Graph], str | set[str]]], ...] = (
    ("opset", old_opset),
    ("opset", new_opset),
    ("operators", on_integers),
    ("static-shape", any_batch),
    ("input-order", transpose_before_cast),
    ("input-order", float_pixels),
    ("zero-point", asymmetric),
    ("zero-point", unsigned),
    ("zero-point", no_zero_point),
    ("scale", scaled_by(0)),
    ("scale", scaled_by(-0.25)),
    ("scale", scaled_by(float("inf"))),
    ("scale", scaled_by(float("nan"))),
    ("scale", computed_scale),
    ("scale-type", single_scale_type),
    ("channel-axis", other_axis),
    ("channel-axis", too_few_scales),
    ("channel-axis", pixels_by_channel),
    ("pair", other_grid),
    ("pair", read_as_integers),
    ("whole-layer", float_kernel),
    ("whole-layer", float_pixels_of_a_layer),
    ("bias", int32_bias),
    ("bias", single_bias),
    ("bias", computed_bias),
    ("conv-relu", rounded_before_relu),
    ("conv-relu", rounded_between_add_and_relu),
    ("residual-add", rounded_layer_of_an_add),
    ("residual-add", float_shortcut),
    ("mixed-types", float32_constant),
    ("float-type", float32_relu),
)


@pytest.mark.parametrize(("rule", "broken"), BREAKS)
def test_the_broken_rule_and_node_are_named_and_no_others(
    rule: str, broken: Callable[[Graph], str | set[str]]
) -> None:
    graph = Graph("int8")
    name = broken(graph)
    assert graph.found() == {(rule, one) for one in ({name} if isinstance(name, str) else name)}


def test_every_rule_is_broken_by_a_test_and_has_a_source() -> None:
    assert {name for name, _ in BREAKS} == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.source and rule.text for rule in RULES)
    functions = ast.parse(inspect.getsource(lint_rules)).body
    public = {f.name for f in functions if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")}
    assert {rule.check.__name__ for rule in RULES} == public


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_onnx_file_obeys_them(name: str) -> None:
    bundle = Bundle.open(name)
    files = [a for a in bundle.manifest.artefacts if a.format == "onnx"]
    assert {artefact.precision for artefact in files} == {"int8", "fp16"}
    for artefact in files:
        assert lint(bundle.content(artefact)) == (), artefact.file


def test_a_fresh_fp32_file_obeys_them(detector_bundle: Path, lenet_bundle: Path) -> None:
    for folder in (detector_bundle, lenet_bundle):
        assert lint((folder / "model.fp32.onnx").read_bytes()) == ()


def test_a_reshape_may_stand_inside_a_pair_but_hides_nothing() -> None:
    graph = Graph("int8")
    _, dequantize, _ = conv_and_its_inputs(graph, "res16_1b_1")
    shape = graph.insert(dequantize, "Shape", [dequantize.input[0]])
    dequantize.input[0] = graph.insert(dequantize, "Reshape", [dequantize.input[0], shape])
    assert graph.found() == {("pair", graph.maker(graph.maker(dequantize.input[0]).input[0]).name)}
    graph.put(graph.maker(dequantize.input[0]), 1, np.array([1, 32, 12, 20], np.int64))
    graph.nodes.remove(graph.maker(shape))
    assert graph.found() == set()
    graph.put(dequantize, 1, np.float16(0.5))
    assert graph.found() == {("pair", dequantize.name)}


def test_of_a_file_in_float16_what_is_float32_is_found() -> None:
    graph = Graph("fp16", "cifar10-convnetjs")
    conv = graph.node("Conv")
    graph.put(conv, 1, graph.value(conv.input[1]).astype(np.float32))
    assert graph.found() == {("mixed-types", conv.name)}


def test_the_message_tells_rule_node_source_and_what_to_do() -> None:
    graph = Graph("int8")
    name = other_axis(graph)
    with pytest.raises(LintFailed) as error:
        check(graph.model.SerializeToString(), "model.int8.onnx")
    text = str(error.value)
    assert text.startswith("model.int8.onnx is not what TensorRT asks for")
    assert f"channel-axis: DequantizeLinear '{name}' has 32 scales along axis 1 of (32, 32, 3, 3)" in text
    assert "onnx-tensorrt" in text
    assert "--formats tflite" in text
    assert error.value.exit_code == 1


def test_an_export_that_breaks_a_rule_ends_with_1_and_writes_nothing(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from export import onnx as exporter

    whole = exporter.int8

    def broken(*arguments: Any) -> bytes:
        model = onnx.load_from_string(whole(*arguments))
        kernel = next(node for node in model.graph.node if node.name.endswith("_dq"))
        kernel.attribute[0].i = 1
        return bytes(model.SerializeToString())

    monkeypatch.setattr(exporter, "int8", broken)
    out = tmp_path / "bundle"
    wanted = ("--data", "digits", "--formats", "onnx", "--precisions", "int8", "--limit", "20")
    monkeypatch.setattr(sys, "argv", ["sightline", "export", str(lenet), "--out", str(out), *wanted])
    with pytest.raises(SystemExit) as ended:
        sightline.main()
    assert ended.value.code == 1
    assert "channel-axis" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_page_on_devices_lists_the_rules_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page, re.MULTILINE)
    assert rows == [(rule.name, rule.text) for rule in RULES]
