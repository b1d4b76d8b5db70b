"""Where the time of one inference goes, layer by layer, on each backend by its own profiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.bundle import Bundle, Precision
from edge.errors import InputError
from edge.profiling.layers_report import Layer, LayerReport
from edge.tables import resolve

if TYPE_CHECKING:
    from edge.profiling.roofline import Roofline

__all__ = ["Layer", "LayerReport", "profile_layers"]

PROFILERS = {
    "onnx": "edge.profiling.layers_onnx:profile",
    "tflite": "edge.profiling.layers_litert:profile",
    "tensorrt": "edge.profiling.layers_tensorrt:profile",
}

FEWEST_RUNS = 5
"""Below these the interquartile mean is no longer deaf to one disturbed run."""


def profile_layers(
    bundle: Bundle,
    backend: str,
    precision: Precision,
    runs: int = 50,
    threads: int = 1,
    roofline: Roofline | None = None,
) -> LayerReport:
    """Time each layer of an artefact over `runs` inferences of one random picture.

    Args:
        backend: `onnx`, `tflite` or `tensorrt`; not `auto`, see `edge.runners.choose`.
        roofline: of this device at this precision (`edge.profiling.roofline.measure`); without it the
            layers have no bound.

    Raises:
        InputError: an unknown backend, too few runs, or a runtime that cannot be profiled here.
    """
    if backend not in PROFILERS:
        raise InputError(f"No layer profiler for '{backend}'; there are {', '.join(PROFILERS)}.")
    if runs < FEWEST_RUNS:
        raise InputError(f"Layers need at least {FEWEST_RUNS} runs, got {runs}: one run may be disturbed.")
    report: LayerReport = resolve(PROFILERS[backend])(bundle, precision, runs, threads)
    return report.bounded(roofline) if roofline else report
