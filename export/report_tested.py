"""The report's account of what was tested where, and of what was not."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from edge.bundle import Manifest
from export.evidence import RUNTIMES, Evidence
from export.report_html import table

Row = tuple[str, str, str]

_TARGETS = {"tflite": "TFLite", "onnx": "ONNX"}


def tested(manifest: Manifest, evidence: Evidence) -> str:
    """Two tables: what ran, and what did not."""
    return (
        "<h2>What was tested where</h2>"
        + table(("check", "where", "on what, and the result"), _ran(manifest, evidence), words=True)
        + "<h2>What was not tested</h2>"
        + table(("what", "why, and what would tell"), _open(manifest), words=True)
    )


def _ran(manifest: Manifest, evidence: Evidence) -> Iterator[Row]:
    kept = {artefact.file for artefact in manifest.artefacts}
    for format in dict.fromkeys(artefact.format for artefact in evidence.proven):
        package = RUNTIMES[format]
        made = [artefact for artefact in evidence.proven if artefact.format == format]
        where = escape(f"{package} {evidence.runtimes[package]}, {evidence.machine}")
        images = max(artefact.metrics.n for artefact in made if artefact.metrics is not None)
        names = ", ".join(artefact.precision for artefact in made)
        yield f"{_TARGETS[format]} {names}: parity", where, f"{images:,} test images, one at a time; above"
        names = ", ".join(artefact.precision for artefact in made if artefact.file in kept)
        if names:
            yield f"{_TARGETS[format]} {names}: golden vectors", where, f"{evidence.golden} inputs; repeated"
    if any(artefact.format == "onnx" for artefact in evidence.proven):
        yield (
            "TensorRT's rules for ONNX files",
            "Sightline's lint, no NVIDIA software",
            "every ONNX file; obeyed",
        )
    if evidence.int8 is not None:
        yield (
            "int8 by layer",
            "Keras, which simulates it",
            f"{evidence.int8.watched} calibration images; below",
        )


def _open(manifest: Manifest) -> Iterator[tuple[str, str]]:
    formats = {artefact.format for artefact in manifest.artefacts}
    yield (
        "Any device",
        "No device run yet: no Jetson, no GPU and no camera has seen this bundle. On one, <code>sightline evaluate "
        "BUNDLE --data DIR</code> measures it as here.",
    )
    if "onnx" in formats:
        yield (
            "TensorRT",
            "No engine was built or run when this page was written: an engine belongs to one device. On it, "
            "<code>sightline build BUNDLE</code> builds it, and a daemon repeats the golden vectors before it serves. "
            "What the ONNX files lose here, they lose in ONNX Runtime, whose int8 rounds where TensorRT's does, but "
            "not in the same kernels.",
        )
    yield (
        "Speed, memory, power",
        "Nothing was timed. <code>sightline profile BUNDLE</code> does, on the device that counts.",
    )
    yield (
        "Other pictures",
        "The figures hold for pictures like the test images. <code>sightline evaluate --corrupt</code> tells what "
        "blur, noise and compression cost a classifier.",
    )
