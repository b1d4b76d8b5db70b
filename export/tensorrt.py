"""TensorRT plans from our ONNX files, by NVIDIA's own parser and builder.

One surface for TensorRT 10.3 to 11.4 and TensorRT-RTX 1.7: the network is strongly typed, so that
the precisions stand in the ONNX file (its float types and its Q/DQ pairs) and in no builder flag.
The RTX edition also builds on machines without a GPU, which is how the tests prove our files.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.files import whole_file
from edge.runners.cuda import Device, NoGpu, probe
from edge.runners.plans import Toolkit
from export.progress import Phases

WORKSPACE_BYTES = 1 << 30
"""Scratch memory that the builder may use for one layer's kernel: 1 GiB, an eighth of an Orin Nano."""

OnStep = Callable[[str, int, int, float], bool]
"""Told a phase's name, its steps done, their number, and the share of the whole build, 0 to 1, that is
done; returns False to stop the build."""


class PlanError(InputError):
    """NVIDIA's parser or builder refused a model."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan; `dtype` is NumPy's name for its type."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        content: the serialized engine.
        weights_bytes: the engine's weights as the builder's log states them; None where it does not.
        build_seconds: of NVIDIA's builder alone.
    """

    content: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights_bytes: int | None
    build_seconds: float


def device_to_build_for(toolkit: Toolkit) -> Device | None:
    """This machine's GPU; None where there is none and the RTX edition builds ahead of time.

    Raises:
        NoGpu: there is none, and this edition of TensorRT cannot build without.
    """
    try:
        return probe()
    except NoGpu:
        if toolkit.flavour == "tensorrt_rtx":
            return None
        raise


def build_plan(
    onnx: bytes,
    toolkit: Toolkit,
    *,
    workspace_bytes: int = WORKSPACE_BYTES,
    timing_cache: Path | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Parse an ONNX file's bytes and build its engine: minutes on a Jetson, under a second for RTX.

    Args:
        timing_cache: read if it is there, and written anew; it shortens the next build on this
            device. The RTX edition measures no kernels, and keeps none.
        on_step: for progress and for stopping; called from NVIDIA's threads, must not raise.

    Raises:
        PlanError: with what the parser says of each node, or the builder's last messages.
    """
    trt, log = toolkit.module, _log(toolkit.module)
    log.clear()
    builder = trt.Builder(log)
    network = _parse(trt, builder, onnx)
    timings = timing_cache if toolkit.flavour == "tensorrt" else None
    config = _configure(trt, builder, workspace_bytes, timings, on_step)
    begin = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise PlanError(f"TensorRT could not build an engine: {log.reasons()}")
    build_seconds = time.monotonic() - begin
    if timings:
        _store_timings(config, timings)
    inputs = (network.get_input(i) for i in range(network.num_inputs))
    outputs = (network.get_output(i) for i in range(network.num_outputs))
    return Plan(
        bytes(engine), _tensors(trt, inputs), _tensors(trt, outputs), log.weights_bytes, build_seconds
    )


def _parse(trt: Any, builder: Any, onnx: bytes) -> Any:
    # From TensorRT 11 on every network is strongly typed, and the flag may go.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, _log(trt))
    if not parser.parse(onnx):
        errors = (parser.get_error(i) for i in range(parser.num_errors))
        raise PlanError(
            "TensorRT's parser refuses this ONNX model: "
            + "; ".join(f"{e.node_operator()} '{e.node_name()}': {_essence(e.desc())}" for e in errors)
        )
    return network


def _configure(
    trt: Any, builder: Any, workspace_bytes: int, timings: Path | None, on_step: OnStep | None
) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if timings:
        _load_timings(config, timings)
    if on_step:
        config.progress_monitor = _monitor(trt, on_step)
    return config


def _load_timings(config: Any, path: Path) -> None:
    """Use the cache in `path`; an empty one where there is none or it is of another device."""
    known = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if known is None or not config.set_timing_cache(known, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _store_timings(config: Any, path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(config.get_timing_cache().serialize())


def _tensors(trt: Any, tensors: Any) -> tuple[Tensor, ...]:
    return tuple(Tensor(t.name, trt.nptype(t.dtype).__name__, tuple(t.shape)) for t in tensors)


def _essence(text: str) -> str:
    """A message without what the missing driver adds to it on a machine without a GPU."""
    lines = [line for line in text.splitlines() if line]
    return " ".join([line for line in lines if "catchCudaError" not in line] or lines)


@cache
def _log(trt: Any) -> Any:
    """The one log of the process: TensorRT keeps the first that it meets, which must stay alive."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def clear(self) -> None:
            self.problems: list[str] = []
            self.weights_bytes: int | None = None

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.problems.append(message)
            if found := re.match(r"Total Weights Memory: (\d+) bytes", message):
                self.weights_bytes = int(found[1])

        def reasons(self) -> str:
            return _essence("\n".join(self.problems[-5:])) or "its log says nothing"

    return Log()


def _monitor(trt: Any, on_step: OnStep) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases = Phases()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            done, of = self.phases.step(phase_name, step)
            return on_step(phase_name, done, of, self.phases.share)

        def phase_finish(self, phase_name: str) -> None:
            self.phases.finish(phase_name)

    return Monitor()
