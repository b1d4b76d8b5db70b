"""The least time that a layer can take on a device, and what this processor can do, measured.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model", CACM 52(4):
a layer is bound by its arithmetic or by its memory traffic, whichever takes longer.
"""

from __future__ import annotations

import base64
import lzma
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge.bundle import Precision
from edge.errors import MissingPackageError
from edge.native import stderr_held_back
from edge.profiling import gemm

ITEM_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}

COPIED_BYTES = 64 * 2**20
"""Larger than the caches of the processors that this is for; a server with more reads too much here."""

FEWEST = 5
"""Measurements of each kind, however long they take."""


@dataclass(frozen=True)
class Roofline:
    """What a device can do at most.

    Attributes:
        macs_per_s: multiplications with addition, in one precision.
        bytes_per_s: between processor and memory, read and written together.
        source: where the two figures are from.
    """

    macs_per_s: float
    bytes_per_s: float
    source: str = ""

    def bound_ms(self, macs: float, bytes: float) -> float:
        """The least milliseconds for so much arithmetic and memory traffic."""
        return 1e3 * max(macs / self.macs_per_s, bytes / self.bytes_per_s)

    def limit(self, macs: float, bytes: float) -> Literal["arithmetic", "memory"]:
        """Which of the two it is that takes longer."""
        return "arithmetic" if macs / self.macs_per_s >= bytes / self.bytes_per_s else "memory"


def measure(precision: Precision = "int8", threads: int = 1, seconds: float = 0.5) -> Roofline:
    """This processor: the fastest matrix product of the runtime, and the fastest copy in memory.

    The fastest, not the mean: what else runs on the machine can only slow both down. A half of the
    time goes to each. fp16 is measured as fp32, in which LiteRT computes it on processors.

    Args:
        threads: of the runtime; the copy is made by one, which on most processors does not reach the
            bandwidth of all.
    """
    multiply, source = _product(precision, threads)
    macs_per_s = gemm.MACS / _fastest_s(multiply, seconds / 2)
    return Roofline(macs_per_s, _copied_bytes_per_s(seconds / 2), f"measured: {source}, one thread copying")


def _product(precision: Precision, threads: int) -> tuple[Callable[[], object], str]:
    try:
        return _litert_product(precision, threads), f"LiteRT, {threads} thread{'s' * (threads > 1)}"
    except MissingPackageError:
        if precision == "int8":
            raise
        return _numpy_product(), "NumPy's matrix product, threads of its own choice"


def _litert_product(precision: Precision, threads: int) -> Callable[[], object]:
    """A 1x1 convolution of 1024 positions; its data fit into a cache of a mebibyte."""
    from edge.runners.tflite import _interpreter_class

    content = lzma.decompress(base64.b85decode(gemm.FILES["int8" if precision == "int8" else "fp32"]))
    with stderr_held_back():
        interpreter: Any = _interpreter_class()(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    # Ordinary numbers: denormal ones, which fresh memory may hold, are slow on some processors.
    interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    run: Callable[[], object] = interpreter.invoke
    return run


def _numpy_product() -> Callable[[], object]:
    a, b = np.ones((1024, 256), np.float32), np.ones((256, 256), np.float32)
    out = np.empty((1024, 256), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _copied_bytes_per_s(seconds: float) -> float:
    """A byte copied is read once and written once, as STREAM counts (McCalpin 1995)."""
    source, target = np.ones(COPIED_BYTES, np.uint8), np.zeros(COPIED_BYTES, np.uint8)
    return 2 * COPIED_BYTES / _fastest_s(lambda: np.copyto(target, source), seconds)


def _fastest_s(function: Callable[[], object], seconds: float) -> float:
    """Of at least `FEWEST` calls, after one that is not counted."""
    function()
    fastest, calls, until_s = float("inf"), 0, time.perf_counter() + seconds
    while calls < FEWEST or time.perf_counter() < until_s:
        begin_s = time.perf_counter()
        function()
        fastest, calls = min(fastest, time.perf_counter() - begin_s), calls + 1
    return fastest
