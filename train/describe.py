"""What a Keras model costs, layer by layer, and how far each layer sees.

The size of an output is (W - F + 2P)/S + 1 for an input of W, a filter of F, P pixels of padding at each end and
a stride of S (the CS231n notes). Where that is no whole number the filter does not fit, and Keras never shows it
the last pixels.

Multiply-accumulates of a convolution (Howard et al. 2017, MobileNets, arXiv 1704.04861, section 3.1):
    H_out * W_out * K_h * K_w * C_in / groups * C_out
Receptive fields by Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural
Networks", distill.pub, doi 10.23915/distill.00021: the interval of input pixels behind the first
output of each layer, and the stride, composed along the graph; where paths join, their union.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from edge.errors import InputError
from train.axis import Axis, Span

if TYPE_CHECKING:
    import keras

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Window:
    """A filter on one axis: of `filter` pixels (its dilation included), moved by `stride` over `size` pixels.

    `padding` is that of both ends together, as SAME padding may differ by a pixel.
    """

    size: int
    filter: int
    padding: int
    stride: int

    @property
    def fits(self) -> bool:
        """Whether the filter reaches the last pixel. One of a single pixel picks some on purpose."""
        return self.filter == 1 or (self.size - self.filter + self.padding) % self.stride == 0

    def __str__(self) -> str:
        """The formula with its numbers."""
        return f"({self.size} - {self.filter} + {self.padding})/{self.stride} + 1"


def output_size(size: int, filter_size: int, padding: int, stride: int) -> int:
    """(W - F + 2P)/S + 1, in pixels; `padding` is that of each end.

    Raises:
        InputError: the filter is larger than the padded input, or does not fit at that stride.
    """
    window = Window(size, filter_size, 2 * padding, stride)
    span = size - filter_size + 2 * padding
    if span < 0:
        raise InputError(
            f"A filter of {filter_size} pixels is larger than the input, {size} + 2*{padding} pixels."
        )
    if span % stride:
        raise InputError(_misfit(window))
    return span // stride + 1


def _misfit(window: Window) -> str:
    span = window.size - window.filter + window.padding
    return (
        f"A filter of {window.filter} pixels at a stride of {window.stride} does not fit an input of {window.size}: "
        f"{window} = {span / window.stride + 1:.2f} is no whole number. {_missing(window)} more pixels of padding "
        "would make it fit, or another stride."
    )


def _missing(window: Window) -> int:
    return -(window.size - window.filter + window.padding) % window.stride


Field = tuple[Axis, Axis]
"""Height and width."""


@dataclass(frozen=True)
class Row:
    """One layer: output shape without the batch, weights, multiply-accumulates, and what it sees.

    `known` is False for a kind whose multiply-accumulates or receptive field have no rule here:
    it then counts as none, and as seeing what its input sees. `windows` are those of height and width,
    of a layer that has a filter or pool and an input of fixed size.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    macs: int
    field: Field
    known: bool
    windows: tuple[Window, ...] = ()

    @property
    def misfit(self) -> str:
        """Which filter or pool does not fit its input, in words; empty where all do."""
        wrong = [window for window in self.windows if not window.fits]
        return f"{self.name}: {_misfit(wrong[0])}" if wrong else ""


@dataclass(frozen=True)
class Description:
    """A whole model.

    Attributes:
        rows: in the order of computation; a layer used twice stands twice, its weights at the first.
        parameters, trainable: weights in all, and those that training changes.
        macs: multiply-accumulates for one picture.
        unknown: kinds of layers that have no rule here, see `Row.known`.
    """

    @property
    def misfits(self) -> tuple[str, ...]:
        """The filters that do not fit. A pool is none of them: it may leave out an odd row."""
        return tuple(row.misfit for row in self.rows if row.misfit and row.kind in _FILTERS)

    @property
    def cut_pools(self) -> tuple[str, ...]:
        """The names of pools that never see the last pixels."""
        return tuple(row.name for row in self.rows if row.misfit and row.kind not in _FILTERS)

    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    macs: int
    unknown: tuple[str, ...]


def describe(model: keras.Model) -> Description:
    """Walk the graph of a functional or sequential model with one picture as input.

    Raises:
        InputError: the model is a subclass, whose layers Keras does not record.
    """
    if graph_of(model) is None:
        raise InputError(
            f"Model '{model.name}' is a {type(model).__name__} without a recorded graph. "
            "Build it with keras.Model(inputs, outputs) or keras.Sequential."
        )
    fields: dict[int, Field] = {id(tensor): (Axis(), Axis()) for tensor in model.inputs}
    shapes: dict[int, Shape] = {id(tensor): tensor.shape for tensor in model.inputs}
    rows = tuple(_rows(model, fields, shapes, set()))
    return Description(
        rows,
        model.count_params(),
        sum(math.prod(weight.shape) for weight in model.trainable_weights),
        sum(row.macs for row in rows),
        tuple(sorted({row.kind for row in rows if not row.known})),
    )


def _rows(model: Any, fields: dict[int, Field], shapes: dict[int, Shape], seen: set[int]) -> Iterator[Row]:
    """The rows of a model whose inputs' fields and shapes are known; fills in those of its outputs."""
    for node in nodes(model):
        layer, inputs = node.operation, node.input_tensors
        if graph_of(layer) is not None:
            for known in (fields, shapes):
                _handed(known, inputs, layer.inputs)
            yield from _rows(layer, fields, shapes, seen)
            for known in (fields, shapes):
                _handed(known, layer.outputs, node.outputs)
            continue
        before = shapes[id(inputs[0])]
        after = _shapes_after(node, shapes)
        joined = _joined([fields[id(tensor)] for tensor in inputs])
        field = _field_after(layer, joined, before, after[0])
        yield _row(layer, before, after[0], field, seen)
        for tensor, shape in zip(node.outputs, after, strict=True):
            fields[id(tensor)], shapes[id(tensor)] = field, shape


def _handed(known: dict[int, Any], given: list[Any], taken: list[Any]) -> None:
    """What is known of a nested model's tensors is that of those outside, and the other way round."""
    for one, other in zip(given, taken, strict=True):
        known[id(other)] = known[id(one)]


def _shapes_after(node: Any, shapes: dict[int, Shape]) -> list[Shape]:
    """Of a call's outputs. A nested model may have been built for any size, and is called with a fixed one."""
    import keras

    inputs = node.input_tensors
    if all(shapes[id(tensor)] == tensor.shape for tensor in inputs):
        return [tensor.shape for tensor in node.outputs]
    fixed = {id(tensor): keras.KerasTensor(shapes[id(tensor)], tensor.dtype) for tensor in inputs}
    args, kwargs = node.arguments.fill_in(fixed)
    return [
        output.shape for output in keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
    ]


def graph_of(model: Any) -> dict[int, list[Any]] | None:
    """A model's calls of layers by depth, the output's being 0; None for a plain layer.

    Keras 3 has no public way to walk a graph by call; these two attributes are its own.
    """
    graph: dict[int, list[Any]] | None = getattr(
        getattr(model, "_functional", None) or model, "_nodes_by_depth", None
    )
    return graph


def nodes(model: Any) -> Iterator[Any]:
    """The calls in the order of computation, without the inputs."""
    graph = graph_of(model) or {}
    for depth in sorted(graph, reverse=True):
        yield from (node for node in graph[depth] if not node.is_input)


def _row(layer: Any, before: Shape, after: Shape, field: Field, seen: set[int]) -> Row:
    kind = type(layer).__name__
    weights = 0 if id(layer) in seen or not hasattr(layer, "count_params") else layer.count_params()
    seen.add(id(layer))
    macs = _MACS[kind](layer, before, after) if kind in _MACS else 0
    placed = field[0].whole or kind in _PLACED or before[1:-1] == after[1:-1]
    known = placed and (kind in _MACS or not weights)
    return Row(layer.name, kind, tuple(after[1:]), weights, macs, field, known, _windows(layer, before))


# -- multiply-accumulates -------------------------------------------------------------------------


def _conv_macs(layer: Any, before: Shape, after: Shape) -> int:
    """The kernel's size is K_h * K_w * C_in / groups * C_out already."""
    return _positions(layer, after) * _product(layer.kernel.shape)


def _separable_macs(layer: Any, before: Shape, after: Shape) -> int:
    kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
    return _positions(layer, after) * sum(_product(kernel.shape) for kernel in kernels)


def _dense_macs(layer: Any, before: Shape, after: Shape) -> int:
    return _product(after[1:-1]) * _product(layer.kernel.shape)


def _positions(layer: Any, shape: Shape) -> int:
    return _product(shape[1:-1] if layer.data_format == "channels_last" else shape[2:])


def _product(sizes: Shape) -> int:
    """Sizes that are not fixed count as one."""
    return math.prod(size or 1 for size in sizes)


_MACS: dict[str, Callable[[Any, Shape, Shape], int]] = {
    "Conv2D": _conv_macs,
    "DepthwiseConv2D": _conv_macs,
    "SeparableConv2D": _separable_macs,
    "Dense": _dense_macs,
    # Folded into the convolution before it when the model is exported.
    "BatchNormalization": lambda layer, before, after: 0,
    # Part of a keras.applications model's preprocessing: once a pixel, no kernel.
    "Normalization": lambda layer, before, after: 0,
}

# -- receptive fields -----------------------------------------------------------------------------

_FILTERS = frozenset({"Conv2D", "DepthwiseConv2D", "SeparableConv2D"})
_WINDOWED = _FILTERS | {"MaxPooling2D", "AveragePooling2D"}
_WHOLE = frozenset({"Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D"})
_PLACED = _WINDOWED | _WHOLE | {"ZeroPadding2D", "Cropping2D", "UpSampling2D"}


def _field_after(layer: Any, field: Field, before: Shape, after: Shape) -> Field:
    kind = type(layer).__name__
    if kind in _WHOLE:
        return _each(field, lambda axis, _: replace(axis, whole=True))
    if kind in _WINDOWED:
        sizes = _sizes(layer, before)
        return _each(field, lambda axis, i: _windowed(axis, layer, i, sizes[i]))
    if kind == "ZeroPadding2D":
        return _each(field, lambda axis, i: axis.through(1, 1, layer.padding[i][0]))
    if kind == "Cropping2D":
        return _each(field, lambda axis, i: axis.through(1, 1, -layer.cropping[i][0]))
    if kind == "UpSampling2D":
        return _each(field, lambda axis, i: _upsampled(axis, layer.size[i], layer.interpolation))
    return field


def _windowed(axis: Axis, layer: Any, index: int, size: int | None) -> Axis:
    kernel, stride, dilation = _filter(layer, index)
    padding = _same_padding(size, dilation * (kernel - 1) + 1, stride) if layer.padding == "same" else 0
    return axis.through(kernel, stride, padding, dilation)


def _upsampled(axis: Axis, times: int, interpolation: str) -> Axis:
    if interpolation == "nearest":
        return axis.read(lambda k: (k // times, k // times), Fraction(1, times))
    reach = _REACH[interpolation]

    def seen(k: int) -> Span:
        # Output k's centre lies at (k + 1/2) / times - 1/2; upon a pixel's own it is that pixel alone.
        before, beside = divmod(2 * k + 1 - times, 2 * times)
        return (before - reach + 1, before + reach) if beside else (before, before)

    return axis.read(seen, Fraction(1, times))


_REACH = {"bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}
"""Pixels to either side that an interpolation weighs."""


def _filter(layer: Any, index: int) -> tuple[int, int, int]:
    """Taps, stride and dilation along one axis."""
    window = getattr(layer, "kernel_size", None) or layer.pool_size
    return window[index], layer.strides[index], getattr(layer, "dilation_rate", (1, 1))[index]


def _sizes(layer: Any, shape: Shape) -> Shape:
    return shape[1:3] if layer.data_format == "channels_last" else shape[2:4]


def _windows(layer: Any, before: Shape) -> tuple[Window, ...]:
    if type(layer).__name__ not in _WINDOWED:
        return ()
    windows = []
    for index, size in enumerate(_sizes(layer, before)):
        if size is None:
            return ()
        kernel, stride, dilation = _filter(layer, index)
        extent, padding = dilation * (kernel - 1) + 1, 0
        if layer.padding == "same":
            padding = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        windows.append(Window(size, extent, padding, stride))
    return tuple(windows)


def _same_padding(size: int | None, extent: int, stride: int) -> int:
    """Pixels before the first under SAME padding; an open size counts as a multiple of the stride."""
    rest = (size or stride) % stride or stride
    return max(extent - rest, 0) // 2


def _each(field: Field, change: Callable[[Axis, int], Axis]) -> Field:
    return change(field[0], 0), change(field[1], 1)


def _joined(fields: list[Field]) -> Field:
    height, width = fields[0]
    for other in fields[1:]:
        height, width = height.joined(other[0]), width.joined(other[1])
    return height, width
