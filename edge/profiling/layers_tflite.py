"""What a .tflite file says of its operations, and which of them a step of LiteRT's profiler was.

XNNPACK reports its own operators ("Convolution (NHWC, QC8) IGEMM"), numbered within a part of the graph,
without the operations they came from. But it keeps their order: so the parts are formed here as TFLite
forms them, and the operators are laid along the operations of their part.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from edge.errors import MissingPackageError
from edge.profiling.layers_report import Layer, Operation, keras_layers, middle_mean

DELEGATE_OPERATOR = 8

HALF_MICROSECOND = 0.5
"""The mean of what rounding down to whole microseconds takes away."""

NOT_MAPPED = (
    "A part of the graph could not be laid along XNNPACK's operators: these bear XNNPACK's names alone."
)

KERNELS: Mapping[str, tuple[str, ...]] = {
    "CONV_2D": ("Convolution", "Fully Connected"),  # 1x1 convolutions become matrix products
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "FULLY_CONNECTED": ("Fully Connected",),
    "BATCH_MATMUL": ("Batch Matrix Multiply",),
    "MAX_POOL_2D": ("Max Pooling",),
    "AVERAGE_POOL_2D": ("Average Pooling",),
    "MEAN": ("Mean", "Global Average Pooling", "Average Pooling", "Sum", "Reduce"),
    "ADD": ("Add",),
    "SUB": ("Subtract",),
    "MUL": ("Multiply",),
    "DIV": ("Divide",),
    "MAXIMUM": ("Maximum",),
    "MINIMUM": ("Minimum",),
    "PRELU": ("PReLU",),
    "LEAKY_RELU": ("LeakyReLU", "Leaky ReLU"),
    "ELU": ("ELU",),
    "GELU": ("GELU", "ApproxGELU"),
    "ABS": ("Abs",),
    "EXP": ("Exp",),
    "RSQRT": ("Reciprocal Square Root",),
    "SLICE": ("Slice",),
    "STRIDED_SLICE": ("Slice",),
    "DEPTH_TO_SPACE": ("Depth To Space",),
    "HARD_SWISH": ("HardSwish",),
    "LOGISTIC": ("Sigmoid",),
    "TANH": ("Tanh",),
    "SOFTMAX": ("Softmax",),
    "RESIZE_BILINEAR": ("Resize Bilinear",),
    "TRANSPOSE": ("Transpose",),
    "CONCATENATION": ("Concatenate", "Copy"),
    "PAD": ("Constant Pad",),
    "RESHAPE": ("Static Reshape", "Reshape", "Copy"),
    "SQUEEZE": ("Static Reshape", "Reshape", "Copy"),
    "EXPAND_DIMS": ("Static Expand Dims", "Static Reshape", "Copy"),
    "QUANTIZE": ("Convert",),
    "DEQUANTIZE": ("Convert",),
    "RELU": ("Clamp",),
    "RELU6": ("Clamp",),
}
"""How XNNPACK's names for an operation's operator begin (src/operator-utils.c and xnnpack_delegate.cc)."""

MAY_VANISH = frozenset(
    {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PAD", "QUANTIZE", "DEQUANTIZE", "RELU", "RELU6", "CONCATENATION"}
)
"""Operations that may have no operator of their own: views, and what is fused into a neighbour."""


ITEM_BYTES = {
    "FLOAT32": 4,
    "INT32": 4,
    "FLOAT16": 2,
    "INT16": 2,
    "INT8": 1,
    "UINT8": 1,
    "INT64": 8,
    "BOOL": 1,
}


@dataclass(frozen=True)
class TfliteOperation:
    """An operation with the tensors that it needs from others and makes for others."""

    operation: Operation
    needs: tuple[int, ...]
    makes: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """What the profiler saw of one operator over all runs.

    Attributes:
        tag: LiteRT's name for it.
        event_type: of an operation of the graph, or of a delegate's operator.
        index: of the operation in the graph, or of the operator in its part.
        elapsed_us: run by run, whole microseconds.
    """

    tag: str
    event_type: int
    index: int
    elapsed_us: tuple[int, ...]

    @property
    def ms(self) -> float:
        """The middle of the runs."""
        return (middle_mean(self.elapsed_us) + HALF_MICROSECOND) / 1e3


def operations(content: bytes) -> list[TfliteOperation]:
    """Of the main graph, in order; raises MissingPackageError where the schema's reader is missing."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingPackageError("ai-edge-litert", "", "Reading the layers of a .tflite file") from error
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    kinds = _names_of(schema.BuiltinOperator)
    return [
        _operation(model, graph, graph.Operators(index), kinds) for index in range(graph.OperatorsLength())
    ]


def layers_of(
    steps: Sequence[Step], graph: Sequence[TfliteOperation]
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers that the steps make up, in the order in which they ran, and what must be said of them."""
    groups = list(_groups(steps))
    alone = {group[0].index for group in groups if group[0].event_type != DELEGATE_OPERATOR}
    parts = iter(partitions(graph, alone))
    layers: list[Layer] = []
    for group in groups:
        if group[0].event_type == DELEGATE_OPERATOR:
            layers += _part(group, next(parts, []), graph)
        else:
            layers.append(_layer(group, graph[group[0].index].operation))
    return tuple(layers), (NOT_MAPPED,) if any(layer.macs is None for layer in layers) else ()


def partitions(graph: Sequence[TfliteOperation], alone: Collection[int]) -> list[list[int]]:
    """The parts that a delegate takes, given the operations that it leaves alone.

    As TFLite's graph_info.cc does it: go through the operations in order and take all of one kind
    (the delegate's, or the others) whose inputs are there; then again, for the other kind.
    """
    missing = {tensor for operation in graph for tensor in operation.makes}
    waiting = list(range(len(graph)))
    parts = []
    while waiting:
        taken: list[int] = []
        for index in waiting:
            same = not taken or (index in alone) == (taken[0] in alone)
            if same and missing.isdisjoint(graph[index].needs):
                taken.append(index)
                missing.difference_update(graph[index].makes)
        waiting = [index for index in waiting if index not in set(taken)]
        if not taken:
            break  # a file with a cycle: LiteRT would have refused it
        if taken[0] not in alone:
            parts.append(taken)
    return parts


def align(tags: Sequence[str], kinds: Sequence[str]) -> list[int] | None:
    """For each operator the position of its operation; None where the two do not fit.

    An operator that starts like the next operation's opens it; any other belongs to the operation
    before it, as the clamp of an addition with ReLU does.
    """
    found: list[int] = []
    position = -1
    for tag in tags:
        following = _next_match(tag, kinds, position + 1)
        if following is not None:
            position = following
        elif position < 0:
            return None
        found.append(position)
    skipped = [kind for index, kind in enumerate(kinds) if index not in set(found)]
    return found if all(kind in MAY_VANISH for kind in skipped) else None


def _next_match(tag: str, kinds: Sequence[str], start: int) -> int | None:
    """The next operation that a tag can stand for, passing over those that may vanish."""
    for index in range(start, len(kinds)):
        if tag.startswith(KERNELS.get(kinds[index], ("\0",))):
            return index
        if kinds[index] not in MAY_VANISH:
            return None
    return None


def _groups(steps: Iterable[Step]) -> Iterable[list[Step]]:
    """Each operation of the graph by itself; the operators of one part of the graph together."""
    group: list[Step] = []
    for step in steps:
        continues = step.event_type == DELEGATE_OPERATOR and step.index > 0
        if group and not continues:
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def _part(group: Sequence[Step], part: Sequence[int], graph: Sequence[TfliteOperation]) -> list[Layer]:
    """The layers of one part: each operation with its operators; or the operators alone."""
    laid = align([step.tag for step in group], [graph[index].operation.kind for index in part])
    if laid is None:
        return [_layer([step], None) for step in group]
    return [
        _layer(
            [step for step, at in zip(group, laid, strict=True) if at == position],
            graph[part[position]].operation,
        )
        for position in dict.fromkeys(laid)
    ]


def _layer(steps: Sequence[Step], operation: Operation | None) -> Layer:
    kernel = " + ".join(step.tag for step in steps)
    ms = sum(step.ms for step in steps)
    if operation is None:
        return Layer(name=kernel, kernel=kernel, keras=(), ms=ms)
    return Layer(operation.name, kernel, operation.keras, ms, operation.macs, operation.bytes)


@cache
def _names_of(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _operation(model: Any, graph: Any, operator: Any, kinds: Mapping[int, str]) -> TfliteOperation:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Old files keep small codes in the deprecated field alone.
    kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?")
    inputs = [int(i) for i in operator.InputsAsNumpy() if i >= 0]
    outputs = [int(i) for i in operator.OutputsAsNumpy()]
    shapes = [_shape(graph.Tensors(i)) for i in (*inputs, *outputs)]
    name = _name(graph.Tensors(outputs[0]))
    stated = Operation(
        name=name,
        kind=kind,
        # The heads are named after the exporter's function; their weights still bear the layer's name.
        keras=tuple(reversed(keras_layers(name)))  # the last of a fusion stands first in its name
        or keras_layers(*(_name(graph.Tensors(i)) for i in inputs[1:])),
        macs=_macs(kind, shapes[: len(inputs)], shapes[len(inputs)]),
        bytes=sum(_bytes(graph.Tensors(i)) for i in (*inputs, *outputs)),
    )
    return TfliteOperation(stated, tuple(inputs), tuple(outputs))


def _macs(kind: str, inputs: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """NHWC; kernels (out, kh, kw, in), of depthwise convolutions (1, kh, kw, channels)."""
    if kind in ("CONV_2D", "FULLY_CONNECTED"):
        return math.prod(output) * math.prod(inputs[1][1:])
    if kind == "DEPTHWISE_CONV_2D":
        return math.prod(output) * math.prod(inputs[1][1:3])
    if kind == "TRANSPOSE_CONV":  # inputs: output shape, kernel (out, kh, kw, in), pixels
        return math.prod(inputs[2]) * math.prod(inputs[1][:3])
    if kind == "BATCH_MATMUL":
        return math.prod(output) * inputs[0][-1]
    return 0


def _name(tensor: Any) -> str:
    return str(tensor.Name().decode(errors="replace"))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()


def _bytes(tensor: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    return math.prod(_shape(tensor)) * ITEM_BYTES.get(_names_of(schema.TensorType)[tensor.Type()], 4)
