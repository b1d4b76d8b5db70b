"""Time by layer on LiteRT, by the profiler that its own library exports (`libLiteRt.so`, C interface).

The profiler belongs to LiteRT's compiled models, not to the interpreter that `TfliteRunner` uses; both
put the same XNNPACK under the same file. Functions and structures are those of LiteRT's headers
`litert/c/litert_{environment,model,options,opaque_options,compiled_model,tensor_buffer,profiler}.h` and
`litert_profiler_event.h`. They have changed between versions, and a C interface does not check its
callers: so all this runs in a process of its own, which may crash without taking anybody along.
"""

from __future__ import annotations

import ctypes as c
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import Bundle, Precision
from edge.errors import InputError
from edge.profiling.layers_onnx import random_pixels, timed_in_turn
from edge.profiling.layers_report import LayerReport
from edge.profiling.layers_tflite import Step, layers_of, operations

KNOWN_VERSION = "2.3.0"
"""Of ai-edge-litert, on which this has run."""

METHOD = "LiteRT's profiler"
WHOLE_MICROSECONDS = (
    "LiteRT counts whole microseconds, rounded down: half of one, the mean of what is cut off, was added to "
    "each step. Layers of one or two microseconds are known to about one."
)
WARM_UP_RUNS = 5

OPERATOR, DELEGATE_OPERATOR = 2, 8
"""Event types: an operation of the graph, and one step of what a delegate made of its part of it."""

_FLOAT32, _WRITE, _CPU = 1, 1, 1
"""LiteRT's enumerators: element type, lock mode, accelerator."""

_TENSOR_TYPE_BYTES = 512
"""Room for a LiteRtRankedTensorType, whose size depends on the version; its first field is the element type."""


class _Memory(c.Structure):
    _fields_ = [(name, c.c_size_t) for name in ("total", "in_use", "private")]


class _Event(c.Structure):
    """`ProfiledEventData`."""

    _fields_ = [
        ("tag", c.c_char_p),
        ("event_type", c.c_int),
        ("start_us", c.c_uint64),
        ("elapsed_us", c.c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("index", c.c_uint64),
        ("graph", c.c_uint64),
        ("source", c.c_int),
    ]


def profile(bundle: Bundle, precision: Precision, runs: int, threads: int) -> LayerReport:
    """Profile in a child process, and time the runner itself here.

    Raises:
        InputError: this LiteRT has no profiler, or another interface.
    """
    from edge.runners.tflite import TfliteRunner

    content = bundle.content(bundle.artefact("tflite", precision))
    runner = TfliteRunner(bundle, precision, threads)
    (runner_ms,) = timed_in_turn((runner.infer,), random_pixels(bundle), runs)
    runner.close()
    found = _in_child(content, runs, threads)
    steps = [Step(*step) for step in found["steps"]]
    layers, notes = layers_of(steps, operations(content))
    return LayerReport(
        backend="tflite",
        precision=precision,
        method=METHOD,
        runs=runs,
        threads=threads,
        whole_ms=found["whole_ms"],
        profiled_ms=found["profiled_ms"],
        layers=layers,
        notes=(
            *notes,
            WHOLE_MICROSECONDS,
            f"The runner itself, with its copies in and out: {runner_ms:.3f} ms.",
        ),
    )


def _in_child(content: bytes, runs: int, threads: int) -> dict[str, Any]:
    library = library_path()
    command = [sys.executable, "-m", "edge.profiling.layers_litert", str(library), str(runs), str(threads)]
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(
            f"LiteRT's profiler ended with {done.returncode} ({said[-1] if said else 'nothing said'}). Its C "
            f"interface is known from ai-edge-litert {KNOWN_VERSION}; installed is {_installed()}. "
            "Install that one for this measurement, or profile the layers with --backend onnx."
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def library_path() -> Path:
    """Where `libLiteRt` lies, without importing its package; raises InputError where there is none."""
    spec = importlib.util.find_spec("ai_edge_litert")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for folder in folders:
        for name in ("libLiteRt.so", "libLiteRt.dylib", "libLiteRt.dll"):
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    raise InputError(
        "Layers of a .tflite file need the package ai-edge-litert, whose libLiteRt has the profiler; it was not "
        "found (tflite_runtime has none). Install it: pip install ai-edge-litert, or take --backend onnx."
    )


def _installed() -> str:
    try:
        return version("ai-edge-litert")
    except PackageNotFoundError:
        return "another package"


class _CompiledModel:
    """A LiteRT compiled model with its profiler; ends with its process, so nothing is given back."""

    def __init__(self, library: str, content: bytes, threads: int) -> None:
        self._library = c.CDLL(library)
        self._content = c.create_string_buffer(content, len(content))  # the model reads from it to the end
        self._texts: list[Any] = []
        self._environment = self._make("LiteRtCreateEnvironment", 0, None)
        size = c.c_size_t(len(content))
        model = self._make("LiteRtCreateModelFromBuffer", self._environment, self._content, size)
        self._model = self._make(
            "LiteRtCreateCompiledModel", self._environment, model, self._options(threads)
        )
        self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._model)
        graph = self._make("LiteRtGetModelSubgraph", model, c.c_size_t(0))
        self._inputs, self._outputs = self._buffers(graph, "Input"), self._buffers(graph, "Output")

    def run(self, _: None = None) -> None:
        """One inference."""
        sizes = c.c_size_t(len(self._inputs)), c.c_size_t(len(self._outputs))
        self._call(
            "LiteRtRunCompiledModel",
            self._model,
            c.c_size_t(0),
            sizes[0],
            self._inputs,
            sizes[1],
            self._outputs,
        )

    def run_profiled(self, _: None = None) -> None:
        """One inference with the profiler; its events stay until the next one."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        self._call("LiteRtStopProfiler", self._profiler)

    def events(self) -> Iterator[_Event]:
        """Of the last profiled inference: the operations and the delegates' steps, in order."""
        count = self._make("LiteRtGetNumProfilerEvents", self._profiler, kind=c.c_int).value
        events = (_Event * count)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return (event for event in events if event.event_type in (OPERATOR, DELEGATE_OPERATOR))

    def _options(self, threads: int) -> Any:
        options = self._make("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        # What LiteRT's own option builders make: TOML under the name of whoever reads it.
        self._add_option(options, b"xnnpack", b"num_threads = %d\n" % threads)
        self._add_option(options, b"runtime_options_string", b"enable_profiling = true\n")
        return options

    def _add_option(self, options: Any, name: bytes, toml: bytes) -> None:
        text = c.create_string_buffer(toml)
        forget = c.CFUNCTYPE(None, c.c_void_p)(lambda _: None)  # Python owns the text
        self._texts += [text, forget]
        self._call(
            "LiteRtAddOpaqueOptions", options, self._make("LiteRtCreateOpaqueOptions", name, text, forget)
        )

    def _buffers(self, graph: Any, side: str) -> Any:
        """A buffer for every input or output, filled with what a picture may hold."""
        count = self._make(f"LiteRtGetNumSubgraph{side}s", graph, kind=c.c_size_t).value
        made = [self._buffer(graph, side, c.c_size_t(index)) for index in range(count)]
        return (c.c_void_p * count)(*made)

    def _buffer(self, graph: Any, side: str, index: c.c_size_t) -> Any:
        tensor = self._make(f"LiteRtGetSubgraph{side}", graph, index)
        kind = c.create_string_buffer(_TENSOR_TYPE_BYTES)
        self._call("LiteRtGetRankedTensorType", tensor, kind)
        wanted = self._make(
            f"LiteRtGetCompiledModel{side}BufferRequirements", self._model, c.c_size_t(0), index
        )
        made = self._make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, wanted)
        self._fill(made, c.c_int.from_buffer(kind).value)
        return made

    def _fill(self, buffer: Any, element_type: int) -> None:
        size = self._make("LiteRtGetTensorBufferPackedSize", buffer, kind=c.c_size_t).value
        memory = c.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, c.byref(memory), _WRITE)
        values = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        if element_type == _FLOAT32:
            values = ((values[: size // 4].astype(np.float32) - 128) / 128).view(np.uint8)
        c.memmove(memory, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _make(self, name: str, *arguments: Any, kind: Any = c.c_void_p) -> Any:
        """Call a function that returns its value through its last argument."""
        made = kind()
        self._call(name, *arguments, c.byref(made))
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} returned {status}")


def _measure(model: _CompiledModel, runs: int) -> dict[str, Any]:
    """Milliseconds of whole inferences, plain and profiled in turn, and each step's over the runs."""
    durations: list[list[int]] = []
    labels: Sequence[tuple[str, int, int]] = ()
    whole, profiled = [], []
    for index in range(WARM_UP_RUNS + runs):
        begin_ns = time.perf_counter_ns()
        model.run()
        middle_ns = time.perf_counter_ns()
        model.run_profiled()
        end_ns = time.perf_counter_ns()
        if index < WARM_UP_RUNS:
            continue
        whole.append((middle_ns - begin_ns) / 1e6)
        profiled.append((end_ns - middle_ns) / 1e6)
        events = list(model.events())
        labels = [(event.tag.decode(errors="replace"), event.event_type, event.index) for event in events]
        durations.append([event.elapsed_us for event in events])
    steps = [(*label, column) for label, column in zip(labels, zip(*durations, strict=True), strict=True)]
    return {"whole_ms": float(np.median(whole)), "profiled_ms": float(np.median(profiled)), "steps": steps}


def _main(arguments: Sequence[str]) -> Mapping[str, Any]:
    library, runs, threads = arguments
    return _measure(_CompiledModel(library, sys.stdin.buffer.read(), int(threads)), int(runs))


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1:])))
