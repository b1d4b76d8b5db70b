"""Proving a face detector: AP50 on the test split, and face by face against Keras's own detections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from calibration.graph import heads, infer
from calibration.samples import Samples, boxed_samples, every_nth
from edge.boxes import iou
from edge.bundle import Artefact, Bundle, InputSpec, Metrics, OutputSpec
from edge.errors import InputError
from edge.pixels import Image, fit, normalise
from edge.protocols import Heads, Runner
from edge.results import Faces
from edge.runners import open_runner
from edge.tasks.faces import FacesTask
from export.golden import Tolerance, photographs
from export.proof import Advance, Judge, Share
from train.card import Card
from train.detection.average_precision import average_precision, paired_bootstrap
from train.detection.data import BoxedImages, load_boxed, pictures
from train.detection.evaluate import SCORE_FLOOR, keras_detections, matches

IOU = 0.5
SURE = 0.5
"""A face from this score on must be found by the artefact too, with such a score."""

JUDGED = 600
"""Training pictures on which repairs are judged. Of 200 the drop varies by more than the half point that is allowed."""

BATCH = 16
THREADS = 2
DEPTH = {"score": 1, "box": 4}


@dataclass(frozen=True)
class FaceDetection:
    """Pictures with boxes: `samples` to calibrate on, `held_back` to judge repairs, `test` to prove the artefacts."""

    input: InputSpec
    samples: Samples
    test: BoxedImages
    held_back: BoxedImages
    tolerance: ClassVar[Tolerance] = Tolerance(steps=16.0, share=0.99)

    @classmethod
    def load(cls, data: str, card: Card, share: Share) -> FaceDetection:
        """Read the annotations of both splits, and the pictures to calibrate on.

        Raises:
            InputError: no such data, or no face to find in the test split.
        """
        test = load_boxed(data, "test")
        if share.limit is not None:
            test = every_nth(test, share.limit)
        if not test.faces:
            raise InputError(f"{test.source} has no face that counts, so nothing can be proven on it.")
        train = load_boxed(data, "train")
        watched = boxed_samples(train, card.input, share.samples, share.sample)
        return cls(card.input, watched, test, _others(train, watched))

    def __len__(self) -> int:
        return len(self.test)

    def outputs(self, model: Any) -> tuple[OutputSpec, ...]:
        """The heads `score_<stride>` (1, H/stride, W/stride, 1) and `box_<stride>` with 4 channels."""
        specs = tuple(
            self._output(name, (1, *tuple(tensor.shape)[1:])) for name, tensor in heads(model).items()
        )
        scores, boxes = ({s.stride for s in specs if s.role == role} for role in ("score", "box"))
        if scores != boxes:
            raise _not_a_detector(", ".join(spec.name for spec in specs))
        return specs

    def _output(self, name: str, shape: tuple[int, ...]) -> OutputSpec:
        role, _, stride = name.rpartition("_")
        if role not in DEPTH or not stride.isdecimal() or not int(stride):
            raise _not_a_detector(name)
        wanted = (1, self.input.height // int(stride), self.input.width // int(stride), DEPTH[role])
        if shape != wanted:
            raise _not_a_detector(f"{name} {shape} in place of {wanted}")
        return OutputSpec.model_validate({"name": name, "shape": shape, "role": role, "stride": int(stride)})

    def golden_inputs(self) -> Image:
        """Photographs in the public domain, one of them with a face."""
        return photographs(self.input.height, self.input.width)

    @property
    def can_judge(self) -> bool:
        """Whether training pictures with faces are left that were not calibrated on."""
        return self.held_back.faces > 0

    def judge(self, model: Any) -> Judge | None:
        """By AP50."""
        if not self.can_judge:
            return None
        exact = self._ap50(model)
        return Judge(len(self.held_back), lambda simulation: exact - self._ap50(simulation))

    def _ap50(self, model: Any) -> float:
        """Of the pictures held back, in per cent."""
        found = keras_detections(model, self.held_back, self.input)
        return 100 * average_precision(matches(self.held_back, found))

    def measure(self, model: Any, bundle: Bundle, advance: Advance) -> tuple[Metrics, ...]:
        """AP50 of each artefact against the Keras model's, all from one pass over the pictures."""
        task, reference = FacesTask(bundle.manifest, SCORE_FLOOR), _Faces()
        with ExitStack() as stack:
            found = [_Compared(_opened(stack, bundle, artefact)) for artefact in bundle.manifest.artefacts]
            for picture, pixels, exact in self._through(model, self.test):
                reference.append(task.decode(exact, picture))
                for one in found:
                    one.add(pixels, exact, picture, task)
                advance(1 + len(found))
        return tuple(one.metrics(self.test, reference) for one in found)

    def _through(self, model: Any, boxed: BoxedImages) -> Iterator[tuple[Image, Image, Heads]]:
        """Each picture, its pixels uint8 (1, H, W, 3), and what Keras makes of them."""
        size, reader = self.input, pictures(boxed.images)
        while part := list(islice(reader, BATCH)):
            pixels = np.stack([fit(picture, size.height, size.width, size.resize) for picture in part])
            outputs = infer(model, normalise(pixels))
            for index, picture in enumerate(part):
                one = slice(index, index + 1)
                yield picture, pixels[one], {name: values[one] for name, values in outputs.items()}


_Faces = list[Faces]


@dataclass
class _Compared:
    """One artefact's detections and its differences from Keras, gathered picture by picture."""

    runner: Runner
    faces: _Faces = field(default_factory=_Faces)
    largest: float = 0.0
    total: float = 0.0
    values: int = 0

    def add(self, pixels: Image, exact: Heads, picture: Image, task: FacesTask) -> None:
        """Run one picture, once, for its faces and its differences."""
        outputs = self.runner.infer(pixels)
        self.faces.append(task.decode(outputs, picture))
        for name, wanted in exact.items():
            errors = np.abs(outputs[name] - wanted)
            self.largest = max(self.largest, float(errors.max()))
            self.total += float(errors.sum(dtype=np.float64))
            self.values += errors.size

    def metrics(self, test: BoxedImages, reference: _Faces) -> Metrics:
        return compare(test, reference, self.faces, self.largest, self.total / self.values)


def compare(
    test: BoxedImages, reference: _Faces, found: _Faces, max_error: float, mean_error: float
) -> Metrics:
    """The figures of the parity table, from Keras's and the artefact's faces in the same pictures."""
    wanted, matched = matches(test, reference), matches(test, found)
    value, exact = 100 * average_precision(matched), 100 * average_precision(wanted)
    low, high = paired_bootstrap(wanted, matched)
    return Metrics(
        metric="ap50",
        value=value,
        reference=exact,
        n=len(test),
        drop=exact - value,
        drop_ci95=(100 * low, 100 * high),
        agreement=agreement(reference, found),
        max_error=max_error,
        mean_error=mean_error,
    )


def agreement(reference: _Faces, found: _Faces) -> float:
    """Per cent of the reference's faces with a score of at least `SURE` that the other finds, so, too.

    100 where the reference has none: there was nothing to miss.
    """
    sure = same = 0
    for wanted, others in zip(reference, found, strict=True):
        boxes = wanted.boxes[wanted.scores >= SURE]
        candidates = others.boxes[others.scores >= SURE]
        sure += len(boxes)
        same += int((iou(boxes, candidates) >= IOU).any(axis=1).sum()) if len(candidates) else 0
    return 100 * same / sure if sure else 100.0


def _others(train: BoxedImages, watched: Samples) -> BoxedImages:
    """Training pictures, evenly spaced, that were not watched."""
    known = set(watched.ids)
    rest = tuple(image for image in train.images if str(image.image_id) not in known)
    return every_nth(BoxedImages(rest, train.source), JUDGED)


def _opened(stack: ExitStack, bundle: Bundle, artefact: Artefact) -> Runner:
    return stack.enter_context(closing(open_runner(bundle, artefact.format, artefact.precision, THREADS)))


def _not_a_detector(found: str) -> InputError:
    return InputError(
        "A face detector has two heads for each stride s, `score_<s>` (1, H/s, W/s, 1) and `box_<s>` "
        f"(1, H/s, W/s, 4), named by their layers; found {found}. See `train/models/face.py`."
    )
