"""The models of a stream: each frame goes through all of them, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from edge.bundle import Bundle
from edge.config import ModelInput, ModelSettings
from edge.errors import InputError
from edge.frame import Frame, Laps
from edge.model import Model
from edge.pixels import Halves, Image
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
        interval, every_s: it sees each n-th frame of a camera, and none within so many seconds of the last.
    """

    name: str
    model: Model
    input: ModelInput = "frame"
    most_faces: int = 8
    interval: int = 1
    every_s: float = 0.0

    def is_due(self, last: Seen | None, number: int, capture_ns: int) -> bool:
        """Whether it sees a camera's frame number `number`, captured then."""
        if last is None:
            return True
        every_ns = round(self.every_s * 1e9)
        return number - last.number >= self.interval and capture_ns - last.capture_ns >= every_ns


@dataclass(frozen=True)
class Seen:
    """The last frame of a camera that a model saw: its number, its capture stamp and what was said of it."""

    number: int
    capture_ns: int
    result: Result


@dataclass
class Stream:
    """What models remember of one camera.

    Attributes:
        follows: whether faces are followed: not through a heap of single pictures.
        trackers, seen: by the model's name.
        number: of the present frame, from 0.
    """

    follows: bool
    trackers: dict[str, Tracker] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    number: int = -1

    def tracker(self, name: str) -> Tracker:
        """The one of a detector."""
        return self.trackers.setdefault(name, Tracker())


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
        self._streams: dict[str, Stream] = {}
        of_frames = [member for member in self.members if member.input == "frame"]
        self._shared = (Halves(),) if len(of_frames) > 1 else ()

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
                members.append(_opened(wanted, score_threshold))
                on_error.callback(members[-1].model.close)
            cascade = cls(members)
            check_threshold(members, score_threshold)
            on_error.pop_all()
        return cascade

    def start(self, source: SourceInfo) -> None:
        """Begin a stream: faces are followed through it, unless it is a heap of single pictures.

        Streams are told apart by `source.camera`.
        """
        self._streams[source.camera] = Stream(source.fps > 0)

    def forget(self, camera: str) -> None:
        """A camera's stream is over."""
        self._streams.pop(camera, None)

    def continue_from(self, other: Cascade) -> None:
        """Take over what `other` remembers of its streams, for the models of the same name."""
        names = {member.name for member in self.members}
        for camera, stream in other._streams.items():
            trackers = {name: found for name, found in stream.trackers.items() if name in names}
            self._streams[camera] = Stream(stream.follows, trackers, number=stream.number)

    def process(self, frame: Frame) -> FrameResult:
        """What all models say of a frame; marks preprocess, infer and postprocess in its stamps.

        A model whose turn it is not leaves the frame alone; the result it gave before stands in its place.
        """
        stream = self._streams.get(frame.camera) or Stream(follows=False)
        stream.number += 1
        for halves in self._shared:
            halves.begin(frame.pixels)
        results: dict[str, Result] = {}
        held_ms: dict[str, float] = {}
        for member in self.members:
            last = stream.seen.get(member.name)
            due = member.is_due(last, stream.number, frame.stamps.capture)
            if member.input == "faces":
                detector = self._detector_of[member.name]
                # Faces that are held have their classes already, and lie elsewhere in this frame.
                if due and detector not in held_ms:
                    results[detector] = _of_faces(member, results[detector], frame)
                    stream.seen[member.name] = Seen(stream.number, frame.stamps.capture, results[detector])
            elif due or last is None:
                results[member.name] = _of_frame(member, frame, stream, *self._shared)
            else:
                results[member.name] = last.result
                held_ms[member.name] = (frame.stamps.capture - last.capture_ns) / 1e6
        self._remember(stream, results, held_ms, frame.stamps.capture)
        frame.stamps.finish_models()
        return FrameResult(results, held_ms)

    def _remember(
        self, stream: Stream, results: Mapping[str, Result], held_ms: Mapping[str, float], capture_ns: int
    ) -> None:
        """Only of models that may pass over a frame."""
        for member in self.members:
            passes_over = member.interval > 1 or member.every_s > 0
            if passes_over and member.input == "frame" and member.name not in held_ms:
                stream.seen[member.name] = Seen(stream.number, capture_ns, results[member.name])

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


def member_of(settings: ModelSettings, model: Model) -> Member:
    """A model as its settings place it in a cascade."""
    s = settings
    if s.enrolled is not None:
        from edge.enrolment.task import with_enrolled

        model = with_enrolled(model, s.enrolled, s.people)
    return Member(s.name or model.name, model, s.input, s.most_faces, s.interval, s.every_s)


def threshold_of(settings: ModelSettings, bundle: Bundle, score_threshold: float | None) -> float | None:
    """The model's own; of a detector that has none, the one of all."""
    if settings.score_threshold is None and bundle.manifest.task == "faces":
        return score_threshold
    return settings.score_threshold


def check_threshold(members: Sequence[Member], score_threshold: float | None) -> None:
    """Raises InputError for a threshold of all detectors where there is none."""
    if score_threshold is not None and not any(m.model.finds_faces for m in members):
        raise InputError("A score threshold is for detectors, and there is none. Leave it out.")


def _opened(settings: ModelSettings, score_threshold: float | None) -> Member:
    bundle = Bundle.open(settings.bundle)
    own = threshold_of(settings, bundle, score_threshold)
    model = Model.open(bundle, settings.backend, settings.precision, settings.threads, own)
    return member_of(settings, model)


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


def _timed(model: Model, pixels: Image, laps: Laps, *shared: Halves) -> Result:
    prepared = model.prepare(pixels, *shared)
    laps.lap("preprocess")
    heads = model.infer(prepared)
    laps.lap("infer")
    result = model.decode(heads, pixels)
    laps.lap("postprocess")
    return result


def _of_frame(member: Member, frame: Frame, stream: Stream, *shared: Halves) -> Result:
    """What the model says of the whole frame; faces with their tracks."""
    laps = frame.stamps.begin(member.name)
    result = _timed(member.model, frame.pixels, laps, *shared)
    if isinstance(result, Faces) and stream.follows:
        result = result.tracked(stream.tracker(member.name).update(result.boxes))
        laps.lap("postprocess")
    return result


def _of_faces(member: Member, faces: Result, frame: Frame) -> Faces:
    """The faces with what the model says of each one's crop."""
    assert isinstance(faces, Faces), "a detector was found for it"
    laps = frame.stamps.begin(member.name)
    found_crops = crops(faces, frame.pixels, member.most_faces)
    results = (_timed(member.model, crop, laps) for crop in found_crops)
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
