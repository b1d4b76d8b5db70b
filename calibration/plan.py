"""The quantization plan: every decision, taken once, that both int8 exporters follow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from calibration import observers
from calibration.fold import WEIGHTED
from calibration.graph import Graph, Node
from calibration.observers import KEEP_RANGE, Progress, Range
from calibration.quantize import PIXELS, TensorParams, asymmetric, kernel_scales, symmetric
from edge.bundle import Format, TaskName
from edge.errors import InputError
from edge.files import write_text
from edge.pixels import Image

DEFAULT_METHOD = "percentile:99.99"
METHODS: dict[TaskName, str] = {"classification": DEFAULT_METHOD, "faces": "minmax"}
"""By task, unless the call names one. A detector's rare large values are its faces: cutting off the largest
0.01 % cost `models/face.keras` 1.2 (TFLite) to 1.5 points (ONNX) of AP50 at 320x320."""


class Plan(BaseModel):
    """Ranges and scales by node name.

    Attributes:
        method: how the ranges were chosen, `minmax` or `percentile:P`.
        ranges: of each measured node's output, in real units.
        kernel_scales: of each convolution, one an output channel, in real units a step.
        samples: how many images were watched; samples_sha256: which ones.
        source: where they came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    ranges: dict[str, Range]
    kernel_scales: dict[str, tuple[float, ...]]
    samples: int
    samples_sha256: str
    source: str

    def params(self, graph: Graph, node: Node, target: Format) -> TensorParams:
        """How the output of `node` is rounded for a target."""
        if node.kind == "InputLayer":
            return PIXELS
        if node.kind in KEEP_RANGE:
            return self.params(graph, graph[node.inputs[0]], target)
        return (asymmetric if target == "tflite" else symmetric)(*self.ranges[node.name])

    def output_steps(self, graph: Graph) -> dict[str, float]:
        """By head, one step of the TFLite output, in the head's own unit."""
        nodes = {head: graph[name] for head, name in graph.outputs.items()}
        return {head: self.params(graph, node, "tflite").scale for head, node in nodes.items()}

    def write(self, path: Path) -> None:
        """Write the plan as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2))


def make_plan(
    graph: Graph,
    images: Image,
    source: str,
    method: str = DEFAULT_METHOD,
    progress: Progress = lambda done: None,
) -> Plan:
    """Watch a folded graph on images, uint8 (N, H, W, 3) RGB, and decide.

    Raises:
        InputError: an unknown method, or images of another size than the model's input.
    """
    if images.shape[1:] != graph.nodes[0].shape:
        raise InputError(
            f"The model takes {graph.nodes[0].shape}, the calibration images are {images.shape[1:]}."
        )
    ranges = _ranges(method)(graph, images, progress)
    return Plan(
        method=method,
        ranges=ranges,
        kernel_scales={
            node.name: tuple(map(float, kernel_scales(node))) for node in graph.nodes if node.kind in WEIGHTED
        },
        samples=len(images),
        samples_sha256=hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        source=source,
    )


def passes(method: str) -> int:
    """How often a method goes through the images, for a progress bar's total."""
    return 1 if method == "minmax" else 2


def _ranges(method: str) -> Callable[[Graph, Image, Progress], dict[str, Range]]:
    name, _, argument = method.partition(":")
    if name == "minmax" and not argument:
        return observers.min_max
    try:
        percent = float(argument)
    except ValueError:
        percent = 0.0
    if name != "percentile" or not percent:
        raise InputError(f"Unknown range method '{method}'; there are 'minmax' and 'percentile:P', as 99.99.")
    return lambda graph, images, progress: observers.percentile(graph, images, percent, progress)
