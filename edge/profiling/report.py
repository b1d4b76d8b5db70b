"""The JSON of `sightline profile` and `sightline run --latency`: its schema, reading and writing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import InputError
from edge.files import write_text

SCHEMA_VERSION: Literal[2] = 2

Figures = dict[str, float | None]
"""`p50`, `p99.9` and so on, `mean`, `max` and `jitter`, milliseconds; null: too few frames for it."""

Interval = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WarmUp(_Part):
    """The frames before the steady state; they are in `rows` and in no figure."""

    frames: int = Field(ge=0)
    settled: bool | None = Field(description="one level in the second half; null: too short to tell")


class OpenLoop(_Part):
    """Frames that came at fixed times; ages count from the moment at which each was due."""

    offered_fps: float = Field(gt=0)
    achieved_fps: float = Field(ge=0)


class ColdStart(_Part):
    """From starting a fresh process to its first result, milliseconds."""

    interpreter: float
    imports: float
    load: float
    source: float
    first_inference: float
    second_inference: float


class Memory(_Part):
    """Resident memory of this process, MB of 10^6 bytes."""

    peak: float
    steady: float


class SweepPoint(_Part):
    """One run of a sweep; of a batch, the frames are batches and `infer` is the only stage."""

    value: float | str
    n: int
    fps: float
    stages_ms: dict[str, Figures]
    dropped: float | None = Field(default=None, description="of several cameras, share of the frames")


class Sweep(_Part):
    """The same run with different values of one option."""

    option: str
    points: list[SweepPoint]


class Report(_Part):
    """One profile.

    `rows` holds a column for each of `index`, `round`, `steady` (0 or 1), `at` (nanoseconds since the
    first frame's capture), each stage (nanoseconds; their sum is the age) and each `MODEL.STAGE`, 0 where the
    model did not see the frame.
    """

    schema_version: Literal[2]
    taken_at: str = Field(description="wall-clock time, for display alone")
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    capture_clock: str
    n: int = Field(ge=0, description="frames that the figures are of")
    fps: float | None = Field(default=None, description="results a second, warm-up included")
    stages_ms: dict[str, Figures]
    models_ms: dict[str, dict[str, Figures]] = {}
    ci95_ms: dict[str, dict[str, Interval | None]] = {}
    frames_needed: dict[str, int] = Field(default={}, description="by percentile that is null")
    warm_up: WarmUp | None = None
    streaming: dict[str, float] | None = None
    open_loop: OpenLoop | None = None
    cold_start_ms: ColdStart | None = None
    memory_mb: Memory | None = None
    sweep: Sweep | None = None
    conditions: dict[str, Any] | None = None
    layers: dict[str, Any] | None = None
    rows: dict[str, list[int]] | None = None


def read_report(path: Path) -> Report:
    """A report from a file.

    Raises:
        InputError: it is missing, truncated, no report, or of another schema version.
    """
    content = _json(path)
    if not isinstance(content, dict) or "schema_version" not in content:
        raise InputError(
            f"{path} is no profile: it has no schema_version. Expected a file that "
            "`sightline profile --json` or `sightline run --latency` has written."
        )
    if content["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {content['schema_version']}, and this Sightline reads "
            f"{SCHEMA_VERSION}: another version wrote it. Measure again with this one, or compare with that one."
        )
    try:
        return Report.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is no valid profile: '{where}': {first['msg']}. Measure it again."
        ) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Expected a profile in JSON.") from error
    except ValueError as error:  # JSON's and UTF-8's decoding errors are both of this class
        raise InputError(
            f"{path} is not JSON: {error}. It may have been cut off while it was copied; measure it again."
        ) from error


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON, whole or not at all; each column of `rows` takes one line."""
    head = json.dumps({name: value for name, value in report.items() if name != "rows"}, indent=2)
    columns = [
        f"    {json.dumps(name)}: {json.dumps(column, separators=(',', ':'))}"
        for name, column in (report.get("rows") or {}).items()
    ]
    rows = ',\n  "rows": {\n' + ",\n".join(columns) + "\n  }\n}" if columns else "\n}"
    write_text(path, head.removesuffix("\n}") + rows + "\n")


def schema() -> str:
    """The JSON schema of a report, as docs/schema/profile.schema.json holds it."""
    return json.dumps(Report.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":  # python -m edge.profiling.report > docs/schema/profile.schema.json
    print(schema(), end="")
