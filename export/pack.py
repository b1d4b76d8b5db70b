"""From a Keras model to a proven bundle: calibrate, convert, compare, pack."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.graph import infer
from calibration.plan import Plan, provenance
from calibration.quantize import asymmetric
from calibration.samples import preprocessing
from calibration.simulate import simulate
from edge.bundle import (
    MANIFEST,
    Absent,
    Artefact,
    Bundle,
    Calibration,
    Format,
    Golden,
    Manifest,
    Metrics,
    Precision,
)
from edge.errors import CheckFailed, InputError
from edge.files import whole_folder, write_text
from edge.golden import check
from edge.machine import package_versions
from edge.pixels import normalise
from export import lint, onnx, tflite
from export.evidence import Evidence, examine
from export.gate import in_words, verdict
from export.golden import fitted, write_golden, write_part
from export.job import Job, Progress
from export.obstacles import explained
from export.repair import PLAN, REPAIRS, Record, Say, repaired
from export.report import report

SHIPPED: tuple[tuple[Format, Precision], ...] = (("tflite", "int8"), ("onnx", "int8"), ("onnx", "fp16"))
"""What a shipped bundle carries: what devices run."""

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


def export_bundle(
    job: Job,
    out: Path,
    progress: Progress = lambda what, done, total: None,
    say: Say = lambda line: None,
) -> Bundle:
    """Make the bundle at `out`, whole or not at all; `say` is given a line for each repair that is tried.

    An artefact whose metric drops by more than `max_drop` is left out, with the reason in the
    manifest; the caller decides what that means.

    Raises:
        LintFailed: an ONNX file breaks a rule of TensorRT's; nothing is written.
    """
    plan = _plan(job, progress) if "int8" in job.precisions else None
    record = Record()
    if plan is not None and job.plan is None:
        plan, record = repaired(job, plan, progress, say)
    with whole_folder(out) as folder:
        artefacts = tuple(_convert(job, plan, wanted, folder, progress) for wanted in job.wanted)
        manifest = _manifest(job, plan, artefacts, _golden(job, plan, folder))
        bundle = Bundle(folder, manifest)
        proven = _prove(job, bundle, progress)
        kept, failed = _gate(proven, job.max_drop)
        # Behind the gate: of a network that int8 ruins, any two runtimes differ by more than the tolerance,
        # and the message would blame the runtime.
        manifest = manifest.model_copy(update={"golden": fitted(bundle, kept)})
        kept, strayed = _repeated(Bundle(folder, manifest), kept)
        absent = (*failed, *strayed)
        for artefact in proven:
            if artefact.file not in {a.file for a in kept}:
                (folder / artefact.file).unlink()
        manifest = manifest.model_copy(update={"artefacts": kept, "absent": absent})
        if record.changed and plan is not None:
            record.write(folder, plan)
        elif job.plan is not None:
            job.plan.write(folder / PLAN)
        golden = len(job.proof.golden_inputs())
        evidence = Evidence(
            proven, job.max_drop, golden, examine(job, plan, record, progress) if plan else None
        )
        write_text(folder / "report.html", report(manifest, evidence))
        _write_manifest(manifest, folder)
        made = Bundle.open(folder).manifest
    return Bundle(out, made)


def ship(bundle: Bundle, out: Path) -> Bundle:
    """A copy with what devices run (`SHIPPED`) and everything of the proof but the other files."""
    kept = tuple(a for a in bundle.manifest.artefacts if (a.format, a.precision) in SHIPPED)
    left = tuple(a for a in bundle.manifest.artefacts if a not in kept)
    reason = "not shipped, to keep the package small; `sightline export` makes it"
    absent = tuple(_absent(a, reason) for a in left)
    with whole_folder(out) as folder:
        for name in (*(a.file for a in kept), "report.html", *_records(bundle)):
            shutil.copyfile(bundle.folder / name, folder / name)
        golden = write_part(folder, bundle, kept)
        update = {"artefacts": kept, "absent": (*bundle.manifest.absent, *absent), "golden": golden}
        _write_manifest(bundle.manifest.model_copy(update=update), folder)
    return Bundle.open(out)


def _records(bundle: Bundle) -> Iterator[str]:
    """Of a repaired bundle, what was tried and the plan: kilobytes, and a megabyte with AdaRound's bits."""
    return (name for name in (REPAIRS, PLAN) if (bundle.folder / name).exists())


def _plan(job: Job, progress: Progress) -> Plan:
    samples, pixels = job.proof.samples, preprocessing(job.card.input)
    if job.plan is not None:
        job.plan.provenance.check(provenance(job.graph, samples, job.settings, pixels))
        job.plan.check_fits(job.graph)
        return job.plan
    return job.calibrated(job.settings, progress, "calibrating")


def _convert(
    job: Job, plan: Plan | None, wanted: tuple[Format, Precision], folder: Path, progress: Progress
) -> Artefact:
    format, precision = wanted
    progress("converting", 0, len(job.wanted))
    target = {"tflite": tflite, "onnx": onnx}[format]
    with explained(job.model):
        if precision == "int8":
            assert plan is not None  # made whenever int8 is wanted
            content = target.int8(job.graph, plan)
        else:
            content = (target.fp32 if precision == "fp32" else target.fp16)(job.single)
    path = folder / f"model.{precision}.{format}"
    if format == "onnx":
        lint.check(content, path.name)
    path.write_bytes(content)
    progress("converting", 1, len(job.wanted))
    digest = hashlib.sha256(content).hexdigest()
    return Artefact(
        format=format, precision=precision, file=path.name, sha256=digest, size_bytes=len(content)
    )


def _manifest(job: Job, plan: Plan | None, artefacts: tuple[Artefact, ...], golden: Golden) -> Manifest:
    return Manifest(
        name=job.name,
        task=job.card.task,
        sightline=version("sightline"),
        input=job.card.input,
        outputs=job.proof.outputs(job.model),
        labels=job.card.labels,
        artefacts=artefacts,
        calibration=_calibration(job, plan) if plan else None,
        compared_with=job.compared.reference if job.compared else None,
        golden=golden,
    )


def _calibration(job: Job, plan: Plan) -> Calibration:
    return Calibration(
        model_sha256=job.model_sha256,
        samples_sha256=plan.provenance.samples_sha256,
        samples=plan.samples,
        source=plan.source,
        preprocessing=plan.provenance.preprocessing,
        method=plan.method,
        tools=package_versions(TOOLS, absent="absent"),
    )


def _golden(job: Job, plan: Plan | None, folder: Path) -> Golden:
    """Write `golden.npz`: what Keras, and for int8 its simulation, makes of the golden inputs."""
    inputs = job.proof.golden_inputs()
    pixels = normalise(inputs)
    exact = infer(job.model, pixels)
    if not all(np.isfinite(values).all() for values in exact.values()):
        raise InputError(
            f"Model '{job.name}' gives infinite values, or none that are numbers. Likely a training that diverged: "
            "`sightline evaluate` measures it."
        )
    vectors: dict[str, NDArray[Any]] = {"inputs": inputs}
    for format, precision in job.wanted:
        outputs = exact
        if precision == "int8":
            assert plan is not None
            outputs = infer(simulate(job.graph, plan, format), pixels)
        vectors |= {f"{format}.{precision}.{head}": values for head, values in outputs.items()}
    step = {head: asymmetric(float(v.min()), float(v.max())).scale for head, v in exact.items()}
    return write_golden(folder, vectors, plan.output_steps(job.graph) if plan else step, job.proof.tolerance)


def _prove(job: Job, bundle: Bundle, progress: Progress) -> tuple[Artefact, ...]:
    artefacts = bundle.manifest.artefacts
    total = len(job.proof) * (1 + len(artefacts))
    measured = job.proof.measure(job.reference, bundle, lambda done: progress("proving", done, total))
    return tuple(
        artefact.model_copy(update={"metrics": metrics})
        for artefact, metrics in zip(artefacts, measured, strict=True)
    )


Judged = tuple[tuple[Artefact, ...], tuple[Absent, ...]]
"""The artefacts that stay, and why the others do not."""


def _gate(proven: tuple[Artefact, ...], max_drop: float) -> Judged:
    """By the metric; those of which no one could tell are marked."""
    verdicts = [verdict(_measured(artefact), max_drop) for artefact in proven]
    kept = (
        a.model_copy(update={"undecided": in_words(_measured(a), max_drop)}) if found == "undecided" else a
        for a, found in zip(proven, verdicts, strict=True)
        if found != "failed"
    )
    failed = (
        _absent(a, in_words(_measured(a), max_drop))
        for a, found in zip(proven, verdicts, strict=True)
        if found == "failed"
    )
    return tuple(kept), tuple(failed)


def _repeated(bundle: Bundle, artefacts: tuple[Artefact, ...]) -> Judged:
    """By the golden vectors. A float16 that cannot hold the weights may keep the metric and lose these."""
    kept, strayed = [], []
    for artefact in artefacts:
        try:
            check(bundle, artefact.format, artefact.precision)
            kept.append(artefact)
        except CheckFailed as error:
            strayed.append(_absent(artefact, f"failed its gate: {str(error).rstrip('.')}"))
    return tuple(kept), tuple(strayed)


def _absent(artefact: Artefact, reason: str) -> Absent:
    return Absent(format=artefact.format, precision=artefact.precision, reason=reason)


def _measured(artefact: Artefact) -> Metrics:
    assert artefact.metrics is not None  # `_prove` measures each
    return artefact.metrics


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
