"""What the TensorRT runner needs of CUDA, on top of cuda-python (`cuda.bindings.runtime`).

The probe has run here on machines without a driver; everything after it needs an NVIDIA GPU and
has not run on a device yet: the tests hold it against the names of the real bindings.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge.errors import DeviceFailed, InputError, MissingPackageError

DEVICE_NODES = ("nvidia[0-9]*", "nvidiactl", "nvgpu", "nvmap", "nvhost-gpu", "dxg")
"""What /dev holds where the kernel knows an NVIDIA GPU: a desktop's, a Jetson's, or Windows' in WSL."""


@dataclass(frozen=True)
class Device:
    """The GPU that the runner uses.

    Attributes:
        name: as the driver spells it, `Orin`.
        compute_capability: `8.7`.
    """

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


class CudaError(DeviceFailed):
    """A call into CUDA failed."""


class NoGpu(InputError):
    """There is no GPU that this process can use; the message says why."""


def is_in_sight() -> bool:
    """Whether the kernel knows an NVIDIA GPU. Takes no import, where `probe` takes a tenth of a second."""
    return bool(_device_nodes())


def probe() -> Device:
    """The first GPU. Call it before anything of TensorRT's runtime, which crashes without a driver.

    Raises:
        NoGpu: no GPU, no driver, or a cuda-python that is too new for the driver.
        MissingPackageError: no cuda-python.
    """
    cudart = runtime()
    error, count = cudart.cudaGetDeviceCount()
    if error != cudart.cudaError_t.cudaSuccess or not count:
        raise NoGpu(_why_no_gpu(cudart, error))
    properties = call(cudart.cudaGetDeviceProperties, 0)
    return Device(properties.name.decode().rstrip("\0"), f"{properties.major}.{properties.minor}")


def runtime() -> Any:
    """The module `cuda.bindings.runtime`."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        if not _device_nodes():
            raise NoGpu(_NO_GPU) from error
        raise MissingPackageError("cuda-python", _jetpack_extra(), "The tensorrt backend") from error


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the CUDA runtime; its value, or None where it has none.

    Raises:
        CudaError: with CUDA's own name for what went wrong.
    """
    error, *values = function(*arguments)
    if int(error) != 0:
        raise CudaError(f"CUDA's {function.__name__} failed: {error.name} ({int(error)}).")
    return values[0] if values else None


@dataclass(frozen=True)
class Buffer:
    """One tensor in the GPU's memory and its pinned staging copy in the host's.

    Attributes:
        device: address in the GPU's memory.
        host: the pinned copy, page-locked so that transfers run beside the CPU.
    """

    cudart: Any
    device: int
    host: NDArray[Any]

    @classmethod
    def allocate(cls, cudart: Any, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Room for one tensor; nothing stays allocated where half of it fails."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        device = call(cudart.cudaMalloc, size)
        try:
            address = call(cudart.cudaHostAlloc, size, cudart.cudaHostAllocDefault)
        except CudaError:
            cudart.cudaFree(device)
            raise
        memory: Any = (ctypes.c_uint8 * size).from_address(int(address))
        return cls(cudart, int(device), np.ndarray(shape, np.dtype(dtype), memory))

    def upload(self, stream: Any) -> None:
        """Enqueue the copy to the GPU."""
        self._copy(self.device, self.host.ctypes.data, "cudaMemcpyHostToDevice", stream)

    def download(self, stream: Any) -> None:
        """Enqueue the copy back; `host` holds it once the stream was waited for."""
        self._copy(self.host.ctypes.data, self.device, "cudaMemcpyDeviceToHost", stream)

    def free(self) -> None:
        """Give both halves back, whatever CUDA says; `host` must not be touched afterwards."""
        self.cudart.cudaFree(self.device)
        self.cudart.cudaFreeHost(self.host.ctypes.data)

    def _copy(self, to: int, source: int, kind: str, stream: Any) -> None:
        direction = getattr(self.cudart.cudaMemcpyKind, kind)
        call(self.cudart.cudaMemcpyAsync, to, source, self.host.nbytes, direction, stream)


def capture(cudart: Any, stream: Any, enqueue: Callable[[], None]) -> Any:
    """What `enqueue` puts on the stream, as an executable graph: one launch instead of many.

    Returns None where that fails, as some networks cannot be captured; the stream works on.
    """
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    graph = None
    try:
        call(cudart.cudaStreamBeginCapture, stream, mode)
        try:
            enqueue()
        finally:
            graph = call(cudart.cudaStreamEndCapture, stream)
        return call(cudart.cudaGraphInstantiate, graph, 0)
    except CudaError:
        # The failure is CUDA's last error of this thread; a later call must not meet it.
        cudart.cudaGetLastError()
        return None
    finally:
        if graph is not None:
            cudart.cudaGraphDestroy(graph)


_NO_GPU = (
    "The tensorrt backend needs an NVIDIA GPU, and this machine has neither a GPU nor its driver. "
    "Use --backend tflite or onnx here."
)


def _why_no_gpu(cudart: Any, error: Any) -> str:
    """Error 35 means a missing driver, or one that is older than cuda-python: they look the same."""
    driver, wanted = call(cudart.cudaDriverGetVersion), call(cudart.cudaRuntimeGetVersion)
    if driver and error == cudart.cudaError_t.cudaErrorInsufficientDriver:
        return (
            f"The GPU's driver offers CUDA {_version(driver)}, the installed cuda-python is made for "
            f"{_version(wanted)}. Install the one of the driver's major, in Sightline's folder: "
            f"pip install '.[{'jetpack6' if driver < 13000 else 'jetpack7'}]'"
        )
    if driver:
        return (
            f"The driver (CUDA {_version(driver)}) is there, but shows no GPU to this process "
            f"({error.name}). Check CUDA_VISIBLE_DEVICES, and the user's groups (video, render)."
        )
    if nodes := _device_nodes():
        return (
            f"/dev/{nodes[0]} is there, but NVIDIA's driver library (libcuda.so.1) cannot be loaded. "
            "In a container, start it with --runtime nvidia; else install the driver."
        )
    return _NO_GPU


def _device_nodes() -> list[str]:
    return sorted(node.name for pattern in DEVICE_NODES for node in Path("/dev").glob(pattern))


def _jetpack_extra() -> str:
    """JetPack 6 is L4T R36 with CUDA 12; whatever is newer, and every desktop driver, takes 13."""
    release = Path("/etc/nv_tegra_release")
    older = platform.machine() == "aarch64" and release.is_file() and "R36" in release.read_text()
    return "jetpack6" if older else "jetpack7"


def _version(number: int) -> str:
    """CUDA's 12060 as `12.6`."""
    return f"{number // 1000}.{number % 1000 // 10}"
