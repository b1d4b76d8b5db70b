"""What an export knows beyond the manifest: what its report shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from calibration.coverage import Coverage, coverage, doubts
from calibration.graph import Graph
from calibration.plan import Plan
from calibration.samples import Pictures
from calibration.sensitivity import layer_rows
from edge.bundle import Artefact, Format
from edge.machine import package_versions, this_machine
from export.job import Job, Progress
from export.repair import Record

RUNTIMES: dict[Format, str] = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}
"""The package that ran the artefacts of a format."""

PIXELS, MOST_IMAGES, FEWEST_IMAGES = 64 * 64 * 64, 64, 8
"""Of the calibration images that tell where int8 hurts: so many pixels in all, and so many images. Two networks
a layer see each: of `models/cifar10-base.keras` they take a few seconds."""

PHASE = "examining"


@dataclass(frozen=True)
class Int8:
    """What was found about the quantization.

    Attributes:
        graph: what int8 was made from, prepared as the plan says; plan: that plan.
        covered: by tensor, how held-out images fare with its range; empty where there were none.
        doubts: what speaks against the calibration images, in words.
        layers: rows of `calibration.sensitivity.layer_rows`; watched: on how many images; target: whose rounding.
        record: what the repair loop tried.
    """

    graph: Graph
    plan: Plan
    covered: dict[str, Coverage]
    doubts: tuple[str, ...]
    layers: list[dict[str, Any]]
    watched: int
    target: Format
    record: Record


@dataclass(frozen=True)
class Evidence:
    """Everything that was found out in an export.

    Attributes:
        proven: every artefact that was made, with its metrics, those that failed their gate too.
        max_drop: what the gate allowed, in points.
        golden: inputs of the golden vectors that each artefact of the bundle repeated.
        runtimes: versions of what ran them; machine: on which processor.
        int8: None where no int8 was made.
    """

    proven: tuple[Artefact, ...]
    max_drop: float
    golden: int
    int8: Int8 | None = None
    runtimes: dict[str, str] = field(
        default_factory=lambda: package_versions(tuple(RUNTIMES.values()), absent="absent")
    )
    machine: str = field(default_factory=lambda: this_machine().cpu)


def examine(job: Job, plan: Plan, record: Record, progress: Progress) -> Int8:
    """Look at coverage and sensitivity; told to `progress` as one phase."""
    samples = job.proof.samples
    images, target = _few(samples.images), job.formats[0]
    held_out = 0 if samples.held_out is None else len(samples.held_out)
    total = held_out + len(images)
    covered: dict[str, Coverage] = {}
    if samples.held_out is not None:
        covered = coverage(job.graph, plan, samples.held_out, lambda done: progress(PHASE, done, total))
    rows = layer_rows(job.graph, plan, images, target)
    progress(PHASE, len(images), total)
    prepared, words = plan.prepared(job.graph, target), doubts(samples, covered)
    return Int8(prepared, plan, covered, words, rows, len(images), target, record)


def _few(images: Pictures) -> Pictures:
    _, height, width, _ = images.shape
    count = max(FEWEST_IMAGES, min(MOST_IMAGES, PIXELS // (height * width)))
    return images[:: -(-len(images) // count)]
