"""A bundle brought to life: one runner and the task that reads its heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge.bundle import Bundle, Manifest, Precision
from edge.errors import InputError
from edge.pixels import Fitter, Halves, Image
from edge.protocols import Heads, Runner, Task
from edge.results import Result
from edge.runners import choose, open_runner
from edge.tables import TASKS, resolve


@dataclass
class Model:
    """What a pipeline needs of a model: picture in, result out, in three steps that are timed apart.

    Attributes:
        manifest: of its bundle.
        backend: `tflite`, `onnx` or `tensorrt`; precision: `fp32`, `fp16` or `int8`.
    """

    manifest: Manifest
    backend: str
    precision: Precision
    _runner: Runner
    _task: Task
    _fitter: Fitter = field(init=False)

    def __post_init__(self) -> None:
        self._fitter = _fitter(self.manifest, self._runner)

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        backend: str = "auto",
        precision: str = "auto",
        threads: int = 1,
        score_threshold: float | None = None,
    ) -> Model:
        """Load a bundle; `auto` takes what `edge.runners.choose` finds best here.

        Args:
            score_threshold: of a detector, 0 to 1; None takes its task's own.

        Raises:
            InputError: the bundle holds no such artefact, the backend is unknown or absent, or a
                threshold is out of range or given to a classifier.
            BundleChanged: a file's hash is not the manifest's.
        """
        task = _task(bundle.manifest, score_threshold)
        name, chosen = choose(bundle, backend, precision)
        return cls(bundle.manifest, name, chosen, open_runner(bundle, name, chosen, threads), task)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        backend: str,
        precision: Precision,
        open_it: Callable[[], Runner],
        score_threshold: float | None = None,
    ) -> Model:
        """Of a runner that `open_it` loads; raises InputError for a wrong threshold, before that."""
        task = _task(bundle.manifest, score_threshold)
        return cls(bundle.manifest, backend, precision, open_it(), task)

    def switch(self, runner: Runner, backend: str, precision: Precision) -> Runner:
        """Go on with another runner of the same bundle, from the next picture on; returns the old one.

        To be called between two pictures, by the thread that infers.
        """
        old, self._runner = self._runner, runner
        self.backend, self.precision = backend, precision
        self._fitter = _fitter(self.manifest, runner)
        return old

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    @property
    def finds_faces(self) -> bool:
        """Whether its results are `Faces`."""
        return self.manifest.task == "faces"

    def prepare(self, picture: Image, shared: Halves | None = None) -> Image:
        """uint8 (H, W, 3) RGB of any size to the model's uint8 (1, height, width, 3); valid until the next call.

        Args:
            shared: the halves of this picture, where several models see it.
        """
        return self._fitter(picture, shared)[None]

    def infer(self, pixels: Image) -> Heads:
        """The raw heads of `prepare`'s output."""
        return self._runner.infer(pixels)

    def decode(self, heads: Heads, picture: Image) -> Result:
        """The typed result."""
        return self._task.decode(heads, picture)

    def predict(self, picture: Image) -> Result:
        """All three steps: uint8 (H, W, 3) RGB to the result."""
        return self.decode(self.infer(self.prepare(picture)), picture)

    def close(self) -> None:
        """Free the model's memory."""
        self._runner.close()


def _fitter(manifest: Manifest, runner: Runner) -> Fitter:
    """Writes into the runner's own staging memory where it has some."""
    spec, staging = manifest.input, getattr(runner, "staging", None)
    return Fitter(spec.height, spec.width, spec.resize, None if staging is None else staging[0])


def _task(manifest: Manifest, score_threshold: float | None) -> Task:
    if score_threshold is None:
        task: Task = resolve(TASKS[manifest.task])(manifest)
        return task
    if not 0 <= score_threshold <= 1:  # which 'nan' is not, either
        raise InputError(f"The score threshold is {score_threshold:g}: expected a number from 0 to 1.")
    if manifest.task != "faces":
        raise InputError(
            f"A score threshold is for detectors, and {manifest.name} is a model for {manifest.task}: "
            "it gives every class its score. Leave the threshold out."
        )
    detector: Task = resolve(TASKS[manifest.task])(manifest, score_threshold)
    return detector
