"""The rules of `export.lint`, one function each: they yield the nodes that break it, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from export.lint_graph import DEQUANTIZE, QUANTIZE, OnnxView, attribute

Found = Iterator[tuple[Any, str]]

OPSETS = range(9, 21)
"""What TensorRT 10.3, the oldest of ours, parses."""

OPSET_HALF_QDQ = 19
ON_INTEGERS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED = (*WEIGHTED, "BatchNormalization", "Add")
"""What TensorRT computes in one kernel with the ReLU or Clip behind it."""

COMPUTING = (*FUSED, "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool")
BIASED = ("Conv", "ConvTranspose", "Gemm")


def opset(view: OnnxView) -> Found:
    """The first node stands for the file; the first float16 Q/DQ for its pairs."""
    if view.opset not in OPSETS:
        yield view.nodes[0], f"begins a file of opset {view.opset}"
    half = [n for n in view.of_type(QUANTIZE, DEQUANTIZE) if view.floats(n.input[1]) == {np.dtype("f2")}]
    if half and view.opset < OPSET_HALF_QDQ:
        yield half[0], f"has a float16 scale in opset {view.opset}"


def operators(view: OnnxView) -> Found:
    for node in view.of_type(*ON_INTEGERS):
        yield node, "is an operator that TensorRT does not parse"


def static_shape(view: OnnxView) -> Found:
    for name, (_, sizes) in view.inputs.items():
        if (0 in sizes or sizes[:1] != (1,)) and view.readers.get(name):
            yield view.readers[name][0], f"reads the input {name} of sizes {sizes}, where 0 is not fixed"
    for name, (_, sizes) in view.outputs.items():
        if 0 in sizes and name in view.maker:
            yield view.maker[name], f"gives the head {name} of sizes {sizes}, where 0 is not fixed"


def input_order(view: OnnxView) -> Found:
    for name, (dtype, _) in view.inputs.items():
        for node in view.readers.get(name, []):
            if dtype != np.uint8:
                yield node, f"reads the input {name} as {dtype}, not uint8"
            elif node.op_type != "Cast":
                yield node, f"reads the uint8 input {name}"


def zero_point(view: OnnxView) -> Found:
    for node in view.of_type(QUANTIZE, DEQUANTIZE):
        integers = node.output[0] if node.op_type == QUANTIZE else node.input[0]
        if node.op_type == DEQUANTIZE and view.dtypes.get(integers) == np.int32:
            continue  # a quantized bias, which has a rule of its own
        zeros = view.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zeros is None:
            yield node, "has no constant zero-point"
        elif zeros.dtype != np.int8 or zeros.any():
            yield node, f"has the {zeros.dtype} zero-point {_largest(zeros)}"


def scale(view: OnnxView) -> Found:
    for node in view.of_type(QUANTIZE, DEQUANTIZE):
        values = view.constants.get(node.input[1])
        if values is None:
            yield node, "has a scale that is no constant"
        elif not (np.isfinite(values) & (values > 0)).all():
            yield node, f"has the scale {values[~(np.isfinite(values) & (values > 0))].flat[0]}"


def scale_type(view: OnnxView) -> Found:
    for node in view.of_type(QUANTIZE, DEQUANTIZE):
        if other := view.floats(node.input[1]) - {view.body}:
            yield node, f"has a scale of {other.pop()} in a network of {view.body}"


def channel_axis(view: OnnxView) -> Found:
    for node in view.of_type(QUANTIZE, DEQUANTIZE):
        scales, kernel = view.constants.get(node.input[1]), _kernel(view, node)
        if scales is None or scales.size == 1 or (kernel is not None and kernel.dtype == np.int32):
            continue
        axis = attribute(node, "axis", 1)
        if kernel is None:
            yield node, f"rounds what is no constant with {scales.size} scales"
        elif axis not in _axes(view, node) or kernel.shape[axis] != scales.size:
            yield node, f"has {scales.size} scales along axis {axis} of {kernel.shape}"


def pair(view: OnnxView) -> Found:
    for node in view.of_type(QUANTIZE):
        readers = view.users(node.output[0])
        if node.output[0] in view.outputs or not readers:
            yield node, "is not dequantized"
        for reader in readers:
            if reader.op_type != DEQUANTIZE:
                yield node, f"is read by {reader.op_type} '{reader.name}'"
            elif not _same_grid(view, node, reader):
                yield reader, f"is on another grid than {QUANTIZE} '{node.name}'"
    for node in view.of_type(DEQUANTIZE):
        source = view.origin(node.input[0])
        if source not in view.constants and view.made_by(source, QUANTIZE) is None:
            yield node, "dequantizes what nothing has quantized"


def whole_layer(view: OnnxView) -> Found:
    for node in view.of_type(*WEIGHTED):
        pixels, kernel = map(view.quantized, node.input[:2])
        if pixels != kernel:
            yield node, f"has an int8 {'input and a float kernel' if pixels else 'kernel and a float input'}"


def bias(view: OnnxView) -> Found:
    for node in view.of_type(*BIASED):
        name = node.input[2] if len(node.input) > 2 else ""
        if name and view.quantized(name):
            yield node, "has a bias that is dequantized"
        elif name and view.constants.get(name) is None:
            yield node, "has a bias that is no constant"
        elif name and view.constants[name].dtype != view.body:
            yield node, f"has a bias of {view.constants[name].dtype} in a network of {view.body}"


def conv_relu(view: OnnxView) -> Found:
    for node in view.of_type("Relu", "Clip"):
        rounding = view.rounding(node.input[0])
        if rounding is not None and (layer := view.made_by(rounding.input[0], *FUSED)) is not None:
            yield rounding, f"stands between {layer.op_type} '{layer.name}' and {node.op_type} '{node.name}'"


def residual_add(view: OnnxView) -> Found:
    """Only where a layer can be fused with the addition: its output goes nowhere else."""
    for node in view.of_type("Add"):
        raw = [name for name in node.input if _lone_layer(view, name)]
        rounded = [name for name in node.input if _lone_layer(view, _before(view, name))]
        if rounded and not raw:
            yield node, "rounds the layer that it could be fused with"
        for layer in raw:
            others = [name for name in node.input if name != layer]
            int8 = view.quantized(_layer(view, layer).input[0])
            if int8 and not any(view.quantized(name) or name in view.constants for name in others):
                yield node, "reads its shortcut in float beside an int8 layer"


def mixed_types(view: OnnxView) -> Found:
    """What comes from a DequantizeLinear, and a bias, have rules of their own."""
    for node in view.nodes:
        if node.op_type in (QUANTIZE, DEQUANTIZE, "Resize"):
            continue
        inputs = node.input[:2] if node.op_type in BIASED else node.input
        found = view.floats(*(name for name in inputs if not view.quantized(name)))
        if len(found) > 1:
            yield node, f"reads {' and '.join(sorted(map(str, found)))}"


def float_type(view: OnnxView) -> Found:
    for node in view.of_type(*COMPUTING):
        found = view.floats(*(name for name in node.input[:1] if not view.quantized(name)))
        if found and found != {view.body}:
            yield node, f"computes in {found.pop()} in a network of {view.body}"


def _largest(zeros: Any) -> int:
    return int(zeros.flat[np.abs(zeros.astype(np.int64)).argmax()])


def _kernel(view: OnnxView, node: Any) -> Any:
    """The constant that a node of a pair, or the single DequantizeLinear of a kernel, works on; else None."""
    rounding = view.made_by(view.origin(node.input[0]), QUANTIZE)
    return view.constants.get(node.input[0] if rounding is None else rounding.input[0])


def _axes(view: OnnxView, node: Any) -> set[int]:
    """The axis of the output channels in the kernel that the node rounds, as its readers count it."""
    after = view.readers.get(node.output[0], [])
    layers = [
        n for reader in after for n in ([reader] if node.op_type == DEQUANTIZE else _next(view, reader))
    ]
    return {_output_axis(layer) for layer in layers if layer.op_type in WEIGHTED}


def _next(view: OnnxView, node: Any) -> list[Any]:
    return view.readers.get(node.output[0], [])


def _output_axis(layer: Any) -> int:
    if layer.op_type == "Gemm":
        return 0 if attribute(layer, "transB", 0) else 1
    return 0 if layer.op_type == "Conv" else 1


def _same_grid(view: OnnxView, one: Any, other: Any) -> bool:
    grids = [[view.constants.get(name) for name in node.input[1:3]] for node in (one, other)]
    return all(
        a is not None and b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(*grids, strict=False)
    )


def _before(view: OnnxView, tensor: str) -> str:
    """What a Q/DQ pair rounds, where nothing else reads the rounded tensor; else the empty name."""
    rounding = view.rounding(tensor)
    if rounding is None or len(view.readers[tensor]) != 1 or len(view.readers[rounding.output[0]]) != 1:
        return ""
    return str(rounding.input[0])


def _lone_layer(view: OnnxView, tensor: str) -> bool:
    read_once = len(view.readers[tensor]) == 1 and tensor not in view.outputs
    return read_once and _layer(view, tensor) is not None


def _layer(view: OnnxView, tensor: str) -> Any:
    """The layer with weights that makes a tensor, alone or with a bias added by a node of its own; else None."""
    addition = view.made_by(tensor, "Add")
    computed = [] if addition is None else [name for name in addition.input if name not in view.constants]
    if len(computed) == 1 and len(view.readers[computed[0]]) == 1:
        tensor = computed[0]
    return view.made_by(tensor, *WEIGHTED)
