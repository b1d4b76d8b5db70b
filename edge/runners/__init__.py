"""Runners: one file a backend, and the choice among them."""

from __future__ import annotations

from importlib.util import find_spec

from edge.bundle import PRECISIONS, Bundle, Format, Precision
from edge.errors import InputError
from edge.protocols import Runner
from edge.tables import RUNNERS, resolve

ARTEFACT_OF: dict[str, Format] = {
    "tflite": "tflite", "onnx": "onnx", "onnx-cuda": "onnx", "tensorrt": "onnx"
}  # fmt: skip
"""The artefact each backend is made from; a TensorRT plan is built from the ONNX file."""

_FASTEST_FIRST: tuple[Precision, ...] = ("int8", "fp16", "fp32")


def choose(bundle: Bundle, backend: str = "auto", precision: str = "auto") -> tuple[str, Precision]:
    """Backend and precision for this bundle on this machine.

    `auto` takes TensorRT where a plan was built here, then TFLite, then ONNX Runtime; and the
    smallest precision that the bundle holds for it.

    Raises:
        InputError: an unknown name, or nothing in the bundle fits.
    """
    if backend not in ("auto", *RUNNERS):
        raise InputError(f"Unknown backend '{backend}'; there are auto, {', '.join(RUNNERS)}.")
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"Unknown precision '{precision}'; there are auto, {', '.join(PRECISIONS)}.")
    for name in [backend] if backend != "auto" else _usable(bundle):
        for wanted in _FASTEST_FIRST:
            if precision in ("auto", wanted) and _holds(bundle, ARTEFACT_OF[name], wanted):
                return name, wanted
    # Nothing fits: let the bundle say what is absent, and why.
    first = backend if backend != "auto" else "tflite"
    bundle.artefact(ARTEFACT_OF[first], _FASTEST_FIRST[0] if precision == "auto" else _precision(precision))
    raise InputError(f"{bundle.folder} holds nothing that can run here.")


def open_runner(bundle: Bundle, backend: str, precision: Precision, threads: int = 1) -> Runner:
    """Load an artefact on a backend; raises MissingPackageError where the backend is not installed."""
    runner: Runner = resolve(RUNNERS[backend])(bundle, precision, threads)
    return runner


def _usable(bundle: Bundle) -> list[str]:
    """Backends to try for `auto`; none is loaded, but for TensorRT where the bundle holds a plan."""
    from edge.runners.plans import usable_plan

    names = ["tensorrt"] if usable_plan(bundle) else []
    names += ["tflite"] if _installed("ai_edge_litert", "tflite_runtime") else []
    return [*names, *(["onnx"] if _installed("onnxruntime") else [])] or ["tflite"]


def _installed(*packages: str) -> bool:
    return any(find_spec(package) is not None for package in packages)


def _holds(bundle: Bundle, format: Format, precision: Precision) -> bool:
    return any((a.format, a.precision) == (format, precision) for a in bundle.manifest.artefacts)


def _precision(name: str) -> Precision:
    return next(precision for precision in PRECISIONS if precision == name)
