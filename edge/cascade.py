"""The models of a stream: each frame goes through all of them, in their order or side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from edge.bundle import Bundle
from edge.config import ModelInput, ModelSettings
from edge.errors import InputError
from edge.frame import Frame, Laps
from edge.model import Model
from edge.parallel import Choice, Crew, cores
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
        interval, every_s: it sees each n-th frame of a camera, and none within so many seconds of the last. Of faces
            it sees no frame that has none.
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


@dataclass(frozen=True)
class Branch:
    """What must run one after the other: a model of whole frames, and those of the faces that it finds."""

    head: Member
    of_faces: tuple[Member, ...] = ()


@dataclass
class BranchDone:
    """What a branch says of a frame.

    Attributes:
        held_ms: how much older the frame is whose result this is; None where the model saw this one.
        laps: by the model's name, in the order in which they ran; end_ns: when the last had ended.
    """

    name: str
    result: Result
    held_ms: float | None
    laps: dict[str, Laps]
    end_ns: int


@dataclass
class Stream:
    """What models remember of one camera.

    Attributes:
        follows: whether faces are followed: not through a heap of single pictures.
        trackers, seen: by the model's name.
        number: of the present frame, from 0.
        size: its height and width.
    """

    follows: bool
    trackers: dict[str, Tracker] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    number: int = -1
    size: tuple[int, ...] = ()

    def next(self, size: tuple[int, ...]) -> None:
        """A frame of this height and width is the present one; in another size no box of an earlier one holds."""
        self.number += 1
        if self.size and size != self.size and self.follows:
            self.seen.clear()
            for tracker in self.trackers.values():
                tracker.scale(size[1] / self.size[1], size[0] / self.size[0])
        self.size = size

    def tracker(self, name: str) -> Tracker:
        """The one of a detector."""
        return self.trackers.setdefault(name, Tracker())

    def is_due(self, member: Member, capture_ns: int) -> bool:
        """Whether a model sees the present frame."""
        return member.is_due(self.seen.get(member.name), self.number, capture_ns)


class Cascade:
    """Models in the order in which a frame goes through them; used by one thread.

    Args:
        parallel: models that need nothing of one another run on several threads, as far as there are cores;
            None tries whether that is quicker, see `edge.parallel`.

    Raises:
        InputError: two of one name, or a model that wants faces without a detector before it.

    Attributes:
        members: the models; choice: which way they run.
    """

    def __init__(self, members: Sequence[Member], parallel: bool | None = False) -> None:
        self.members = tuple(members)
        self._branches = _branches(self.members)
        useful = min(len(self._branches), cores())
        self.choice = Choice(parallel if useful > 1 else False)
        self._crew: Crew[BranchDone] = Crew(useful - 1)
        self._streams: dict[str, Stream] = {}
        of_frames = [member for member in self.members if member.input == "frame"]
        self._shared = Halves() if len(of_frames) > 1 else None

    @classmethod
    def open(
        cls,
        settings: Sequence[ModelSettings],
        score_threshold: float | None = None,
        parallel: bool | None = False,
    ) -> Cascade:
        """Load the bundles; what was loaded is closed again when one of them fails.

        Args:
            score_threshold: of every detector that has none of its own; None takes the task's.
            parallel: as of the class.

        Raises:
            InputError: as above, or a threshold without a detector. And whatever `Bundle.open` and
                `Model.open` raise.
        """
        with ExitStack() as on_error:
            members = []
            for wanted in settings:
                members.append(_opened(wanted, score_threshold))
                on_error.callback(members[-1].model.close)
            cascade = cls(members, parallel)
            check_threshold(members, score_threshold)
            on_error.pop_all()
        return cascade

    def start(self, source: SourceInfo) -> None:
        """Begin a stream: faces are followed through it, unless it is a heap of single pictures.

        Streams are told apart by `source.camera`.
        """
        self._streams[source.camera] = Stream(follows=not source.is_pictures)

    def forget(self, camera: str) -> None:
        """A camera's stream is over."""
        self._streams.pop(camera, None)

    def continue_from(self, other: Cascade) -> None:
        """Take over what `other` remembers of its streams, for the models of the same name."""
        names = {member.name for member in self.members}
        for camera, stream in other._streams.items():
            trackers = {name: found for name, found in stream.trackers.items() if name in names}
            self._streams[camera] = Stream(stream.follows, trackers, size=stream.size)

    def process(self, frame: Frame) -> FrameResult:
        """What all models say of a frame; marks preprocess, infer and postprocess in its stamps.

        A model whose turn it is not leaves the frame alone; the result it gave before stands in its place.
        """
        stream, stamps = self._streams.get(frame.camera) or Stream(follows=False), frame.stamps
        stream.next(frame.pixels.shape[:2])
        if self._shared is not None:
            self._shared.begin(frame.pixels)
        several = sum(stream.is_due(branch.head, stamps.capture) for branch in self._branches) > 1
        side_by_side = several and self.choice.next()  # a helper is not woken for nothing
        jobs = [partial(_run_branch, branch, frame, stream, self._shared) for branch in self._branches]
        threads = self._crew.run(jobs, stamps.dequeue, side_by_side)
        if several:
            self.choice.took(side_by_side, time.monotonic_ns() - stamps.dequeue)
        longest = max(filter(None, threads), key=lambda thread: thread[-1].end_ns)
        stamps.finish_models(laps for done in longest for laps in done.laps.values())
        found = {done.name: done for thread in threads for done in thread}
        in_order = [found[branch.head.name] for branch in self._branches]
        for done in in_order:
            stamps.models.update(done.laps)
        held_ms = {done.name: done.held_ms for done in in_order if done.held_ms is not None}
        return FrameResult({done.name: done.result for done in in_order}, held_ms)

    def rest(self) -> None:
        """End the helpers' threads; models stay loaded, and the next frame begins new ones."""
        self._crew.close()

    @property
    def title(self) -> str:
        """For people: `face-320 + cats  tflite int8`, or each with its own backend and precision."""
        kinds = {f"{member.model.backend} {member.model.precision}" for member in self.members}
        if len(kinds) == 1:
            return " + ".join(member.name for member in self.members) + f"  {kinds.pop()}"
        return " + ".join(f"{m.name} {m.model.backend} {m.model.precision}" for m in self.members)

    def close(self) -> None:
        """Free the models' memory."""
        self.rest()
        for member in self.members:
            member.model.close()


def member_of(settings: ModelSettings, model: Model, may_be_untaught: bool = False) -> Member:
    """A model as its settings place it in a cascade.

    Args:
        may_be_untaught: its store of enrolled classes may be empty, since they can be taught while it serves.
    """
    s = settings
    if s.enrolled is not None:
        from edge.enrolment.task import with_enrolled

        model = with_enrolled(model, s.enrolled, s.people, may_be_untaught)
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


def _branches(members: Sequence[Member]) -> tuple[Branch, ...]:
    """What can run side by side; raises InputError as `Cascade` does."""
    found: list[Branch] = []
    detector, names = -1, set()
    for member in members:
        if member.name in names:
            raise InputError(f"Two models are called '{member.name}'. Give one of them another `name`.")
        names.add(member.name)
        if member.input == "faces":
            _check_takes_faces(member, found[detector].head if detector >= 0 else None)
            found[detector] = Branch(found[detector].head, (*found[detector].of_faces, member))
        else:
            detector = len(found) if member.model.finds_faces else detector
            found.append(Branch(member))
    return tuple(found)


def _check_takes_faces(member: Member, detector: Member | None) -> None:
    if member.model.finds_faces:
        raise InputError(f"'{member.name}' finds faces itself: its input is the frame, not \"faces\".")
    if detector is None:
        raise InputError(
            f"'{member.name}' has input = \"faces\", but no detector stands before it to find them. "
            'Put a [[models]] table with a face bundle first, or take input = "frame".'
        )


def _timed(model: Model, pixels: Image, laps: Laps, shared: Halves | None = None) -> Result:
    prepared = model.prepare(pixels, shared)
    laps.lap("preprocess")
    heads = model.infer(prepared)
    laps.lap("infer")
    result = model.decode(heads, pixels)
    laps.lap("postprocess")
    return result


def _run_branch(
    branch: Branch, frame: Frame, stream: Stream, shared: Halves | None, begin_ns: int
) -> BranchDone:
    """On any thread, at the same time as other branches of the frame."""
    head, capture_ns = branch.head, frame.stamps.capture
    last = stream.seen.get(head.name)
    if last is not None and not stream.is_due(head, capture_ns):
        # Faces that are held have their classes already, and lie elsewhere in this frame.
        return BranchDone(head.name, last.result, (capture_ns - last.capture_ns) / 1e6, {}, begin_ns)
    laps = {head.name: Laps(begin_ns)}
    result, end_ns = _of_frame(head, frame, stream, shared, laps[head.name])
    for member in branch.of_faces:
        # A frame without a face has nothing for it: its turn comes with the next one.
        if isinstance(result, Faces) and len(result) and stream.is_due(member, capture_ns):
            laps[member.name] = Laps(end_ns)
            result, end_ns = _of_faces(member, result, frame, laps[member.name])
            stream.seen[member.name] = Seen(stream.number, capture_ns, result)
    if head.interval > 1 or head.every_s > 0:
        stream.seen[head.name] = Seen(stream.number, capture_ns, result)
    return BranchDone(head.name, result, None, laps, end_ns)


def _of_frame(
    member: Member, frame: Frame, stream: Stream, shared: Halves | None, laps: Laps
) -> tuple[Result, int]:
    """What the model says of the whole frame; faces with their tracks. And when it had ended."""
    result = _timed(member.model, frame.pixels, laps, shared)
    if isinstance(result, Faces) and stream.follows:
        result = result.tracked(stream.tracker(member.name).update(result.boxes))
        laps.lap("postprocess")
    return result, laps.last_ns


def _of_faces(member: Member, faces: Faces, frame: Frame, laps: Laps) -> tuple[Faces, int]:
    """The faces, at least one, with what the model says of each one's crop. And when it had ended."""
    found_crops = crops(faces, frame.pixels, member.most_faces)
    results = (_timed(member.model, crop, laps) for crop in found_crops)
    found = tuple(result for result in results if isinstance(result, Classification))
    return faces.classified(member.name, found), laps.last_ns


def crops(faces: Faces, pixels: Image, most: int) -> Iterator[Image]:
    """The best faces' squares with a margin, as far as they lie in the picture; views, not copies."""
    height, width = pixels.shape[:2]
    for x0, y0, x1, y1 in faces.boxes[:most].tolist():
        half = max(x1 - x0, y1 - y0) * (0.5 + CROP_MARGIN)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        left, top = max(0, int(x - half)), max(0, int(y - half))
        # A face of a fraction of a pixel at the edge still makes a crop of one.
        right, bottom = max(left + 1, round(x + half)), max(top + 1, round(y + half))
        yield pixels[min(top, height - 1) : bottom, min(left, width - 1) : right]
