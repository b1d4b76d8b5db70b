"""What a daemon's settings stand for: its models on their backends, its sources and its sinks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge.backends import serve
from edge.bundle import Bundle
from edge.cascade import Cascade, Member, check_threshold, member_of, threshold_of
from edge.config import CameraSettings, ModelSettings, SinkSettings, StreamSettings, video_of
from edge.daemon_state import ModelFacts
from edge.errors import InputError, reason_of
from edge.files import check_could_write
from edge.frame import Frame
from edge.model import Model
from edge.profiler import StageRecorder
from edge.protocols import Sink, Source, SourceInfo
from edge.results import FrameResult
from edge.secret import Secrets
from edge.sinks.shared import shared_sinks
from edge.sinks.video import VideoSink, check_suffix
from edge.sources import open_source


def make_source(camera: CameraSettings, secrets: Secrets) -> Source:
    """A camera's source, not opened; raises SourceError where there is none, InputError for a secret."""
    return open_source(secrets.resolve(camera.source), camera.decode_threads or 1, keep_trying=True)


@dataclass(frozen=True)
class Loaded:
    """A model that serves, and what it was made from; `facts` are those of the moment it was loaded.

    Attributes:
        on_disk: `state_on_disk` when it was loaded.
    """

    settings: ModelSettings
    bundle: Bundle
    member: Member
    facts: ModelFacts
    on_disk: tuple[object, ...] = ()

    @property
    def has_changed(self) -> bool:
        """Whether its files on the disk are others now; it serves on as it was loaded."""
        return self.on_disk != state_on_disk(self.settings, self.bundle)


@dataclass(frozen=True)
class Models:
    """The models of a daemon, in order, and the cascade of them."""

    loaded: tuple[Loaded, ...]
    cascade: Cascade

    @classmethod
    def open(cls, settings: StreamSettings, before: Models | None = None) -> Models:
        """Load what is not loaded yet; models of `before` that have not changed are taken over.

        Raises:
            SightlineError: no backend of a model can run, or all compute something else than was proven;
                the message names the model. What was loaded is closed again, and `before` serves on.
        """
        known = before.loaded if before is not None else ()
        with ExitStack() as on_error:
            loaded = []
            for wanted in settings.chosen():
                bundle = Bundle.open(wanted.bundle)
                threshold = threshold_of(wanted, bundle, settings.score_threshold)
                decided = wanted.model_copy(update={"score_threshold": threshold})
                kept = _find(known, decided, bundle)
                loaded.append(kept or _load(decided, bundle, settings.teaches))
                if kept is None:
                    on_error.callback(loaded[-1].member.model.close)
            members = [model.member for model in loaded]
            check_threshold(members, settings.score_threshold)
            cascade = Cascade(members, settings.parallel_models)
            on_error.pop_all()
        return cls(tuple(loaded), cascade)

    def close_all_but(self, others: Models | None = None) -> None:
        """Close the models that are not among `others`, and the threads of this cascade."""
        self.cascade.rest()
        kept = [id(model) for model in others.loaded] if others is not None else []
        for model in self.loaded:
            if id(model) not in kept:
                model.member.model.close()


def _find(known: Sequence[Loaded], settings: ModelSettings, bundle: Bundle) -> Loaded | None:
    """The one with the same settings, of a bundle that has not changed since."""
    on_disk = state_on_disk(settings, bundle)
    same = (m for m in known if m.settings == settings and m.bundle.manifest == bundle.manifest)
    return next((m for m in same if m.on_disk == on_disk), None)


def state_on_disk(settings: ModelSettings, bundle: Bundle) -> tuple[object, ...]:
    """What changes when a file of a bundle or an enrolled class does: names, inodes, times, sizes.

    A file that is not there has none. Contents are not read: this is asked often.
    """
    names = ("manifest.json", *(artefact.file for artefact in bundle.manifest.artefacts))
    files = tuple(_stamp(bundle.folder / name) for name in names)
    if settings.enrolled is None:
        return files
    from edge.enrolment.store import Store

    return (*files, *Store(settings.enrolled, bundle.manifest).state())


def _stamp(path: Path) -> tuple[str, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return path.name, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _load(settings: ModelSettings, bundle: Bundle, teaches: bool) -> Loaded:
    on_disk = state_on_disk(settings, bundle)  # before it is read: what comes meanwhile is seen later
    serving = serve(bundle, settings.backend, settings.precision, settings.threads)
    model = Model.of(
        bundle, serving.backend, serving.precision, lambda: serving.runner, settings.score_threshold
    )
    member = member_of(settings, model, may_be_untaught=teaches)
    refused = tuple(str(refusal) for refusal in serving.refused)
    facts = ModelFacts(
        member.name,
        settings.bundle,
        serving.backend,
        serving.precision,
        refused,
        golden_steps=round(serving.golden_steps, 3),
    )
    return Loaded(settings, bundle, member, facts, on_disk)


class OnceForAll:
    """A sink that knows nothing of cameras, for all of them: it is opened with the first one."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._opened = False

    def open(self, source: SourceInfo) -> None:
        """Opens the sink, the first time."""
        if not self._opened:
            self._sink.open(source)
            self._opened = True

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Pass it on."""
        self._sink.write(frame, result)

    def close(self) -> None:
        """Close the sink."""
        if self._opened:
            self._opened = False
            self._sink.close()


class VideoOfEach:
    """A video file for each camera, with its name: `demo.mp4` becomes `demo-door.mp4`."""

    def __init__(self, path: Path, title: str) -> None:
        """Raises InputError for a suffix that is no video's."""
        check_suffix(path)
        self._path, self._title = path, title
        self._sinks: dict[str, VideoSink] = {}
        self._refused: dict[str, str] = {}  # by camera, why its file could not be begun

    def open(self, source: SourceInfo) -> None:
        """Begin the camera's file, unless it has one; raises InputError where that cannot be."""
        if source.camera in self._sinks:
            return
        sink = VideoSink(video_of(self._path, source.camera), f"{source.camera}  {self._title}")
        try:
            sink.open(source)
        except Exception as error:
            self._refused[source.camera] = reason_of(error)
            raise
        self._sinks[source.camera] = sink

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Into the camera's file; raises InputError where it has none, or as `VideoSink.write`."""
        if frame.camera not in self._sinks:
            raise InputError(self._refused[frame.camera])
        self._sinks[frame.camera].write(frame, result)

    @property
    def lost(self) -> int:
        """Frames that the encoders were too slow for, of all cameras."""
        return sum(sink.left_out for sink in [*self._sinks.values()])

    def close(self) -> None:
        """Finish all files, even when one of them cannot be."""
        with ExitStack() as closing:
            for sink in self._sinks.values():
                closing.callback(sink.close)


def prepare(sinks: Sequence[tuple[str, Sink]], settings: StreamSettings) -> None:
    """Open what needs no source, and look at the rest; raises InputError for a target that is wrong."""
    check_outputs(settings)
    for _, sink in sinks:
        getattr(sink, "prepare", lambda: None)()


def check_outputs(settings: StreamSettings) -> None:
    """That every file could be written; raises InputError, and makes none."""
    for _, path in settings.sinks.files([camera.name for camera in settings.all_cameras()]):
        check_could_write(path)


LOG_BYTES = 100_000_000
"""Of a part of the JSONL log, unless the settings say: a file that appears at the end is lost by a power cut."""


def make_sinks(settings: SinkSettings, title: str) -> list[tuple[str, Sink]]:
    """The sinks that are asked for, with their names; each may be opened once for each camera."""
    size = settings.jsonl_max_bytes or LOG_BYTES
    sinks = shared_sinks(settings.model_copy(update={"jsonl_max_bytes": size}))
    if settings.video:
        sinks.append(("video", VideoOfEach(settings.video, title)))
    if settings.latency:
        sinks.append(("latency", OnceForAll(StageRecorder(settings.latency))))
    return sinks
