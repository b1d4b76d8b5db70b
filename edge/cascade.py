"""The models of a stream: each frame goes through all of them, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edge.bundle import Bundle
from edge.config import ModelInput, ModelSettings
from edge.errors import InputError
from edge.frame import Frame, Laps
from edge.model import Model
from edge.pixels import Image
from edge.protocols import SourceInfo
from edge.results import Classification, Faces, FrameResult, Result
from edge.track import Tracker

CROP_MARGIN = 0.2
"""Around a face, of its longer side: classifiers of faces are trained with hair and chin."""


@dataclass(frozen=True)
class Member:
    """One model of a cascade.

    Attributes:
        name: unique in the cascade; the results stand under it.
        input: `frame`, or `faces`: the crops of the faces that the last detector before it found.
        most_faces: of a frame that it takes, the best first.
    """

    name: str
    model: Model
    input: ModelInput = "frame"
    most_faces: int = 8


class Cascade:
    """Models in the order in which a frame goes through them; used by one thread.

    Raises:
        InputError: two of one name, or a model that wants faces without a detector before it.

    Attributes:
        members: the models.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self._detector_of = _detectors(self.members)
        self._trackers: dict[str, Tracker] = {}

    @classmethod
    def open(cls, settings: Sequence[ModelSettings], score_threshold: float | None = None) -> Cascade:
        """Load the bundles; what was loaded is closed again when one of them fails.

        Args:
            score_threshold: of every detector that has none of its own; None takes the task's.

        Raises:
            InputError: as above, or a threshold without a detector. And whatever `Bundle.open` and
                `Model.open` raise.
        """
        with ExitStack() as on_error:
            members = []
            for wanted in settings:
                members.append(_member(wanted, score_threshold))
                on_error.callback(members[-1].model.close)
            cascade = cls(members)
            if score_threshold is not None and not any(m.model.finds_faces for m in members):
                raise InputError("A score threshold is for detectors, and there is none. Leave it out.")
            on_error.pop_all()
        return cascade

    def start(self, source: SourceInfo) -> None:
        """Begin a stream: faces are followed through it, unless it is a heap of single pictures."""
        detectors = [member.name for member in self.members if member.model.finds_faces]
        self._trackers = {name: Tracker() for name in detectors if source.fps > 0}

    def process(self, frame: Frame) -> FrameResult:
        """What all models say of a frame; marks preprocess, infer and postprocess in its stamps."""
        results: dict[str, Result] = {}
        for member in self.members:
            laps = frame.stamps.begin(member.name)
            if member.input == "frame":
                results[member.name] = self._of_frame(member, frame.pixels, laps)
            else:
                detector = self._detector_of[member.name]
                results[detector] = _of_faces(member, results[detector], frame.pixels, laps)
        frame.stamps.finish_models()
        return FrameResult(results)

    @property
    def title(self) -> str:
        """For people: `face-320 + cats  tflite int8`, or each with its own backend and precision."""
        kinds = {f"{member.model.backend} {member.model.precision}" for member in self.members}
        if len(kinds) == 1:
            return " + ".join(member.name for member in self.members) + f"  {kinds.pop()}"
        return " + ".join(f"{m.name} {m.model.backend} {m.model.precision}" for m in self.members)

    def close(self) -> None:
        """Free the models' memory."""
        for member in self.members:
            member.model.close()

    def _of_frame(self, member: Member, pixels: Image, laps: Laps) -> Result:
        result = _timed(member.model, pixels, laps)
        if isinstance(result, Faces) and member.name in self._trackers:
            result = result.tracked(self._trackers[member.name].update(result.boxes))
            laps.lap("postprocess")
        return result


def _member(settings: ModelSettings, score_threshold: float | None) -> Member:
    bundle, own = Bundle.open(settings.bundle), settings.score_threshold
    if own is None and bundle.manifest.task == "faces":
        own = score_threshold
    model = Model.open(bundle, settings.backend, settings.precision, settings.threads, own)
    return Member(settings.name or model.name, model, settings.input, settings.most_faces)


def _detectors(members: Sequence[Member]) -> dict[str, str]:
    """By the name of each model that wants faces, that of the detector which finds them."""
    found: dict[str, str] = {}
    detector, names = "", set()
    for member in members:
        if member.name in names:
            raise InputError(f"Two models are called '{member.name}'. Give one of them another `name`.")
        names.add(member.name)
        if member.input == "faces":
            _check_takes_faces(member, detector)
            found[member.name] = detector
        elif member.model.finds_faces:
            detector = member.name
    return found


def _check_takes_faces(member: Member, detector: str) -> None:
    if member.model.finds_faces:
        raise InputError(f"'{member.name}' finds faces itself: its input is the frame, not \"faces\".")
    if not detector:
        raise InputError(
            f"'{member.name}' has input = \"faces\", but no detector stands before it to find them. "
            'Put a [[models]] table with a face bundle first, or take input = "frame".'
        )


def _timed(model: Model, pixels: Image, laps: Laps) -> Result:
    prepared = model.prepare(pixels)
    laps.lap("preprocess")
    heads = model.infer(prepared)
    laps.lap("infer")
    result = model.decode(heads, pixels)
    laps.lap("postprocess")
    return result


def _of_faces(member: Member, faces: Result, pixels: Image, laps: Laps) -> Faces:
    """The faces with what the model says of each one's crop."""
    assert isinstance(faces, Faces), "a detector was found for it"
    results = (_timed(member.model, crop, laps) for crop in crops(faces, pixels, member.most_faces))
    found = tuple(result for result in results if isinstance(result, Classification))
    return faces.classified(member.name, found)


def crops(faces: Faces, pixels: Image, most: int) -> Iterator[Image]:
    """The best faces' squares with a margin, as far as they lie in the picture; views, not copies."""
    height, width = pixels.shape[:2]
    for x0, y0, x1, y1 in faces.boxes[:most].tolist():
        half = max(x1 - x0, y1 - y0) * (0.5 + CROP_MARGIN)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        left, top = max(0, int(x - half)), max(0, int(y - half))
        # A face of a fraction of a pixel at the edge still makes a crop of one.
        right, bottom = min(width, max(left + 1, round(x + half))), min(height, max(top + 1, round(y + half)))
        yield pixels[min(top, height - 1) : bottom, min(left, width - 1) : right]
