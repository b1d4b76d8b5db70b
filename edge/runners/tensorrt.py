"""The TensorRT runner: named I/O tensors, preallocated buffers, one stream, one CUDA graph.

What comes before the GPU (the probe, the plan's hashes) has run here for real. What needs a GPU has
not run on a device yet: the tests hold its calls, and their order, against stand-ins that know no
other names than NVIDIA's bindings have.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np

from edge.bundle import Bundle, InputSpec, Precision
from edge.errors import BundleError, InputError
from edge.pixels import Image
from edge.protocols import Heads
from edge.runners import cuda
from edge.runners.cuda import Buffer, CudaError, call, capture
from edge.runners.plans import find_toolkit, read_plan


@cache
def _logger(trt: Any) -> Any:
    """One for the process: TensorRT keeps the first logger it meets, so that one must stay alive."""
    return trt.Logger(trt.Logger.WARNING)


class TensorrtRunner:
    """A plan that `sightline build` made on this device."""

    _runtime: Any = None
    _engine: Any = None
    _context: Any = None
    _stream: Any = None
    _graph: Any = None
    _profiled = False

    def __init__(self, bundle: Bundle, precision: str, threads: int) -> None:
        """Load the plan, run it once, and capture the run as a CUDA graph.

        Args:
            bundle: its manifest names the input's size and the heads.
            precision: `fp32`, `fp16` or `int8`.
            threads: unused; the GPU schedules itself.

        Raises:
            InputError: no GPU, no TensorRT, no plan, or one that TensorRT refuses.
            BundleChanged: a plan whose hash is wrong. BundleError: one with another input or heads.
        """
        # Without a driver, TensorRT's runtime ends the process with a segmentation fault.
        device = cuda.probe()
        toolkit = find_toolkit()
        plan = read_plan(bundle, cast(Precision, precision), toolkit, device)
        self._trt, self._cudart = toolkit.module, cuda.runtime()
        self._heads = {output.name: output.shape for output in bundle.manifest.outputs}
        self._buffers: dict[str, Buffer] = {}
        try:
            self._load(plan)
            self._check(bundle.manifest.input)
            self._prepare()
        except BaseException:
            self.close()
            raise

    def infer(self, pixels: Image) -> Heads:
        """Run uint8 (1, H, W, 3) RGB; the heads as float32.

        Raises:
            InputError: pixels of another shape. CudaError: the GPU failed.
        """
        staging = self.staging
        if pixels.shape != staging.shape or pixels.dtype != np.uint8:
            raise InputError(f"Expected uint8 pixels {staging.shape}, got {pixels.dtype} {pixels.shape}.")
        if not np.may_share_memory(pixels, staging):
            np.copyto(staging, pixels)
        if self._graph is None or self._profiled:
            self._enqueue()
        else:
            call(self._cudart.cudaGraphLaunch, self._graph, self._stream)
        call(self._cudart.cudaStreamSynchronize, self._stream)
        if self._profiled and not self._context.report_to_profiler():
            raise CudaError("TensorRT could not tell its layers' times; its log says why.")
        # Copies: whoever keeps them must not hold memory that `close` gives back.
        return {name: self._buffers[name].host.astype(np.float32) for name in self._heads}

    def attach(self, profiler: Any) -> None:
        """Tell each layer's time of every later run to an `IProfiler`; such runs go without the graph.

        The graph was captured without the events that a layer's time is taken from. The profiler must
        live as long as this runner.
        """
        self._context.enqueue_emits_profile = False
        self._context.profiler = profiler
        self._profiled = True

    @property
    def staging(self) -> Image:
        """uint8 (1, H, W, 3), page-locked: pixels that are written here need no further copy before `infer`."""
        host: Image = self._buffers[self._input].host
        return host

    @property
    def module(self) -> Any:
        """The TensorRT that this runner uses."""
        return self._trt

    def inspect(self) -> str:
        """What TensorRT made of the network, layer by layer, as JSON of its engine inspector."""
        inspector = self._engine.create_engine_inspector()
        information: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return information

    def close(self) -> None:
        """Give the GPU's memory back; harmless when called twice."""
        if self._stream is not None:
            self._cudart.cudaStreamSynchronize(self._stream)
        if self._graph is not None:
            self._cudart.cudaGraphExecDestroy(self._graph)
        self._graph = None
        # TensorRT wants the context gone before its engine, and that before the runtime.
        self._context = None
        self._engine = None
        self._runtime = None
        while self._buffers:
            self._buffers.popitem()[1].free()
        if self._stream is not None:
            self._cudart.cudaStreamDestroy(self._stream)
        self._stream = None

    def _load(self, plan: bytes) -> None:
        self._runtime = self._trt.Runtime(_logger(self._trt))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise InputError("TensorRT refused the plan; its log says why. Build it anew: sightline build")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise InputError("TensorRT could not make room for the plan on the GPU; close other programs.")

    def _check(self, spec: InputSpec) -> None:
        """Find the input; raises BundleError unless it and the heads are those of the manifest."""
        mode = self._trt.TensorIOMode
        tensors = {name: self._tensor(name) for name in self._names()}
        inputs = [name for name, (direction, _, _) in tensors.items() if direction == mode.INPUT]
        wanted = {name: (mode.OUTPUT, shape) for name, shape in self._heads.items()}
        heads = {name: tensors[name][:2] for name in self._heads if name in tensors}
        pixels = (mode.INPUT, (1, spec.height, spec.width, 3), np.uint8)
        if heads != wanted or len(inputs) != 1 or tensors[inputs[0]] != pixels:
            found = ", ".join(f"{name} {shape}" for name, (_, shape, _) in tensors.items())
            raise BundleError(f"The plan's tensors are {found}; the manifest states others. Build it anew.")
        self._input = inputs[0]

    def _prepare(self) -> None:
        """Give every tensor its buffer, run once, which TensorRT asks for before a capture, and capture."""
        cudart = self._cudart
        self._stream = call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking)
        for name in self._names():
            _, shape, dtype = self._tensor(name)
            self._buffers[name] = Buffer.allocate(cudart, shape, dtype)
            self._context.set_tensor_address(name, self._buffers[name].device)
        self._enqueue()
        call(cudart.cudaStreamSynchronize, self._stream)
        self._graph = capture(cudart, self._stream, self._enqueue)

    def _enqueue(self) -> None:
        """Pixels up, the network, the heads down: everything on our stream, nothing waited for."""
        self._buffers[self._input].upload(self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise CudaError("TensorRT could not start the network; its log says why.")
        for name in self._heads:
            self._buffers[name].download(self._stream)

    def _names(self) -> list[str]:
        engine = self._engine
        return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]

    def _tensor(self, name: str) -> tuple[Any, tuple[int, ...], Any]:
        """Its direction, shape and NumPy dtype."""
        engine = self._engine
        shape = tuple(engine.get_tensor_shape(name))
        return engine.get_tensor_mode(name), shape, self._trt.nptype(engine.get_tensor_dtype(name))
