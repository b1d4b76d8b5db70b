"""Which backend a model of a daemon runs on: the best that is ready here and computes what was proven.

The backends are tried in the order of `ORDER`. One that cannot run, and one whose outputs are not the golden
vectors', is refused with the reason; the model serves on the first that is not. TensorRT needs a plan for
this very device, which may take minutes to build: until then another backend serves (`edge.upgrade`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge.bundle import Bundle, Precision
from edge.errors import BundleChanged, CheckFailed, InputError, SightlineError
from edge.golden import replay
from edge.protocols import Runner
from edge.runners import ARTEFACT_OF, cuda, open_runner
from edge.tables import RUNNERS

ORDER = ("tensorrt", "onnx-cuda", "tflite", "onnx")
"""Best first. On a CPU LiteRT comes before ONNX Runtime, which takes 6.4 ms for the int8 face-320x192 and
1.8 ms for its fp16, where LiteRT takes 0.48 ms (2-core x86 virtual machine, p50 of 150, one thread)."""

ON_GPU = ("tensorrt", "onnx-cuda")
"""Not even imported where there is no GPU: the first result would come a fifth of a second later."""

_FASTEST: dict[str, tuple[Precision, ...]] = {"onnx-cuda": ("fp16", "fp32", "int8")}
"""Best first, of backends for which int8 is not: ONNX Runtime's CUDA kernels have no fused int8."""

_SMALLEST: tuple[Precision, ...] = ("int8", "fp16", "fp32")


@dataclass(frozen=True)
class Refusal:
    """A backend that was not taken, and why."""

    backend: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}: {self.reason}".replace(" : ", ": ")


@dataclass(frozen=True)
class Serving:
    """What a model runs on.

    Attributes:
        refused: the backends before it in the order.
        golden_steps: how far its outputs are from the golden ones, in int8 output steps.
    """

    backend: str
    precision: Precision
    runner: Runner
    refused: tuple[Refusal, ...]
    golden_steps: float


def serve(bundle: Bundle, backend: str = "auto", precision: str = "auto", threads: int = 1) -> Serving:
    """The first backend in the order that can run and repeats the golden vectors.

    Args:
        backend: `auto`, or the only one to try; precision: `auto`, or the only one.

    Raises:
        CheckFailed: none is left, and one or more computed something else than was proven.
        InputError: none is left; the message names the model and each reason. BundleChanged: a file's
            hash is not the manifest's: then nothing of the bundle is to be trusted.
    """
    refused: list[Refusal] = []
    mismatch = False
    for name, wanted in candidates(bundle, backend, precision):
        if wanted is None:
            refused.append(Refusal(name, "", _holds_nothing(bundle, name, precision)))
            continue
        if backend == "auto" and name in ON_GPU and not cuda.is_in_sight():
            refused.append(Refusal(name, wanted, "it needs an NVIDIA GPU, and this machine has none"))
            continue
        try:
            runner, steps = open_proven(bundle, name, wanted, threads)
        except BundleChanged as error:
            if name != "tensorrt":  # whose plan is made here, and may be made again
                raise
            refused.append(Refusal(name, wanted, str(error)))
        except SightlineError as error:
            mismatch |= isinstance(error, CheckFailed)
            refused.append(Refusal(name, wanted, str(error)))
        else:
            return Serving(name, wanted, runner, tuple(refused), steps)
    reasons = "\n".join(f"  {refusal}" for refusal in refused)
    text = f"The model {bundle.manifest.name} ({bundle.folder}) runs on no backend here:\n{reasons}"
    raise CheckFailed(text) if mismatch else InputError(text)


def candidates(
    bundle: Bundle, backend: str = "auto", precision: str = "auto"
) -> Iterator[tuple[str, Precision | None]]:
    """Each backend to try with the best precision that the bundle holds for it; None where it holds none.

    Raises:
        InputError: there is no such backend.
    """
    if backend not in ("auto", *RUNNERS):
        raise InputError(f"Unknown backend '{backend}'; there are auto, {', '.join(RUNNERS)}.")
    for name in ORDER if backend == "auto" else (backend,):
        yield name, best_precision(bundle, name, precision)


def best_precision(bundle: Bundle, backend: str, precision: str = "auto") -> Precision | None:
    """Of those that the bundle holds for a backend."""
    held = {a.precision for a in bundle.manifest.artefacts if a.format == ARTEFACT_OF[backend]}
    fitting = (p for p in _FASTEST.get(backend, _SMALLEST) if p in held and precision in ("auto", p))
    return next(fitting, None)


def open_proven(bundle: Bundle, backend: str, precision: Precision, threads: int) -> tuple[Runner, float]:
    """A runner that has repeated the golden vectors, and by how many steps it differs from them.

    Raises:
        SightlineError: it cannot be loaded. CheckFailed: it computes something else.
    """
    runner = open_runner(bundle, backend, precision, threads)
    return _proven(runner, lambda: replay(bundle, runner, backend, precision))


def _proven(runner: Runner, check: Callable[[], float]) -> tuple[Runner, float]:
    try:
        return runner, check()
    except BaseException:
        runner.close()
        raise


def _holds_nothing(bundle: Bundle, backend: str, precision: str) -> str:
    wanted = f"{ARTEFACT_OF[backend]} artefact" + ("" if precision == "auto" else f" of {precision}")
    return f"the bundle holds no {wanted}"
