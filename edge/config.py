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
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle import DEFAULT_BUNDLE
from edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SinkSettings(_Settings):
    """Where the results go; a path that is None is not written."""

    terminal: bool = True
    jsonl: Path | None = None
    video: Path | None = None
    latency: Path | None = None


class StreamSettings(_Settings):
    """What to stream: the source, the model and how it runs, the limits and the sinks."""

    source: str = "demo://"
    model: str = DEFAULT_BUNDLE
    backend: str = "auto"
    precision: str = "auto"
    threads: int = Field(default=1, ge=1)
    decode_threads: int = Field(default=1, ge=1)
    lossless: bool = False
    seconds: float | None = Field(default=None, gt=0)
    frames: int | None = Field(default=None, gt=0)
    sinks: SinkSettings = SinkSettings()

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

    def changed(self, sinks: dict[str, Any], **options: Any) -> StreamSettings:
        """These settings with those of the command line; options that are None were not given."""
        content = self.model_dump()
        content.update({name: value for name, value in options.items() if value is not None})
        content["sinks"].update({name: value for name, value in sinks.items() if value is not None})
        return self._checked(content, "the command line")

    @classmethod
    def _checked(cls, content: dict[str, Any], where: str) -> StreamSettings:
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise InputError(f"'{name}' in {where}: {first['msg']}.") from error
