"""Does an ONNX file obey what TensorRT asks of one? Each rule with where NVIDIA states it.

NVIDIA's parser refuses some of these graphs; others it takes, and builds an engine that is slow or
rounds elsewhere than it was calibrated. So every ONNX file is held against the rules before it is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edge.errors import CheckFailed
from export import lint_rules as rules
from export.lint_graph import OnnxView

PARSER = "onnx-tensorrt, QuantDequantLinearHelper in onnxOpImporters.cpp at 10.1-GA"
OPERATORS = "onnx-tensorrt, docs/operators.md at 10.1-GA"
EXPLICIT = "NVIDIA TensorRT developer guide, Working with Quantized Types, Explicit Quantization"
STRONG = "NVIDIA TensorRT developer guide, Strongly Typed Networks"
SHAPES = "NVIDIA TensorRT developer guide, Working with Dynamic Shapes: else an optimization profile"
MODELOPT = "nvidia-modelopt 0.47, onnx/quantization/int8.py and ort_utils.py"

Check = Callable[[OnnxView], Iterator[tuple[Any, str]]]
"""Yields each node that breaks the rule, with what is wrong with it."""


class LintFailed(CheckFailed):
    """An ONNX file breaks a rule of TensorRT's."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: what it asks for, in one line.
        source: where NVIDIA states it, or what showed it.
    """

    name: str
    check: Check
    text: str
    source: str


@dataclass(frozen=True)
class Finding:
    """One node that breaks a rule; `node` is its name, or its output's where it has none."""

    rule: Rule
    operator: str
    node: str
    detail: str

    def __str__(self) -> str:
        where = f"{self.operator} '{self.node}'"
        return f"{self.rule.name}: {where} {self.detail}; {self.rule.text} ({self.rule.source})"


RULES = (
    Rule("opset", rules.opset, "opset 9 to 20, and 19 at least for float16 Q/DQ", OPERATORS),
    Rule("operators", rules.operators, "Q/DQ pairs and no operator that computes on integers", OPERATORS),
    Rule("static-shape", rules.static_shape, "inputs and heads have fixed sizes, batch 1", SHAPES),
    Rule("input-order", rules.input_order, "uint8 pixels go into a Cast, and from there on", OPERATORS),
    Rule("zero-point", rules.zero_point, "int8 with zero-point 0", PARSER),
    Rule("scale", rules.scale, "scales are constants, finite and above zero", PARSER),
    Rule("scale-type", rules.scale_type, "a scale has the network's own float type", STRONG),
    Rule("channel-axis", rules.channel_axis, "one scale, or one for each output channel of a kernel", PARSER),
    Rule("pair", rules.pair, "QuantizeLinear is read by DequantizeLinear alone, on the same grid", EXPLICIT),
    Rule("whole-layer", rules.whole_layer, "a layer's pixels and kernel are int8, or neither is", EXPLICIT),
    Rule("bias", rules.bias, "biases are constants of the network's float type", PARSER),
    Rule("conv-relu", rules.conv_relu, "nothing is rounded between a layer and its ReLU or Clip", EXPLICIT),
    Rule("residual-add", rules.residual_add, "an addition rounds the shortcut, not the layer", MODELOPT),
    Rule("mixed-types", rules.mixed_types, "the inputs of a node have one float type", STRONG),
    Rule("float-type", rules.float_type, "what is not int8 computes in float16 next to int8", STRONG),
)
"""In the order in which they are told; names are stable."""


def lint(content: bytes) -> tuple[Finding, ...]:
    """What is wrong with an ONNX file for TensorRT; nothing where it obeys all rules.

    Args:
        content: a whole file that ONNX's own checker accepts.
    """
    view = OnnxView.read(content)
    return tuple(
        Finding(rule, node.op_type, node.name or node.output[0], detail)
        for rule in RULES
        for node, detail in rule.check(view)
    )


def check(content: bytes, name: str) -> None:
    """Raises LintFailed, with every rule, node and source, where the file `name` breaks one."""
    if found := lint(content):
        listed = "\n  ".join(map(str, found))
        raise LintFailed(
            f"{name} is not what TensorRT asks for, so it was not packed:\n  {listed}\n"
            "Likely a layer of this model that the export to ONNX does not know well. Replace it, or export "
            "TFLite only: --formats tflite"
        )
