"""From a Keras model to a proven bundle: calibrate, convert, compare, pack."""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.fold import fold
from calibration.graph import Graph, build, read
from calibration.plan import Plan, make_plan, passes
from calibration.quantize import asymmetric
from calibration.simulate import simulate
from edge.bundle import (
    MANIFEST,
    Absent,
    Artefact,
    Bundle,
    Calibration,
    Format,
    Golden,
    InputSpec,
    Manifest,
    OutputSpec,
    Precision,
)
from edge.files import whole_folder, write_text
from edge.golden import check
from edge.pixels import Image, normalise
from export import onnx, tflite
from export.parity import artefact_logits, compare, keras_logits
from export.report import report
from train.data import LabelledImages

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how much is done now, how much there is)."""

HEAD = onnx.OUTPUT
SHIPPED: tuple[tuple[Format, Precision], ...] = (("tflite", "int8"), ("onnx", "int8"), ("onnx", "fp16"))
"""What a shipped bundle carries: what devices run."""

TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
GOLDEN_INPUTS = 8


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        model: Keras, float32 (N, H, W, 3) in [-1, 127/128] to logits (N, classes).
        model_sha256: of its file.
        name, labels, input: what the manifest says of it.
        calibration: images to watch, from the training split; test: images to prove it on.
        method: of the ranges, see `calibration.plan`.
        formats, precisions: what to make.
        max_drop: the largest loss of top-1 against Keras, in points.
    """

    model: Any
    model_sha256: str
    name: str
    labels: tuple[str, ...]
    input: InputSpec
    calibration: LabelledImages
    test: LabelledImages
    method: str
    formats: tuple[Format, ...]
    precisions: tuple[Precision, ...]
    max_drop: float

    @cached_property
    def graph(self) -> Graph:
        """The folded network; raises InputError where int8 does not know a layer."""
        return fold(read(self.model))

    @cached_property
    def single(self) -> Any:
        """The float model with batch 1 that both float converters take."""
        import keras

        if "int8" in self.precisions:
            return build(self.graph, batch=1)
        pixels = keras.Input(self.model.input_shape[1:], batch_size=1, name=onnx.INPUT)
        return keras.Model(pixels, self.model(pixels))

    @property
    def wanted(self) -> tuple[tuple[Format, Precision], ...]:
        """The artefacts to make."""
        return tuple((f, p) for f in self.formats for p in self.precisions)


def export_bundle(job: Job, out: Path, progress: Progress = lambda what, done, total: None) -> Bundle:
    """Make the bundle at `out`, whole or not at all.

    An artefact whose top-1 drops by more than `max_drop` is left out, with the reason in the
    manifest; the caller decides what that means.
    """
    plan = _plan(job, progress) if "int8" in job.precisions else None
    with whole_folder(out) as folder:
        made = [_convert(job, plan, wanted, folder, progress) for wanted in job.wanted]
        manifest = _manifest(job, plan, tuple(made), _golden(job, plan, folder))
        bundle = Bundle(folder, manifest)
        for artefact in made:
            check(bundle, artefact.format, artefact.precision)
        proven = _prove(job, bundle, progress)
        kept, failed = _gate(proven, job.max_drop)
        for artefact in failed:
            (folder / artefact.file).unlink()
        absent = tuple(
            Absent(format=a.format, precision=a.precision, reason=_why(a, job.max_drop)) for a in failed
        )
        manifest = manifest.model_copy(update={"artefacts": kept, "absent": absent})
        write_text(folder / "report.html", report(manifest, proven, job.graph if plan else None, plan))
        _write_manifest(manifest, folder)
    return Bundle.open(out)


def ship(bundle: Bundle, out: Path) -> Bundle:
    """A copy with what devices run (`SHIPPED`) and everything of the proof but the other files."""
    kept = tuple(a for a in bundle.manifest.artefacts if (a.format, a.precision) in SHIPPED)
    left = tuple(a for a in bundle.manifest.artefacts if a not in kept)
    reason = "not shipped, to keep the package small; `sightline export` makes it"
    absent = tuple(Absent(format=a.format, precision=a.precision, reason=reason) for a in left)
    with whole_folder(out) as folder:
        for name in (*(a.file for a in kept), bundle.manifest.golden.file, "report.html"):
            shutil.copyfile(bundle.folder / name, folder / name)
        update = {"artefacts": kept, "absent": (*bundle.manifest.absent, *absent)}
        _write_manifest(bundle.manifest.model_copy(update=update), folder)
    return Bundle.open(out)


def _plan(job: Job, progress: Progress) -> Plan:
    images, total = job.calibration, passes(job.method) * len(job.calibration)
    return make_plan(
        job.graph, images.images, images.source, job.method, lambda done: progress("calibrating", done, total)
    )


def _convert(
    job: Job, plan: Plan | None, wanted: tuple[Format, Precision], folder: Path, progress: Progress
) -> Artefact:
    format, precision = wanted
    progress("converting", 0, len(job.wanted))
    target = {"tflite": tflite, "onnx": onnx}[format]
    if precision == "int8":
        assert plan is not None  # made whenever int8 is wanted
        content = target.int8(job.graph, plan)
    else:
        content = (target.fp32 if precision == "fp32" else target.fp16)(job.single)
    path = folder / f"model.{precision}.{format}"
    path.write_bytes(content)
    progress("converting", 1, len(job.wanted))
    digest = hashlib.sha256(content).hexdigest()
    return Artefact(
        format=format, precision=precision, file=path.name, sha256=digest, size_bytes=len(content)
    )


def _manifest(job: Job, plan: Plan | None, artefacts: tuple[Artefact, ...], golden: Golden) -> Manifest:
    return Manifest(
        name=job.name,
        task="classification",
        sightline=version("sightline"),
        input=job.input,
        outputs=(OutputSpec(name=HEAD, shape=(1, len(job.labels)), role="logits"),),
        labels=job.labels,
        artefacts=artefacts,
        calibration=_calibration(job, plan) if plan else None,
        golden=golden,
    )


def _calibration(job: Job, plan: Plan) -> Calibration:
    spec = job.input
    return Calibration(
        model_sha256=job.model_sha256,
        samples_sha256=plan.samples_sha256,
        samples=plan.samples,
        source=plan.source,
        preprocessing=f"{spec.resize} to {spec.width}x{spec.height} {spec.color}, (x - 128) / 128",
        method=plan.method,
        tools=tool_versions(),
    )


def tool_versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what the files hold."""
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _golden(job: Job, plan: Plan | None, folder: Path) -> Golden:
    """Write `golden.npz`: what Keras, and for int8 its simulation, makes of the golden inputs."""
    inputs = golden_inputs(job.input.height, job.input.width)
    pixels = normalise(inputs)
    exact = np.asarray(job.model(pixels, training=False), np.float32)
    vectors: dict[str, NDArray[Any]] = {"inputs": inputs}
    for format, precision in job.wanted:
        outputs = exact
        if precision == "int8":
            assert plan is not None
            outputs = np.asarray(simulate(job.graph, plan, format)(pixels, training=False), np.float32)
        vectors[f"{format}.{precision}.{HEAD}"] = outputs
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **vectors)
    (folder / "golden.npz").write_bytes(buffer.getvalue())
    step = asymmetric(float(exact.min()), float(exact.max())).scale
    if plan is not None:
        step = plan.output_step(job.graph)
    return Golden(file="golden.npz", sha256=hashlib.sha256(buffer.getvalue()).hexdigest(), step={HEAD: step})


def golden_inputs(height: int, width: int) -> Image:
    """Eight pictures of soft coloured blobs with some noise: uint8 (8, height, width, 3).

    Made, not taken from a data set, so that a bundle carries nobody's pictures.
    """
    import cv2

    rng = np.random.default_rng(0)
    pictures = np.empty((GOLDEN_INPUTS, height, width, 3), np.uint8)
    for index in range(GOLDEN_INPUTS):
        blobs = rng.integers(0, 256, (3 + index, 3 + index, 3)).astype(np.float32)
        soft = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
        pictures[index] = np.clip(soft + rng.normal(0, 8, soft.shape), 0, 255)
    return pictures


def _prove(job: Job, bundle: Bundle, progress: Progress) -> tuple[Artefact, ...]:
    images, labels = job.test.images, job.test.labels
    total = len(images) * (1 + len(bundle.manifest.artefacts))

    def advance(done: int) -> None:
        progress("proving", done, total)

    reference = keras_logits(job.model, images, advance)
    proven = []
    for artefact in bundle.manifest.artefacts:
        found = artefact_logits(bundle, artefact, images, progress=advance)
        proven.append(artefact.model_copy(update={"metrics": compare(reference, found, labels)}))
    return tuple(proven)


def _gate(proven: tuple[Artefact, ...], max_drop: float) -> tuple[tuple[Artefact, ...], tuple[Artefact, ...]]:
    """The artefacts that passed, and those that did not."""
    passed = tuple(a for a in proven if a.metrics is not None and a.metrics.drop <= max_drop)
    return passed, tuple(a for a in proven if a not in passed)


def _why(artefact: Artefact, max_drop: float) -> str:
    assert artefact.metrics is not None
    return (
        f"failed its gate: top-1 dropped by {artefact.metrics.drop:.2f} points on {artefact.metrics.n} images, "
        f"{max_drop:g} are allowed"
    )


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
