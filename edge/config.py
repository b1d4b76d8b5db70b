"""The settings of a stream, from a TOML file and the command line.

source = "demo://"              # what `edge.sources` reads
model = "cifar10-base"          # a bundle's folder, or a shipped one by name
backend = "auto"
precision = "auto"
threads = 1                     # of the model
parallel_models = true          # side by side where they need nothing of one another; false: one after the
                                # other. Left out, both ways are tried and the quicker one is kept
decode_threads = 1              # of a video's decoder
lossless = false
seconds = 10.0                  # or frames = 300; without either: until the source ends

[sinks]
terminal = true
jsonl = "out/results.jsonl"     # relative to the folder the command runs in
video = "out/demo.mp4"
latency = "out/latency.json"

Several models, in place of `model`; each frame goes through all of them in this order. What a table
leaves out is as above:

[[models]]
bundle = "face-320x192"
score_threshold = 0.5           # of a detector, 0 to 1

[[models]]
bundle = "build/bundles/masks"
name = "masks"                  # in the results; the bundle's own name unless given
input = "faces"                 # each face's crop, from the detector before it; or "frame"
most_faces = 8                  # of a frame, the best first
backend = "onnx"
precision = "fp16"
threads = 1
interval = 3                    # it sees each third frame that is processed; or every_s = 0.5: so often
                                # at most. Frames between take its last result over, with its age

Several cameras, in place of `source`; all go through the same models, in turn:

max_age_ms = 500                # an older frame is dropped as stale when its turn comes
build_plans = true              # with backend = "auto": build TensorRT plans while another backend serves

[[cameras]]
name = "door"                   # in the results, on the page, in file names
source = "rtsp://viewer:${env:DOOR_PASSWORD}@10.0.0.5/main"   # or ${file:/path}: see `edge.secret`

[[cameras]]
name = "yard"
source = "yard.mp4"
lossless = false                # every frame, in order, as fast as it goes
interval = 2                    # only each second frame
reopen = true                   # when it ends; a camera comes back in any case, a file does not
max_age_ms = 200
backlog_ms = 500                # of waiting upstream, by the stream's own timestamps; then it is flushed

[sinks.events]                  # see edge.sinks.events; [sinks.mqtt]: edge.sinks.mqtt
path = "out/events.sqlite"

[web]                           # see edge.web.settings
port = 8080
enrolment = true                # models with `enrolled` can be taught on the page
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.config_errors import NAME, explained, wrong
from edge.errors import InputError
from edge.files import taken_twice
from edge.secret import masked
from edge.sinks.events import EventsSettings
from edge.sinks.mqtt import MqttSettings
from edge.sinks.snapshots import SnapshotSettings
from edge.web.settings import WebSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ModelInput = Literal["frame", "faces"]

DEFAULT_MODELS: tuple[str, ...] = ("face-320x192", "cifar10-base")
"""The shipped bundles that a stream goes through when it names none."""

ONLY_CAMERA = "camera"
"""What a daemon calls its camera where the settings name a `source`."""

_OF_EVERY_MODEL = ("backend", "precision", "threads", "score_threshold")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __repr_args__(self) -> Any:
        """Addresses without their secrets: this is what logs and errors would show."""
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, str) else value


class SinkSettings(_Settings):
    """Where the results go; what is None is not written.

    With several cameras each has a video of its own: `out/demo.mp4` becomes `out/demo-door.mp4`. With
    `jsonl_max_bytes` the JSONL file is a log in parts of that size, of which `jsonl_keep` full ones stay; that
    of a daemon always is one.
    """

    terminal: bool = True
    jsonl: Path | None = None
    video: Path | None = None
    latency: Path | None = None
    events: EventsSettings | None = None
    mqtt: MqttSettings | None = None
    snapshots: SnapshotSettings | None = None
    jsonl_max_bytes: int | None = Field(default=None, ge=1)
    jsonl_keep: int = Field(default=5, ge=0)

    def files(self, cameras: Sequence[str] = ()) -> list[tuple[str, Path]]:
        """What is written, each with its key; of a folder of snapshots, a file in it.

        Args:
            cameras: the names of those that have a video each; none where a single source is streamed.
        """
        video = self.video
        videos = [video_of(video, name) for name in cameras] if video and cameras else [video]
        found = [
            ("jsonl", self.jsonl),
            *(("video", path) for path in videos),
            ("latency", self.latency),
            ("events.path", self.events.path if self.events else None),
            ("mqtt.outbox", self.mqtt.outbox if self.mqtt else None),
            ("snapshots.folder", self.snapshots.folder / "snapshot.jpg" if self.snapshots else None),
        ]
        return [(key, path) for key, path in found if path is not None]


def video_of(path: Path, camera: str) -> Path:
    """A camera's own video, where each has one: `demo.mp4` becomes `demo-door.mp4`."""
    return path.with_stem(f"{path.stem}-{camera}")


class CameraSettings(_Settings):
    """A table `[[cameras]]`.

    Attributes:
        name: unique; letters, digits, `_`, `-` and `.`.
        lossless: every frame, in order; for files. Nothing of it is ever stale.
        interval: only each n-th frame is processed; the others are counted as dropped.
        reopen: begin again at its end; None does for a camera and does not for a file.
        max_age_ms: older frames are dropped when their turn comes; of this and decode_threads, None takes the stream's.
        backlog_ms: how long frames may have waited upstream, see `edge.backlog`.
    """

    name: str = Field(pattern=NAME, max_length=64)
    source: str = Field(min_length=1)
    decode_threads: int | None = Field(default=None, ge=1)
    lossless: bool = False
    interval: int = Field(default=1, ge=1)
    reopen: bool | None = None
    max_age_ms: float | None = Field(default=None, gt=0)
    backlog_ms: float = Field(default=500.0, gt=0)


class ModelSettings(_Settings):
    """One model of a stream, with everything decided.

    Attributes:
        score_threshold: None takes the task's own.
        input: `faces` are the crops of the faces that the detector before it finds.
        interval, every_s: it sees each n-th of a camera's processed frames, and none within so many
            seconds of the last one it saw.
        enrolled: the store of `sightline enroll`, whose classes it names in place of its own.
        people: name enrolled people, too.
    """

    bundle: str
    name: str | None = None
    backend: str
    precision: str
    threads: int
    score_threshold: float | None = None
    input: ModelInput = "frame"
    most_faces: int = 8
    interval: int = 1
    every_s: float = 0.0
    enrolled: Path | None = None
    people: bool = False


class ModelTable(_Settings):
    """A table `[[models]]`; None stands for what the stream says of every model."""

    bundle: str
    name: str | None = None
    backend: str | None = None
    precision: str | None = None
    threads: int | None = Field(default=None, ge=1)
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    input: ModelInput = "frame"
    most_faces: int = Field(default=8, ge=1)
    interval: int = Field(default=1, ge=1)
    every_s: float = Field(default=0.0, ge=0)
    enrolled: Path | None = None
    people: bool = False


class StreamSettings(_Settings):
    """What to stream: the source, the models and how they run, the limits and the sinks.

    Attributes:
        score_threshold: of every detector that has none of its own.
        cameras: in place of `source`; with them, or with `web`, `sightline run` is a daemon.
        max_age_ms: of a camera that says nothing else; None processes frames of any age.
        parallel_models: run models side by side; None tries whether that is quicker, see `edge.parallel`.
        build_plans: of several cameras, build TensorRT plans that are missing, while others serve.
    """

    source: str = "demo://"
    cameras: tuple[CameraSettings, ...] = ()
    max_age_ms: float | None = Field(default=None, gt=0)
    parallel_models: bool | None = None
    build_plans: bool = True
    model: str | None = None
    models: tuple[ModelTable, ...] = ()
    backend: str = "auto"
    precision: str = "auto"
    threads: int = Field(default=1, ge=1)
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    decode_threads: int = Field(default=1, ge=1)
    lossless: bool = False
    seconds: float | None = Field(default=None, gt=0)
    frames: int | None = Field(default=None, gt=0)
    sinks: SinkSettings = SinkSettings()
    web: WebSettings | None = None

    @model_validator(mode="after")
    def _models_are_named_once(self) -> StreamSettings:
        if self.model is not None and self.models:
            raise wrong("take either `model` or [[models]], not both", "model")
        return self

    @model_validator(mode="after")
    def _cameras_are_named_once(self) -> StreamSettings:
        if self.cameras and "source" in self.model_fields_set:
            raise wrong("take either `source` or [[cameras]], not both", "source")
        seen: dict[str, int] = {}
        for number, camera in enumerate(self.cameras):
            first = seen.setdefault(camera.name.casefold(), number)
            if first != number:
                raise wrong(
                    f"the cameras {first} and {number} (from 0) are both called '{camera.name}', capitals "
                    "do not count. Give one of them another name",
                    *("cameras", number, "name"),
                )
        return self

    @model_validator(mode="after")
    def _outputs_are_files_of_their_own(self) -> StreamSettings:
        """Each replaces or continues what it finds: a recording that is read, or another's results, would be lost."""
        cameras = self.all_cameras()
        outputs = self.sinks.files([c.name for c in cameras] if self.is_daemon else ())
        for key, message in taken_twice([c.source for c in cameras], outputs):
            raise wrong(message, "sinks", *key.split("."))
        return self

    @property
    def is_daemon(self) -> bool:
        """Whether it takes the daemon: several cameras, or a page."""
        return bool(self.cameras) or self.web is not None

    @property
    def teaches(self) -> bool:
        """Whether classes can be taught on the page."""
        return self.web is not None and self.web.enrolment

    def all_cameras(self) -> tuple[CameraSettings, ...]:
        """The cameras; of a single source one, called `camera`. Each has what the stream says of all."""
        alone = CameraSettings(name=ONLY_CAMERA, source=self.source)
        return tuple(
            camera.model_copy(
                update={
                    "lossless": camera.lossless or self.lossless,
                    "max_age_ms": camera.max_age_ms or self.max_age_ms,
                    "decode_threads": camera.decode_threads or self.decode_threads,
                }
            )
            for camera in self.cameras or (alone,)
        )

    def chosen(self) -> tuple[ModelSettings, ...]:
        """The models in their order, each with what the stream says of every one."""
        names = (self.model,) if self.model is not None else DEFAULT_MODELS
        tables = self.models or tuple(ModelTable(bundle=name) for name in names)
        shared = {"backend": self.backend, "precision": self.precision, "threads": self.threads}
        return tuple(
            ModelSettings.model_validate(shared | table.model_dump(exclude_none=True)) for table in tables
        )

    @classmethod
    def read(cls, path: Path) -> StreamSettings:
        """Read a TOML file; raises InputError as `read_toml`, or when it holds a wrong value."""
        content, text = read_toml(path)
        return cls._checked(content, str(path), text)

    def changed(self, sinks: dict[str, Any], models: Sequence[str] = (), **options: Any) -> StreamSettings:
        """These settings with those of the command line.

        Args:
            sinks, options: those that are None were not given. A source takes the place of the cameras.
            models: bundles that take the place of the file's; none leaves them.
        """
        content = self.model_dump()
        given = {name: value for name, value in options.items() if value is not None}
        content.update(given)
        content["sinks"].update({name: value for name, value in sinks.items() if value is not None})
        if models:
            content |= {"model": None, "models": [{"bundle": name} for name in models]}
        for table in content["models"]:
            table.update({name: None for name in _OF_EVERY_MODEL if name in given})
        del content["cameras" if "source" in given or not self.cameras else "source"]
        return self._checked(content, "the command line")

    @classmethod
    def _checked(cls, content: dict[str, Any], where: str, text: str = "") -> StreamSettings:
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(explained(error, cls.model_json_schema(), where, text)) from None


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """What a TOML file holds, and its text; raises InputError when it is missing or not TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a byte order mark
        return tomllib.loads(text), text
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Expected a TOML file.") from error
    except ValueError as error:  # TOML's and UTF-8's decoding errors are both of this class
        raise InputError(f"{path} is not a TOML file: {error}.") from error


def schema() -> str:
    """The JSON schema of a configuration, as docs/schema/config.schema.json holds it."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **StreamSettings.model_json_schema(),
    }
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":  # python -m edge.config > docs/schema/config.schema.json
    print(schema(), end="")
