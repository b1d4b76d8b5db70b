"""The bundle's report: one self-contained HTML page with the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from edge.bundle import Manifest
from edge.profiling.page_style import document
from export.evidence import Evidence
from export.report_html import STYLE
from export.report_int8 import quantization, repairs, sensitivity
from export.report_parity import parity, sizes
from export.report_tested import tested

_TASKS = {"classification": "classification into {classes} classes", "faces": "face detection"}


def report(manifest: Manifest, evidence: Evidence) -> str:
    """The page.

    Args:
        manifest: of the bundle, its failed artefacts already absent.
        evidence: what is not in the manifest.
    """
    int8 = evidence.int8
    sections = [
        _title(manifest),
        _lead(manifest, evidence),
        parity(manifest, evidence.proven),
        sizes(evidence.proven),
        tested(manifest, evidence),
        *([repairs(int8), sensitivity(int8), quantization(int8)] if int8 else []),
        _provenance(manifest),
    ]
    return document(f"{manifest.name}: export report", STYLE, sections)


def _title(manifest: Manifest) -> str:
    spec = manifest.input
    return (
        f"<h1>{escape(manifest.name)}</h1>"
        f"<p>{_TASKS[manifest.task].format(classes=len(manifest.labels))} from {spec.width}×{spec.height} "
        f"{spec.color} pixels ({spec.resize}), exported by Sightline {escape(manifest.sightline)}.</p>"
    )


def _lead(manifest: Manifest, evidence: Evidence) -> str:
    """What someone reads who reads nothing else."""
    return f'<div class="lead">{"".join(f"<p>{line}</p>" for line in _lines(manifest, evidence))}</div>'


def _lines(manifest: Manifest, evidence: Evidence) -> Iterator[str]:
    made, kept = len(evidence.proven), manifest.artefacts
    undecided = sum(artefact.undecided is not None for artefact in kept)
    passed = len(kept) - undecided
    yield (
        f"<b>{passed} of {made} artefacts passed the gate</b> (at most {evidence.max_drop:g} points lost)"
        + (f"; for {undecided} the images were too few to tell." if undecided else ".")
    )
    if lost := [f"{a.format} {a.precision}" for a in manifest.absent]:
        yield f'<span class="bad">Left out: {escape(", ".join(lost))}.</span>'
    if manifest.compared_with is not None and manifest.compared_with.kind != "itself":
        yield f"Compared with {escape(manifest.compared_with.words)}."
    yield "<b>No device has run this bundle yet</b>: everything here was measured on the machine that exported it."


def _provenance(manifest: Manifest) -> str:
    facts = [("labels", ", ".join(manifest.labels))]
    if manifest.compared_with is not None:
        reference = manifest.compared_with
        facts.append(("compared with", f"{reference.words}; SHA-256 {reference.sha256}"))
    if manifest.calibration is not None:
        calibration = manifest.calibration
        facts += [
            ("model", f"SHA-256 {calibration.model_sha256}"),
            (
                "calibration",
                f"{calibration.method} over {calibration.samples} images of {calibration.source}",
            ),
            ("images", f"SHA-256 {calibration.samples_sha256}"),
            ("preprocessing", calibration.preprocessing),
            ("tools", ", ".join(f"{name} {version}" for name, version in calibration.tools.items())),
        ]
    facts += [(a.file, f"SHA-256 {a.sha256}") for a in manifest.artefacts]
    items = "".join(f"<dt>{escape(term)}</dt><dd><code>{escape(text)}</code></dd>" for term, text in facts)
    return f"<h2>Provenance</h2><dl>{items}</dl>"
