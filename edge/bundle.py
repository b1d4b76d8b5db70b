"""The bundle: the contract between those who make a model and the device that runs it.

A folder with `manifest.json`, the artefacts (`model.int8.tflite`, ...), `golden.npz` and
`report.html`. No parser ever sees a file whose SHA-256 is not the manifest's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import BundleChanged, BundleError, InputError
from edge.files import behind_links, replaced
from edge.pixels import ResizeRule
from edge.secret import masked

SCHEMA_VERSION = 2
"""2 came with `Artefact.undecided` and `Manifest.compared_with`; manifests of 1 are read as they are."""

MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent / "bundles"
DEFAULT_BUNDLE = "cifar10-base"

Format = Literal["tflite", "onnx"]
Precision = Literal["fp32", "fp16", "int8"]
FORMATS: tuple[Format, ...] = ("tflite", "onnx")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TaskName = Literal["classification", "faces"]


def _plain_name(name: str) -> str:
    """A file name without any folder: a manifest must not reach outside its bundle."""
    if not name or PurePosixPath(name).name != name or "\\" in name or name.startswith("."):
        raise ValueError(f"'{name}' is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
Step = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """The model's input: uint8 (1, height, width, 3), read as (x - 128) / 128."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    color: Literal["RGB"] = "RGB"
    resize: ResizeRule


class OutputSpec(_Part):
    """One raw head: float32 of `shape` (batch first), decoded as `role` says.

    Attributes:
        role: `logits` (1, classes) of a classifier, and `embedding` (1, D) where new classes can be taught
            well, see docs/enrolment.md; of a detector
            `score` (1, H/stride, W/stride, 1) and `box` (1, H/stride, W/stride, 4), see `edge.tasks.faces`.
        stride: pixels of the input between neighbouring cells of a detector's head.
    """

    name: str
    shape: tuple[Annotated[int, Field(gt=0)], ...]
    role: Literal["logits", "embedding", "score", "box"]
    stride: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _has_the_rank_of_its_role(self) -> OutputSpec:
        rank = 4 if self.role in ("score", "box") else 2
        if len(self.shape) != rank:
            raise ValueError(
                f"a head of the role {self.role} has {rank} sizes, '{self.name}' has {self.shape}"
            )
        return self


class Metrics(_Part):
    """An artefact against Keras on the same real images.

    Attributes:
        metric: `top1`, or `ap50` of a detector, in per cent; value: the artefact's; reference: Keras's.
        n: images.
        drop: reference - value, in points; drop_ci95: its paired bootstrap interval.
        agreement: per cent of images on which both name the same class; of a detector, per cent of
            Keras's faces with a score of at least 0.5 that the artefact finds with one too, at an IoU of
            at least 0.5 (100 where Keras finds none).
        max_error, mean_error: absolute differences of the raw outputs, over all heads.
    """

    metric: Literal["top1", "ap50"]
    value: float
    reference: float
    n: int
    drop: float
    drop_ci95: tuple[float, float]
    agreement: float
    max_error: float
    mean_error: float


class Artefact(_Part):
    """One file that a runner loads.

    Attributes:
        undecided: why its gate could not tell, where the images were too few; None where it passed.
    """

    format: Format
    precision: Precision
    file: FileName
    sha256: Sha256
    size_bytes: int = Field(gt=0)
    metrics: Metrics | None = None
    undecided: str | None = None


class Reference(_Part):
    """The float Keras model that `Metrics` compare with.

    Attributes:
        kind: `itself`, the exported model; `origin`, the one that quantization-aware training started from;
            `trained`, the weights of such a training, since the origin was not there.
        words: the same for people; sha256: of its file.
    """

    kind: Literal["itself", "origin", "trained"]
    words: str
    sha256: Sha256


class Absent(_Part):
    """An artefact that could not be made, or failed its gate, and why."""

    format: Format
    precision: Precision
    reason: str


class Calibration(_Part):
    """What the ranges were decided from; enough to tell whether they still hold."""

    model_sha256: Sha256
    samples_sha256: Sha256
    samples: int
    source: str
    preprocessing: str
    method: str
    tools: dict[str, str]


class Golden(_Part):
    """A few inputs with the outputs each precision must give.

    Attributes:
        file: `.npz` with `inputs` uint8 (n, H, W, 3) and, for each head and artefact,
            `<format>.<precision>.<head>` float32: what Keras, or its int8 simulation, gives.
        step: by head, one quantization step of the int8 output, in the head's own unit.
        tolerance_steps: the largest difference allowed, in steps.
        share: of a head's values that must keep the tolerance; the others must keep four times as much.
            Below 1 for maps of thousands of values: where two runtimes round one value of an early layer
            apart, which all do, the difference grows on its way through a deep network.
        margin_steps: of logits, top-1 must be equal where the two best lie further apart.
    """

    file: FileName
    sha256: Sha256
    step: dict[str, Step]
    tolerance_steps: float = 3.0
    share: float = Field(default=1.0, gt=0, le=1)
    margin_steps: float = 6.0


class Manifest(_Part):
    """`manifest.json`."""

    schema_version: Literal[1, 2] = 2
    name: str
    task: TaskName
    sightline: str
    input: InputSpec
    outputs: Annotated[tuple[OutputSpec, ...], Field(min_length=1)]
    labels: tuple[str, ...]
    artefacts: tuple[Artefact, ...]
    absent: tuple[Absent, ...] = ()
    calibration: Calibration | None = None
    compared_with: Reference | None = None
    golden: Golden

    @model_validator(mode="after")
    def _labels_are_those_of_the_logits(self) -> Manifest:
        if self.task != "classification":
            return self
        head = self.outputs[0] if self.outputs else None
        if head is None or head.role != "logits":
            raise ValueError("a classifier's first output must be its logits")
        if head.shape[-1] != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels are named for {head.shape[-1]} logits")
        return self


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest has been checked, its files not yet."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path_or_name: str | Path) -> Bundle:
        """Open a bundle's folder, or a shipped one by name.

        Raises:
            BundleError: no such bundle, no manifest, an unreadable one, or a newer schema.
        """
        folder = _locate(path_or_name)
        try:
            content: Any = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{folder / MANIFEST} cannot be read ({error}). Export the bundle anew."
            ) from error
        return cls(folder, _manifest(content, folder))

    def artefact(self, format: Format, precision: Precision) -> Artefact:
        """The artefact of a format and precision; the error tells why one is absent."""
        for artefact in self.manifest.artefacts:
            if (artefact.format, artefact.precision) == (format, precision):
                return artefact
        for absent in self.manifest.absent:
            if (absent.format, absent.precision) == (format, precision):
                raise InputError(f"{self.folder} holds no {format} {precision}: {absent.reason}")
        held = ", ".join(f"{a.format} {a.precision}" for a in self.manifest.artefacts)
        raise InputError(f"{self.folder} holds no {format} {precision}. It holds: {held}.")

    def content(self, part: Artefact | Golden) -> bytes:
        """A file's bytes, after its hash was found right. Parse these, not the file.

        Raises:
            BundleError: the file is missing. BundleChanged: it is not the one that was packed.
        """
        path = self.folder / part.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}). Export the bundle anew.") from error
        found = hashlib.sha256(content).hexdigest()
        if found != part.sha256:
            raise BundleChanged(
                f"{path} was changed: its SHA-256 is {found[:12]}…, the manifest says {part.sha256[:12]}…. "
                "Nothing was loaded. Copy or export the bundle anew."
            )
        return content

    def check_shapes(self, pixels: Sequence[object], heads: Mapping[str, Sequence[object]]) -> None:
        """That a loaded artefact has the manifest's input and heads; its batch may be another.

        Args:
            pixels: the shape of its input; heads: of each output, by name. A size that is no number is open.

        Raises:
            BundleError: it has others.
        """
        spec = self.manifest.input
        stated = [(output.name, output.shape, heads[output.name]) for output in self.manifest.outputs]
        for name, wanted, found in [("input", (1, spec.height, spec.width, 3), pixels), *stated]:
            sizes = zip(wanted[1:], found[1:], strict=False)
            if len(found) != len(wanted) or any(isinstance(f, int) and f != w for w, f in sizes):
                raise BundleError(
                    f"{self.folder}: the manifest states {wanted} for '{name}', the file has {tuple(found)}. "
                    "Export the bundle anew."
                )

    def verify(self) -> None:
        """Check every file; raises what `content` raises."""
        parts: Iterable[Artefact | Golden] = (*self.manifest.artefacts, self.manifest.golden)
        for part in parts:
            self.content(part)


def shipped() -> tuple[str, ...]:
    """The names of the bundles inside the package."""
    return tuple(sorted(p.parent.name for p in SHIPPED.glob(f"*/{MANIFEST}")))


def _locate(path_or_name: str | Path) -> Path:
    for folder in (Path(path_or_name), SHIPPED / str(path_or_name)):
        if (folder / MANIFEST).is_file():
            return folder
    former = replaced(behind_links(Path(path_or_name)))
    if (former / MANIFEST).is_file():
        raise BundleError(
            f"No bundle at '{path_or_name}': an export ended while it replaced it. The former one is {former}: "
            "rename it, or export anew."
        )
    raise BundleError(
        f"No bundle at '{masked(str(path_or_name))}': expected a folder with {MANIFEST}, "
        f"or one of the shipped: {', '.join(shipped()) or 'none'}."
    )


def _manifest(content: Any, folder: Path) -> Manifest:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{folder} has manifest schema {version}, this Sightline reads up to {SCHEMA_VERSION}. "
            "Update Sightline, or export the bundle with this version."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        message = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"{folder / MANIFEST} is not a manifest: {where}: {message}.") from error
