"""Time by layer on ONNX Runtime, by its own profiler, and what the ONNX graph says of each node."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import Bundle, Precision
from edge.errors import MissingPackageError
from edge.profiling.layers_onnx_overhead import overhead_ms
from edge.profiling.layers_report import Layer, LayerReport, Operation, keras_layers, middle_mean
from edge.runners.onnx import OnnxRunner

WARM_UP_RUNS = 5
METHOD = "ONNX Runtime's profiler"
NO_ONNX = "MACs and some names are missing: the package 'onnx' is not installed (pip install onnx)."
TAKEN_OFF = (
    "{:.1f} microseconds were taken off each node: what ONNX Runtime's profiler itself adds, measured on a "
    "chain of nodes that do nothing."
)

_SUFFIX = re.compile(r"(_kernel_time|_nchwc|_token_\d+|/duplicated|:0)+$")
"""What ONNX Runtime appends to the names of nodes it has changed, and to every event's."""

_MULTIPLIES = re.compile("Conv|Gemm|MatMul")


@dataclass(frozen=True)
class OnnxGraph:
    """The nodes of an ONNX file, found by their own names or those of their outputs.

    Attributes:
        operations: by node name and by output name.
        producers: by node or output name, the name of its first input that another node makes.
    """

    operations: Mapping[str, Operation]
    producers: Mapping[str, str]

    @classmethod
    def of(cls, content: bytes) -> OnnxGraph:
        """Of a model with static shapes.

        Raises:
            MissingPackageError: no package onnx.
        """
        try:
            import onnx
        except ImportError as error:
            raise MissingPackageError("onnx", "export", "Reading the layers of an ONNX file") from error
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
        tensors = _tensors(graph)
        made = {output for node in graph.node for output in node.output}
        operations: dict[str, Operation] = {}
        producers = {}
        for node in graph.node:
            before = next((name for name in node.input if name in made), "")
            for key in (node.name, *node.output):
                operations[key] = _operation(node, tensors)
                producers[key] = before
        return cls(operations, producers)

    def find(self, name: str) -> str:
        """The key of the node that an event of a runtime belongs to; empty where there is none."""
        plain = _SUFFIX.sub("", name)
        candidates = (plain, f"{plain}:0", plain.removeprefix("InsertedPrecisionFreeCast_"))
        return next((key for key in candidates if key in self.operations), "")

    def macs(self, key: str) -> int:
        """Of a node, or of the one before it when it stands for a fusion that ends with an activation."""
        while key and not self.operations[key].macs:
            key = self.producers[key]
        return self.operations[key].macs if key else 0

    def keras(self, key: str) -> tuple[str, ...]:
        """The Keras layer of a node, or of the nearest one before it that still bears a name."""
        while key and not self.operations[key].keras:
            key = self.producers[key]
        return self.operations[key].keras if key else ()


def profile(bundle: Bundle, precision: Precision, runs: int, threads: int) -> LayerReport:
    """Run two sessions in turn, one with the profiler and one without."""
    pixels = random_pixels(bundle)
    with tempfile.TemporaryDirectory() as folder:
        plain = OnnxRunner(bundle, precision, threads)
        profiled = OnnxRunner(bundle, precision, threads, profile_prefix=f"{folder}/ort")
        whole, slowed = timed_in_turn((plain.infer, profiled.infer), pixels, runs)
        events = json.loads(Path(profiled.end_profiling()).read_bytes())
        plain.close()
        profiled.close()
    graph, notes = read_graph(bundle.content(bundle.artefact("onnx", precision)))
    layers = _layers(events, graph, runs)
    if graph.operations:
        overhead = overhead_ms()
        layers = tuple(replace(layer, ms=max(0.0, layer.ms - overhead)) for layer in layers)
        notes = (*notes, TAKEN_OFF.format(overhead * 1e3))
    return LayerReport(
        backend="onnx",
        precision=precision,
        method=METHOD,
        runs=runs,
        threads=threads,
        whole_ms=whole,
        profiled_ms=slowed,
        layers=layers,
        notes=notes,
    )


def timed_in_turn(
    functions: Sequence[Any], argument: Any, runs: int, warm_up: int = WARM_UP_RUNS
) -> list[float]:
    """Median milliseconds of each function; they take turns, so that a disturbance meets all of them."""
    rows = []
    for _ in range(warm_up + runs):
        row = []
        for function in functions:
            begin_ns = time.perf_counter_ns()
            function(argument)
            row.append((time.perf_counter_ns() - begin_ns) / 1e6)
        rows.append(row)
    return [float(value) for value in np.median(rows[warm_up:], axis=0)]


def random_pixels(bundle: Bundle) -> Any:
    """uint8 (1, H, W, 3) of the model's size, the same at every call."""
    spec = bundle.manifest.input
    return np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)


def read_graph(content: bytes) -> tuple[OnnxGraph, tuple[str, ...]]:
    """The graph, or an empty one and a note where the package onnx is missing."""
    try:
        return OnnxGraph.of(content), ()
    except MissingPackageError:
        return OnnxGraph({}, {}), (NO_ONNX,)


def _layers(events: Sequence[Mapping[str, Any]], graph: OnnxGraph, runs: int) -> tuple[Layer, ...]:
    """One for each node that ran, from its last `runs` events (microseconds)."""
    by_name = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by_name[event["name"]].append(event)
    return tuple(_layer(found[-runs:], graph) for found in by_name.values())


def _layer(events: Sequence[Mapping[str, Any]], graph: OnnxGraph) -> Layer:
    name, facts = events[0]["name"].removesuffix("_kernel_time"), events[0]["args"]
    kernel, key = facts["op_name"], graph.find(events[0]["name"])
    # The traffic is the runtime's own count: it knows which float type it has chosen for a tensor.
    traffic = sum(int(facts.get(part, 0)) for part in ("parameter_size", "activation_size", "output_size"))
    return Layer(
        name=name,
        kernel=kernel,
        keras=keras_layers(name) or graph.keras(key),
        ms=middle_mean([event["dur"] for event in events]) / 1e3,
        macs=_macs_of(kernel, key, graph),
        bytes=traffic,
    )


def _macs_of(kernel: str, key: str, graph: OnnxGraph) -> int | None:
    """Only a kernel that multiplies has MACs; which ones, its node in the file says."""
    if not _MULTIPLIES.search(kernel):
        return 0
    return graph.macs(key) if key else None


def _tensors(graph: Any) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and size in bytes of every tensor that has both."""
    import onnx

    found = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = info.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        found[info.name] = shape, math.prod(shape) * _itemsize(onnx, kind.elem_type)
    for weight in graph.initializer:
        shape = tuple(weight.dims)
        found[weight.name] = shape, math.prod(shape) * _itemsize(onnx, weight.data_type)
    return found


def _itemsize(onnx: Any, data_type: int) -> int:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).itemsize if data_type else 0


def _operation(node: Any, tensors: Mapping[str, tuple[tuple[int, ...], int]]) -> Operation:
    names = [name for name in (*node.input, *node.output) if name in tensors]
    multiplies = _MULTIPLIES.search(node.op_type)
    return Operation(
        name=node.name,
        kind=node.op_type,
        # A convolution that tf2onnx has rebuilt bears no name, but its weights still do.
        keras=keras_layers(node.name, *node.output) or (keras_layers(*node.input[1:]) if multiplies else ()),
        macs=_macs(node, [tensors.get(name, ((), 0))[0] for name in (*node.input, *node.output)]),
        bytes=sum(tensors[name][1] for name in dict.fromkeys(names)),
    )


def _macs(node: Any, shapes: Sequence[tuple[int, ...]]) -> int:
    """Of a node with its inputs' and first output's shapes; NCHW, kernels (out, in / groups, kh, kw)."""
    output = shapes[len(node.input)]
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(shapes[1][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(output) * (shapes[0][0] if transposed else shapes[0][-1])
    return 0
