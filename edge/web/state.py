"""The door between the daemon and its page: what the page wants to know, and in which shape.

The page only asks. It reads one snapshot, keeps what is named here and drops everything else, so that
a field that somebody adds to the daemon (an address with a password in it) does not leave the machine
by itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edge.secret import MASK, masked_in_text
from edge.sinks.happenings import EventKind

_SECRET_KEY = re.compile(r"pass|secret|token|credential|api_?key|auth", re.IGNORECASE)

LIVE = "live"
"""The state of a camera in which results come; else it is `opening`, `lost`, `degraded` or `ended`."""

SNAPSHOT_AGE_S = 0.5
"""How long a snapshot serves: many viewers cost the daemon no more than one."""


@dataclass(frozen=True)
class EventQuery:
    """Which events are asked for; of what is None, all.

    Attributes:
        limit: how many at most.
        before: a moment in seconds since 1970; older_than: the id of an event, and all behind it.
        camera, kind, label: of one of each.
    """

    limit: int
    before: float | None = None
    older_than: str | None = None
    camera: str | None = None
    kind: EventKind | None = None
    label: str | None = None


EventsReader = Callable[[EventQuery], list[dict[str, Any]]]
"""The events that a query asks for, the newest first."""


class State(Protocol):
    """What the page reads from: the daemon, or anything that streams."""

    def snapshot(self) -> Mapping[str, Any]:
        """The present state in the shape of `Snapshot`. Called from the web server's thread, often."""


def masked(value: Any, key: str = "") -> Any:
    """A tree of mappings, lists and scalars for display: secrets by key or inside a URI become `***`.

    A key that ends in `_file` names a file, not what is in it, and stays.
    """
    if isinstance(value, Mapping):
        return {str(name): masked(part, str(name)) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(part, key) for part in value]
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_KEY.search(key) and not key.endswith("_file"):
        return MASK
    return value if isinstance(value, int | float) else _text(value)


def _text(value: object) -> str:
    """Without secrets; bytes of a file's name that are no text become question marks, which JSON can say."""
    return masked_in_text(str(value).encode("utf-8", "replace").decode())


MaskedText = Annotated[str, BeforeValidator(_text)]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CameraView(_View):
    """One camera."""

    name: str
    source: MaskedText = ""
    state: MaskedText = Field(description="`live` while results come; else what it waits for.")
    since_s: float = Field(default=0.0, description="For how long it has been in this state.")
    reconnects: int = Field(default=0, ge=0)
    last_error: MaskedText | None = None
    captured: int = Field(default=0, ge=0, description="Frames: captured = processed + dropped + in flight.")
    processed: int = Field(default=0, ge=0)
    dropped: int = Field(default=0, ge=0)
    in_flight: int = Field(default=0, ge=0)
    dropped_for: dict[str, int] = Field(default={}, description="The dropped ones by reason.")
    lost_before: int = Field(
        default=0, ge=0, description="Frames lost in the decoder's process, before they were captured here."
    )
    backlog: dict[str, float] = Field(
        default={}, description="What waited upstream, and what was lost of it."
    )
    width: int = Field(default=0, ge=0, description="Pixels; 0 before the first frame.")
    height: int = Field(default=0, ge=0)
    fps: float = Field(default=0.0, ge=0, description="Results a second.")
    last_result: MaskedText | None = None
    age_ms: float | None = Field(default=None, description="From capture to publication, of the last frame.")
    last: dict[str, Any] | None = Field(default=None, description="The last result, as in the JSONL file.")

    @property
    def is_live(self) -> bool:
        """Whether results come."""
        return self.state == LIVE


class ModelView(_View):
    """One model and the backend it runs on."""

    name: str
    backend: str
    precision: str
    refused: list[MaskedText] = Field(
        default=[], description="Backends that were not taken, each with the reason."
    )
    building: str = Field(default="", description="What is being built while another backend serves.")
    golden_steps: float = Field(default=0.0, description="Distance from the golden vectors, in int8 steps.")
    changed: bool = Field(
        default=False, description="Its files are others now; it serves as it was loaded until a reload."
    )


class SinkView(_View):
    """One place that results go to."""

    name: str
    lost: int = Field(default=0, ge=0, description="Results or events that it did not take.")
    last_error: MaskedText = Field(default="", description="What is wrong now; empty when all is well.")
    damage: MaskedText = Field(
        default="", description="What was found damaged and set aside since the start."
    )


class Reloads(_View):
    """How often the configuration was read anew."""

    done: int = Field(default=0, ge=0)
    refused: int = Field(default=0, ge=0)
    last_error: MaskedText = Field(
        default="", description="Why the last one was refused; empty when it was not."
    )


class Percentiles(_View):
    """Of a duration in milliseconds; null where there were too few frames to tell."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    max: float | None = None


class Latency(_View):
    """Of one camera: by stage in their order, `age` being the whole, and each model's part of them."""

    n: int = Field(default=0, ge=0, description="Frames counted.")
    stages: dict[str, Percentiles] = {}
    models: dict[str, dict[str, Percentiles]] = {}


class Snapshot(_View):
    """Everything that the page shows of a moment, but events and pictures."""

    uptime_s: float = Field(ge=0)
    version: str
    cameras: list[CameraView] = []
    models: list[ModelView] = []
    latency: dict[str, Latency] = Field(default={}, description="By camera.")
    sinks: list[SinkView] = []
    reloads: Reloads = Reloads()
    settings: Annotated[dict[str, Any], BeforeValidator(masked)] = Field(
        default={}, description="Those that differ from their defaults, secrets masked."
    )
    device: Annotated[dict[str, Any], BeforeValidator(masked)] = Field(
        default={}, description="Facts of the machine."
    )

    @property
    def ready(self) -> bool:
        """A model is loaded, and results come from one camera at least."""
        return bool(self.models) and any(camera.is_live for camera in self.cameras)


class Snapshots:
    """The state's snapshots, each kept for a moment. Safe to use from several threads."""

    def __init__(self, state: State, age_s: float = SNAPSHOT_AGE_S) -> None:
        self._state = state
        self._age_s = age_s
        self._lock = threading.Lock()
        self._taken_s = float("-inf")
        self._kept: Snapshot | None = None

    def has_camera(self, name: str) -> bool:
        """Whether there is a camera of this name."""
        return any(camera.name == name for camera in self.newest().cameras)

    def newest(self) -> Snapshot:
        """The kept one, or a new one where it is too old. Raises whatever the state raises."""
        with self._lock:
            now_s = time.monotonic()
            if self._kept is None or now_s - self._taken_s > self._age_s:
                self._kept = Snapshot.model_validate(self._state.snapshot())
                self._taken_s = now_s
            return self._kept
