"""What a daemon is doing, for its page, its metrics and `systemctl status`: one object, safe for all threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edge.config import StreamSettings
from edge.feeder import Feeder
from edge.frame import Frame
from edge.machine import package_versions, this_machine
from edge.profiler import StageRecorder
from edge.protocols import Sink
from edge.results import FrameResult
from edge.secret import masked
from edge.sinks.shared import health_of

RECENT = 60
"""Results over which a camera's rate is taken."""

RATE_GAP_S = 2.0
"""A camera without a result for so long has rate 0."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of one model.

    Attributes:
        refused: backends that were not taken, each with the reason.
        building: what is being built for it, `tensorrt int8`; empty where nothing is.
        golden_steps: how far it is from its golden vectors, in int8 output steps.
        switches: to a backend that was built while another served.
        changed: its files on the disk are others now; it serves on as it was loaded, until a reload.
    """

    name: str
    bundle: str
    backend: str
    precision: str
    refused: tuple[str, ...] = ()
    building: str = ""
    golden_steps: float = 0.0
    switches: int = 0
    changed: bool = False


@dataclass
class _Camera:
    """What is kept of one camera."""

    feeder: Feeder
    latency: StageRecorder = field(default_factory=StageRecorder)
    published_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    last: tuple[int, FrameResult, float] | None = None  # index, result, age in ms

    def rate(self, now_s: float) -> float:
        """Results a second."""
        times = self.published_s
        if len(times) < 2 or now_s - times[-1] > RATE_GAP_S:
            return 0.0
        return (len(times) - 1) / (times[-1] - times[0]) if times[-1] > times[0] else 0.0


@dataclass
class _SinkTrouble:
    """What the daemon saw a sink refuse; `errors` by camera, of those whose last result was refused."""

    lost: int = 0
    errors: dict[str, str] = field(default_factory=dict)


class DaemonState:
    """Told by the daemon, asked by anybody.

    `snapshot` may be called at any time, also before the daemon has begun and after it has ended.
    """

    def __init__(self, settings: StreamSettings | None = None) -> None:
        self._lock = threading.Lock()
        self._began_s = time.monotonic()
        self._cameras: dict[str, _Camera] = {}
        self._models: tuple[ModelFacts, ...] = ()
        self._sinks: tuple[tuple[str, Sink], ...] = ()
        self._troubles: dict[str, _SinkTrouble] = {}
        self._reloads = {"done": 0, "refused": 0}
        self._last_reload = ""
        self._device = asdict(this_machine())
        versions = package_versions(["sightline"], absent="a checkout that is not installed")
        self._version = versions["sightline"]
        self._settings: dict[str, Any] = {}
        if settings is not None:
            self.configure(settings)

    def configure(self, settings: StreamSettings) -> None:
        """What is in force from now on."""
        shown = _shown(settings)
        with self._lock:
            self._settings = shown

    def watch(self, feeders: Iterable[Feeder]) -> None:
        """The cameras from now on; those that were there already keep their history."""
        with self._lock:
            before = self._cameras
            self._cameras = {}
            for feeder in feeders:
                known = before.get(feeder.camera.name)
                kept = known if known is not None and known.feeder is feeder else _Camera(feeder)
                self._cameras[feeder.camera.name] = kept
            for trouble in self._troubles.values():
                trouble.errors = {name: why for name, why in trouble.errors.items() if name in self._cameras}

    def run_models(self, models: Sequence[ModelFacts]) -> None:
        """The models from now on."""
        with self._lock:
            self._models = tuple(models)

    def change_model(self, name: str, **changes: Any) -> None:
        """Facts of one model that have changed, as the fields of `ModelFacts`."""
        with self._lock:
            self._models = tuple(replace(m, **changes) if m.name == name else m for m in self._models)

    def model(self, name: str) -> ModelFacts:
        """The facts of one model."""
        return next(model for model in self._models if model.name == name)

    def write_to(self, sinks: Sequence[tuple[str, Sink]]) -> None:
        """The sinks from now on, each with its name."""
        with self._lock:
            self._sinks = tuple(sinks)

    def published(self, frame: Frame, result: FrameResult) -> None:
        """One frame is done; called by the thread that infers."""
        with self._lock:
            camera = self._cameras.get(frame.camera)
            if camera is None:
                return
            camera.latency.write(frame, result)
            camera.published_s.append(frame.stamps.publish / 1e9)
            camera.last = (frame.index, result, round(frame.stamps.age_ms, 3))

    def sink_failed(self, name: str, camera: str, reason: str) -> None:
        """A sink did not take a camera's result."""
        with self._lock:
            trouble = self._troubles.setdefault(name, _SinkTrouble())
            trouble.lost += 1
            trouble.errors[camera] = reason

    def sink_took(self, name: str, camera: str) -> None:
        """A sink took a camera's result: whatever was wrong is over."""
        if name in self._troubles:
            with self._lock:
                self._troubles[name].errors.pop(camera, None)

    def reloaded(self, refused: str = "") -> None:
        """The configuration was read anew: it is in force, or was refused for a reason."""
        with self._lock:
            self._reloads["refused" if refused else "done"] += 1
            self._last_reload = refused

    def status(self) -> str:
        """One line."""
        with self._lock:
            cameras = [(name, camera.feeder.health().state) for name, camera in self._cameras.items()]
            models = [f"{m.name} {m.backend} {m.precision}" for m in self._models]
        live = sum(state == "live" for _, state in cameras)
        others = "".join(f", {name} {state}" for name, state in cameras if state != "live")
        return f"{live} of {len(cameras)} cameras live{others}; {', '.join(models) or 'no model yet'}"

    def brief(self) -> dict[str, Any]:
        """Of `snapshot`, what is cheap to ask often: of cameras `name`, `state` and `last_error`, and `models`,
        `sinks` and `reloads` as there."""
        with self._lock:
            healths = {name: camera.feeder.health() for name, camera in self._cameras.items()}
            return {
                "cameras": [
                    {"name": name, "state": health.state, "last_error": health.last_error or None}
                    for name, health in healths.items()
                ],
                **self._told(),
            }

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON has it, without secrets.

        * `uptime_s`, `version`, `device`; `settings`, those that differ from their defaults;
        * `cameras`, a list: `name`, `source`, `state`, `since_s`, `reconnects`, `last_error`; frames by
          `captured`, `processed`, `dropped`, `in_flight`, `dropped_for` (by reason), `lost_before` (in a
          decoder of its own), `backlog`; `width`, `height`, `nominal_fps`, `fps` (results a second);
          of the last result `age_ms`, `last_result` (a text) and `last` (the record);
        * `models`, a list of `ModelFacts`;
        * `latency` by camera: `n`, `stages`, `models`, in milliseconds by `p50`, `p90`, `p99`, `p99_9`, `max`;
        * `sinks`, a list: `name`, `lost`, `last_error`, `damage`; `reloads`: `done`, `refused`, `last_error`.
        """
        with self._lock:
            now_s, cameras = time.monotonic(), dict(self._cameras)
            found = {
                "uptime_s": round(now_s - self._began_s, 3),
                "version": self._version,
                "cameras": [_camera(name, camera, now_s) for name, camera in cameras.items()],
                **self._told(),
                "settings": self._settings,
                "device": self._device,
            }
        # It takes milliseconds of each camera, for which the loop would wait: it may be a frame ahead of the rest.
        return found | {"latency": {name: _latency(camera.latency) for name, camera in cameras.items()}}

    def _told(self) -> dict[str, Any]:
        """What both say; the lock is held."""
        return {
            "models": [asdict(model) | {"refused": list(model.refused)} for model in self._models],
            "sinks": [_sink(name, sink, self._troubles.get(name)) for name, sink in self._sinks],
            "reloads": {**self._reloads, "last_error": self._last_reload},
        }


def _camera(name: str, camera: _Camera, now_s: float) -> dict[str, Any]:
    health = camera.feeder.health()
    info, counts = health.info, health.counts
    return {
        "name": name,
        "source": masked(camera.feeder.camera.source),
        "state": health.state,
        "since_s": round(health.since_s, 3),
        "reconnects": health.reconnects,
        "last_error": health.last_error or None,
        "captured": counts.captured,
        "processed": counts.processed,
        "dropped": counts.dropped,
        "in_flight": counts.in_flight,
        "dropped_for": dict(counts.dropped_for),
        "lost_before": counts.lost_before,
        "backlog": asdict(health.backlog) | {"now_ms": round(health.backlog_ms, 1)},
        "width": info.width if info else 0,
        "height": info.height if info else 0,
        "nominal_fps": info.fps if info else 0.0,
        "fps": round(camera.rate(now_s), 2),
        **_last(*(camera.last or (None, None, None))),
    }


def _last(index: int | None, result: FrameResult | None, age_ms: float | None) -> dict[str, Any]:
    record = {"frame": index, **result.as_record(), "age_ms": age_ms} if result else None
    return {"age_ms": age_ms, "last_result": result.summary() if result else None, "last": record}


def _latency(recorder: StageRecorder) -> dict[str, Any]:
    models = recorder.model_spreads().items()
    return {
        "n": recorder.n,
        "stages": {stage: _percentiles(spread.as_json()) for stage, spread in recorder.spreads().items()},
        "models": {
            name: {stage: _percentiles(spread.as_json()) for stage, spread in of_model.items()}
            for name, of_model in models
        },
    }


def _percentiles(spread: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name.replace(".", "_"): value for name, value in spread.items()}


def _sink(name: str, sink: Sink, trouble: _SinkTrouble | None) -> dict[str, Any]:
    """What the daemon saw it refuse, and what it says itself to have lost."""
    trouble = trouble or _SinkTrouble()
    own = health_of(sink)
    return {
        "name": name,
        "lost": trouble.lost + own.lost,
        "last_error": own.trouble or next(iter(trouble.errors.values()), ""),
        "damage": own.damage,
    }


def _shown(settings: StreamSettings) -> dict[str, Any]:
    """Those that are not as they are anyhow; addresses are masked."""
    shown = settings.model_dump(mode="json", exclude_defaults=True)
    for place in (shown, *shown.get("cameras", ())):
        if "source" in place:
            place["source"] = masked(place["source"])
    return shown
