"""Time by layer on TensorRT, by an `IProfiler`, with what the engine inspector says of each layer.

Written against the API that TensorRT 10.3 to 11.4 have in common. It has not run on a device yet: the
tests hold it against a GPU in host memory that knows no other names than NVIDIA's bindings have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge.bundle import Bundle, Precision
from edge.profiling.layers_onnx import OnnxGraph, random_pixels, read_graph, timed_in_turn
from edge.profiling.layers_report import Layer, LayerReport, keras_layers, middle_mean

METHOD = "TensorRT's IProfiler"
NOT_RUN = "Not a figure of ours: this measurement has not been checked on a device yet."
WITHOUT_GRAPH = (
    "The whole is one launch of a CUDA graph; with the profiler the layers are launched one by one, which "
    "for small networks costs more than the layers themselves."
)
WARM_UP_RUNS = 5

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")

_ITEM_BYTES = (
    ("int4", 0.5),
    ("int8", 1),
    ("fp8", 1),
    ("bool", 1),
    ("half", 2),
    ("16", 2),
    ("64", 8),
    ("", 4),
)
"""By what a type's or format's name holds, as 'Row major Int8 format', 'Half', 'FP16'; the first that fits."""


def profile(bundle: Bundle, precision: Precision, runs: int, threads: int) -> LayerReport:
    """Run the plan that `sightline build` made here: first as it is, then with a profiler attached.

    Raises:
        InputError: no GPU, no TensorRT or no plan.
    """
    from edge.runners.tensorrt import TensorrtRunner

    pixels, runner = random_pixels(bundle), TensorrtRunner(bundle, precision, threads)
    try:
        (whole,) = timed_in_turn((runner.infer,), pixels, runs, WARM_UP_RUNS)
        times = layer_times(runner.module)
        runner.attach(times)
        (slowed,) = timed_in_turn((runner.infer,), pixels, runs, WARM_UP_RUNS)
        facts = inspected(runner.inspect())
    finally:
        runner.close()
    graph, notes = read_graph(bundle.content(bundle.artefact("onnx", precision)))
    return LayerReport(
        backend="tensorrt",
        precision=precision,
        method=METHOD,
        runs=runs,
        threads=threads,
        whole_ms=whole,
        profiled_ms=slowed,
        layers=tuple(_layers(times.ms, runs, facts, graph)),
        notes=(*notes, WITHOUT_GRAPH, NOT_RUN),
    )


def layer_times(trt: Any) -> Any:
    """An `IProfiler` that keeps milliseconds by layer, run by run, in `ms`."""

    class LayerTimes(trt.IProfiler):  # type: ignore[misc]  # the base is known at run time alone
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # pybind11 wants it called by this name
            self.ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms.setdefault(layer_name, []).append(ms)

    return LayerTimes()


def inspected(information: str) -> dict[str, Mapping[str, Any]]:
    """The inspector's layers by name; of a plan without details each layer is its bare name."""
    layers = json.loads(information).get("Layers", [])
    return {layer["Name"]: layer for layer in layers if isinstance(layer, dict)}


def _layers(
    times: Mapping[str, Sequence[float]], runs: int, facts: Mapping[str, Mapping[str, Any]], graph: OnnxGraph
) -> Iterator[Layer]:
    for name, durations in times.items():
        # One name may stand for several layers: they report one after the other in each run.
        repeats = max(1, len(durations) // (runs + WARM_UP_RUNS))
        last = durations[-runs * repeats :]
        ms = middle_mean([sum(last[at : at + repeats]) for at in range(0, len(last), repeats)])
        yield _layer(name, ms, facts.get(name, {}), graph)


def _layer(name: str, ms: float, facts: Mapping[str, Any], graph: OnnxGraph) -> Layer:
    nodes = _ONNX_LAYER.findall(str(facts.get("Metadata", ""))) or name.split(" + ")
    keys = list(dict.fromkeys(key for key in map(graph.find, nodes) if key))
    named = keras_layers(*nodes) or tuple(dict.fromkeys(layer for key in keys for layer in graph.keras(key)))
    return Layer(
        name=name,
        kernel=str(facts.get("TacticName") or facts.get("LayerType") or ""),
        keras=named,
        ms=ms,
        macs=sum(graph.operations[key].macs for key in keys) if keys else None,
        bytes=_traffic(facts) if facts else None,
    )


def _traffic(facts: Mapping[str, Any]) -> int:
    """Bytes of all inputs, outputs, weights and biases that the inspector tells of."""
    tensors = [*facts.get("Inputs", ()), *facts.get("Outputs", ())]
    held = [facts[part] for part in ("Weights", "Bias") if isinstance(facts.get(part), dict)]
    moved = sum(math.prod(tensor.get("Dimensions", ())) * _item_bytes(tensor) for tensor in tensors)
    return int(moved + sum(part.get("Count", 0) * _item_bytes(part) for part in held))


def _item_bytes(tensor: Mapping[str, Any]) -> float:
    """TensorRT 11 states `Datatype`, the ones before `Format/Datatype`; weights have a `Type`."""
    text = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Type") or "").lower()
    return next(size for part, size in _ITEM_BYTES if part in text)
