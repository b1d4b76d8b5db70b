"""A GPU in host memory, for the runner's calls on machines without one.

`FakeCuda` and `FakeTrt` answer to names of NVIDIA's bindings alone (a test holds them to that) and
are as strict as a GPU: work on a stream is put off until the stream is waited for, an address must
be allocated, a capture needs a warm and idle context, and objects must die in order. What the engine
computes is exchangeable: a sum, or a whole ONNX file by ONNX Runtime. Tests that import it are skipped where
NVIDIA's bindings are not installed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
real = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")

OK = real.cudaError_t.cudaSuccess
INVALID = real.cudaError_t.cudaErrorInvalidValue


@dataclass(frozen=True)
class Work:
    """One thing for a stream to do: at once or as late as can be, since a GPU may do either.

    Copies to an idle GPU run at once, so that pixels written after their start are missed; all else
    runs when the stream is waited for, so that a result read before is missed.
    """

    run: Callable[[], Any]
    at_once: bool = False


@dataclass
class Graph:
    """Captured work; `executable` once it is instantiated."""

    work: list[Work]
    executable: bool = False


class Stream:
    """A handle of a stream that is not the default one."""

    def __int__(self) -> int:
        return 7


class FakeCuda:
    """`cuda.bindings.runtime` for one GPU.

    Attributes:
        driver, made_for: versions as CUDA counts them; 0 is no driver.
        failing: names of functions that answer with an error, and after how many calls that went well.
        live: what was made and not yet destroyed.
        broken: rules that were broken; must stay empty.
    """

    cudaError_t = real.cudaError_t
    cudaMemcpyKind = real.cudaMemcpyKind
    cudaStreamCaptureMode = real.cudaStreamCaptureMode
    cudaHostAllocDefault = real.cudaHostAllocDefault
    cudaStreamNonBlocking = real.cudaStreamNonBlocking

    def __init__(self, driver: int = 12060, made_for: int = 12060, gpus: int = 1) -> None:
        self.driver, self.made_for, self.gpus = driver, made_for, gpus
        self.failing: dict[str, int] = {}
        self.last_error = OK
        self.live: dict[int, Any] = {}
        self.pending: list[Work] = []
        self.captured: list[Work] | None = None
        self.launches = 0
        self.broken: list[str] = []

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        if self.driver // 1000 < self.made_for // 1000:
            return real.cudaError_t.cudaErrorInsufficientDriver, None
        return (OK, self.gpus) if self.gpus else (real.cudaError_t.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        properties = real.cudaDeviceProp()
        properties.name, properties.major, properties.minor = b"Orin".ljust(256, b"\0"), 8, 7
        return (OK, properties) if device == 0 else (INVALID, None)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return OK, self.made_for

    def cudaGetLastError(self) -> tuple[Any, ...]:
        error, self.last_error = self.last_error, OK
        return (error,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._allocate("cudaHostAlloc", size)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return self._destroy(address, "cudaMalloc")

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._destroy(address, "cudaHostAlloc")

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        if self._fails("cudaMemcpyAsync"):
            return self._fail(INVALID)
        up = kind == real.cudaMemcpyKind.cudaMemcpyHostToDevice
        for address, owner in ((to, "cudaMalloc" if up else "cudaHostAlloc"),
                               (source, "cudaHostAlloc" if up else "cudaMalloc")):  # fmt: skip
            if self.live.get(address, (None, 0))[0] != owner or self.live[address][1].nbytes != size:
                return self._fail(INVALID)
        return self.submit(Work(lambda: ctypes.memmove(to, source, size), at_once=up), stream)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        if self._fails("cudaStreamCreateWithFlags"):
            return (*self._fail(INVALID), None)
        return self._make("cudaStreamCreateWithFlags", Stream())

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        if self.pending:
            self.broken.append("a stream was destroyed before its work was done")
        return self._destroy(id(stream), "cudaStreamCreateWithFlags")

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        if self._fails("cudaStreamSynchronize") or self.captured is not None:
            return self._fail(real.cudaError_t.cudaErrorStreamCaptureUnsupported)
        if id(stream) not in self.live:
            return self._fail(INVALID)
        work, self.pending = self.pending, []
        for step in work:
            step.run()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        if self._fails("cudaStreamBeginCapture"):
            return self._fail(INVALID)
        if self.pending:
            self.broken.append("a capture began on a stream with work under way")
        self.captured = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        work, self.captured = self.captured, None
        if self._fails("cudaStreamEndCapture"):
            return (*self._fail(real.cudaError_t.cudaErrorStreamCaptureInvalidated), None)
        return self._make("cudaStreamEndCapture", Graph(work or []))

    def cudaGraphInstantiate(self, graph: Graph, flags: int) -> tuple[Any, ...]:
        if self._fails("cudaGraphInstantiate"):
            return (*self._fail(INVALID), None)
        return self._make("cudaGraphInstantiate", Graph(graph.work, executable=True))

    def cudaGraphLaunch(self, graph: Graph, stream: Any) -> tuple[Any, ...]:
        if self._fails("cudaGraphLaunch") or not graph.executable or id(graph) not in self.live:
            return self._fail(INVALID)
        self.launches += 1
        for work in graph.work:
            self._start(work)
        return (OK,)

    def cudaGraphDestroy(self, graph: Graph) -> tuple[Any, ...]:
        return self._destroy(id(graph), "cudaStreamEndCapture")

    def cudaGraphExecDestroy(self, graph: Graph) -> tuple[Any, ...]:
        if self.pending:
            self.broken.append("a graph was destroyed with work under way")
        return self._destroy(id(graph), "cudaGraphInstantiate")

    def submit(self, work: Work, stream: Any) -> tuple[Any, ...]:
        """Put work on the stream, or into the capture."""
        if int(stream) != int(Stream()):
            return self._fail(INVALID)
        if self.captured is not None:
            self.captured.append(work)
        else:
            self._start(work)
        return (OK,)

    def _start(self, work: Work) -> None:
        if work.at_once and not self.pending:
            work.run()
        else:
            self.pending.append(work)

    def memory(self, address: int, nbytes: int) -> np.ndarray[Any, Any]:
        """What the GPU sees at a device address."""
        owner, content = self.live[address]
        assert owner == "cudaMalloc"
        assert content.nbytes == nbytes
        return content

    def _allocate(self, name: str, size: int) -> tuple[Any, ...]:
        if self._fails(name):
            return (*self._fail(real.cudaError_t.cudaErrorMemoryAllocation), None)
        content = np.full(size, 0xAB, np.uint8)
        self.live[content.ctypes.data] = name, content
        return OK, content.ctypes.data

    def _make(self, name: str, made: Any) -> tuple[Any, ...]:
        self.live[id(made)] = name, made
        return OK, made

    def _destroy(self, key: int, maker: str) -> tuple[Any, ...]:
        if self.live.pop(key, (None,))[0] != maker:
            self.broken.append(f"destroyed what {maker} never made, or twice")
            return self._fail(INVALID)
        return (OK,)

    def _fails(self, name: str) -> bool:
        if self.failing.get(name) == 0:
            return True
        if name in self.failing:
            self.failing[name] -= 1
        return False

    def _fail(self, error: Any) -> tuple[Any, ...]:
        self.last_error = error
        return (error,)


Compute = Callable[[dict[str, "np.ndarray[Any, Any]"]], dict[str, "np.ndarray[Any, Any]"]]
"""Outputs by name from inputs by name; an output that it leaves out is the sum of the first input plus
each value's index."""


def over_onnx_runtime(content: bytes) -> Compute:
    """What ONNX Runtime makes of an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


@dataclass
class FakeTrt:
    """The module `tensorrt` with one engine.

    Attributes:
        tensors: by name, direction, shape and type.
        plan: the bytes of the engine; no others are taken.
        compute: what the engine does.
        refusing: names of methods that return None or False, as TensorRT does on an error.
        died: its objects that have ended, in order.
        warm: whether the engine has run.
    """

    cuda: FakeCuda
    tensors: dict[str, tuple[Any, tuple[int, ...], Any]]
    plan: bytes = b"a plan"
    compute: Compute = lambda inputs: {}
    refusing: set[str] = field(default_factory=set)
    died: list[str] = field(default_factory=list)
    warm: bool = False

    Logger = trt.Logger
    TensorIOMode = trt.TensorIOMode
    nptype = staticmethod(trt.nptype)
    __hash__ = object.__hash__

    def Runtime(self, logger: Any) -> FakeRuntime:
        assert isinstance(logger, trt.ILogger)
        return FakeRuntime(self)


class Mortal:
    """An object of TensorRT's whose end is noted."""

    def __init__(self, world: FakeTrt) -> None:
        self._world = world

    def __del__(self) -> None:
        self._world.died.append(type(self).__name__)
        if self._world.cuda.pending:
            self._world.cuda.broken.append(f"{type(self).__name__} ended with work under way")


class FakeRuntime(Mortal):
    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        assert plan == self._world.plan
        return None if "deserialize_cuda_engine" in self._world.refusing else FakeEngine(self._world)


class FakeEngine(Mortal):
    @property
    def num_io_tensors(self) -> int:
        return len(self._world.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._world.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._world.tensors[name][0]

    def get_tensor_shape(self, name: str) -> trt.Dims:
        return trt.Dims(self._world.tensors[name][1])

    def get_tensor_dtype(self, name: str) -> Any:
        return self._world.tensors[name][2]

    def create_execution_context(self) -> FakeContext | None:
        return None if "create_execution_context" in self._world.refusing else FakeContext(self._world)


class FakeContext(Mortal):
    def __init__(self, world: FakeTrt) -> None:
        super().__init__(world)
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self._world.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert isinstance(stream_handle, int)
        world, capturing = self._world, self._world.cuda.captured is not None
        if "execute_async_v3" in world.refusing or (capturing and "capture" in world.refusing):
            return False
        if capturing and not world.warm:
            world.cuda.broken.append("a capture came before the first run")
        world.warm = True
        return (
            set(self.addresses) == set(world.tensors)
            and world.cuda.submit(Work(self._run), stream_handle)[0] == OK
        )

    def _run(self) -> None:
        views = {}
        for name, (_, shape, dtype) in self._world.tensors.items():
            numpy_dtype = np.dtype(trt.nptype(dtype))
            nbytes = int(np.prod(shape)) * numpy_dtype.itemsize
            memory = self._world.cuda.memory(self.addresses[name], nbytes)
            views[name] = memory.view(numpy_dtype).reshape(shape)
        pixels = next(iter(views.values()))
        made = self._world.compute(
            {n: views[n] for n in views if self._direction(n) == trt.TensorIOMode.INPUT}
        )
        for name, view in views.items():
            if self._direction(name) == trt.TensorIOMode.OUTPUT:
                default = np.arange(view.size).reshape(view.shape) + int(pixels.astype(np.int64).sum())
                view[...] = made.get(name, default)

    def _direction(self, name: str) -> Any:
        return self._world.tensors[name][0]
