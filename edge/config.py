"""The settings of a stream, from a TOML file and the command line.

source = "demo://"              # what `edge.sources` reads
model = "cifar10-convnetjs"     # a bundle's folder, or a shipped one by name
backend = "auto"
precision = "auto"
threads = 1                     # of the model
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
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ModelInput = Literal["frame", "faces"]

DEFAULT_MODELS: tuple[str, ...] = ("face-320x192", "cifar10-convnetjs")
"""The shipped bundles that a stream goes through when it names none."""

_OF_EVERY_MODEL = ("backend", "precision", "threads", "score_threshold")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SinkSettings(_Settings):
    """Where the results go; a path that is None is not written."""

    terminal: bool = True
    jsonl: Path | None = None
    video: Path | None = None
    latency: Path | None = None


class ModelSettings(_Settings):
    """One model of a stream, with everything decided.

    Attributes:
        score_threshold: None takes the task's own.
        input: `faces` are the crops of the faces that the detector before it finds.
    """

    bundle: str
    name: str | None = None
    backend: str
    precision: str
    threads: int
    score_threshold: float | None = None
    input: ModelInput = "frame"
    most_faces: int = 8


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


class StreamSettings(_Settings):
    """What to stream: the source, the models and how they run, the limits and the sinks.

    Attributes:
        score_threshold: of every detector that has none of its own.
    """

    source: str = "demo://"
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

    @model_validator(mode="after")
    def _models_are_named_once(self) -> StreamSettings:
        if self.model is not None and self.models:
            raise ValueError("take either `model` or [[models]], not both")
        return self

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
        """Read a TOML file; raises InputError when it is missing, not TOML, or holds a wrong value."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Expected a TOML file.") from error
        except ValueError as error:  # TOML's and UTF-8's decoding errors are both of this class
            raise InputError(f"{path} is not a TOML file: {error}.") from error
        return cls._checked(content, str(path))

    def changed(self, sinks: dict[str, Any], models: Sequence[str] = (), **options: Any) -> StreamSettings:
        """These settings with those of the command line.

        Args:
            sinks, options: those that are None were not given.
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
        return self._checked(content, "the command line")

    @classmethod
    def _checked(cls, content: dict[str, Any], where: str) -> StreamSettings:
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            subject = f"'{name}' in {where}" if name else where
            raise InputError(f"{subject}: {first['msg'].removeprefix('Value error, ')}.") from error
