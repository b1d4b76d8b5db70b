"""A real stream behind a real server: the demo camera, the shipped models, uvicorn on a free port."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.errors import InputError
from edge.frame import Frame
from edge.machine import this_machine
from edge.pipeline import Pipeline
from edge.profiler import StageRecorder
from edge.protocols import SourceInfo
from edge.results import Classification, Faces, FrameResult
from edge.sources import open_source
from edge.web.app import make_app
from edge.web.credentials import HASH_BYTES, SecretHash
from edge.web.live import LiveSink
from edge.web.server import WebServer
from edge.web.settings import WebSettings

TITLE = "face + cats"
RESULT = FrameResult(
    {
        "face": Faces(np.array([[40, 20, 120, 80]], np.float32), np.array([0.9], np.float32)),
        "cats": Classification(np.array([0.25, 0.75], np.float32), 1, "cat"),
    }
)
PERCENTILES = {"p50": 1.0, "p90": 2.0, "p99": 4.0, "p99_9": None, "max": 8.0}


def camera(name: str, **changed: Any) -> dict[str, Any]:
    """A camera of a snapshot."""
    usual = {
        "name": name,
        "state": "live",
        "since_s": 12.5,
        "reconnects": 1,
        "last_error": None,
        "captured": 300,
        "processed": 290,
        "dropped": 9,
        "lost_before": 4,
        "width": 1280,
        "height": 720,
        "fps": 29.9,
        "last_result": "1 face 0.91",
        "age_ms": 21.5,
    }
    return usual | changed


def snapshot(*names: str, **changed: Any) -> dict[str, Any]:
    """A state with cameras of these names, all alike."""
    latency = {
        "n": 290,
        "stages": dict.fromkeys(("decode", "wait", "preprocess", "infer", "age"), PERCENTILES),
        "models": {model: {"infer": PERCENTILES} for model in ("face", "cats")},
    }
    models = [
        {"name": name, "backend": "tflite", "precision": "int8", "refused": ["onnx: not installed"]}
        for name in ("face", "cats")
    ]
    usual = {
        "uptime_s": 60.0,
        "version": "0.1.0",
        "cameras": [camera(name) for name in names],
        "models": models,
        "latency": dict.fromkeys(names, latency),
    }
    return usual | changed


def cheap_hash(secret: str) -> str:
    """A line for a secret's file whose comparison costs a test nothing."""
    salt = b"salt of a test"
    digest = hashlib.scrypt(secret.encode(), salt=salt, n=2, r=1, p=1, dklen=HASH_BYTES)
    return SecretHash(2, 1, 1, salt, digest).line()


@dataclasses.dataclass
class Still:
    """A state that stays as it is."""

    content: dict[str, Any] = dataclasses.field(default_factory=lambda: snapshot("door", "yard"))

    def snapshot(self) -> dict[str, Any]:
        return self.content


@dataclasses.dataclass
class Noted:
    """Controls that note what they were asked to do, and may refuse it."""

    asked: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    classes: list[str] = dataclasses.field(default_factory=lambda: ["mug"])
    refuses: str = ""

    def reload(self) -> None:
        self._note("reload")

    def taught(self) -> list[dict[str, Any]]:
        classes = [{"label": label, "people": False, "pictures": 8} for label in self.classes]
        return [{"model": "cats", "people": False, "classes": classes}]

    def teach(self, camera: str, model: str, label: str) -> dict[str, Any]:
        self._note("teach", camera, model, label)
        self.classes.append(label)
        return {"label": label, "pictures": 8, "threshold": 0.9}

    def forget(self, model: str, label: str) -> None:
        self._note("forget", model, label)
        if label not in self.classes:
            raise InputError(f"There is no class '{label}'.")
        self.classes.remove(label)

    def _note(self, *asked: str) -> None:
        self.asked.append(asked)
        if self.refuses:
            raise InputError(self.refuses)


def frame_of(camera: str, index: int = 0, height: int = 180, width: int = 320, noise: bool = False) -> Frame:
    """A frame that was captured 20 ms ago; noise makes its JPEG large."""
    frame = Frame(index=index, camera=camera)
    pixels = frame.buffer(height, width)
    pixels[:] = np.random.default_rng(index).integers(0, 256, pixels.shape, np.uint8) if noise else 120
    frame.stamps.publish = time.monotonic_ns()
    frame.stamps.capture = frame.stamps.publish - 20_000_000
    return frame


class Feeder:
    """Feeds a sink with frames of cameras in turn, until it is stopped; each differs if they are changing."""

    def __init__(
        self, live: LiveSink, *cameras: str, fps: float = 60.0, changing: bool = False, **frames: Any
    ) -> None:
        self._live, self._cameras, self._period_s, self._frames = live, cameras, 1 / fps, frames
        self._changing = changing
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feeder")

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _feed(self) -> None:
        for name in self._cameras:
            self._live.open(SourceInfo(name, 320, 180, 30.0, None, "arrival", name))
        frames = [frame_of(name, index, **self._frames) for index, name in enumerate(self._cameras)]
        while not self._stop.wait(self._period_s):
            for frame in frames:
                frame.pixels += np.uint8(self._changing)
                self._live.write(frame, RESULT)


@contextmanager
def serving(
    state: Any, live: LiveSink | None = None, events: Any = None, controls: Any = None, **settings: Any
) -> Iterator[WebServer]:
    """A server on a free port of the loopback, unless the settings say otherwise."""
    chosen = WebSettings.model_validate({"port": 0, "requests_per_s": 10_000} | settings)
    server = WebServer(make_app(state, live or LiveSink(TITLE), chosen, events, controls), chosen)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class DemoStream:
    """The demo camera through the shipped models, as `sightline run` streams it, with a state to look at."""

    def __init__(self, source: str = "demo://?fps=10", name: str = "demo") -> None:
        settings = StreamSettings(source=source)
        self._uri, self._name = source, name
        self._begin_s = time.monotonic()
        self._models = Cascade.open(settings.chosen())
        self.live = LiveSink(self._models.title)
        self._recorder = StageRecorder()
        self._last = (0, 0.0, "")
        self._pipeline = Pipeline(open_source(source), self._models, [self, self.live, self._recorder])
        self._thread = threading.Thread(target=self._pipeline.run, name="stream")

    def __enter__(self) -> DemoStream:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._pipeline.stop()
        self._thread.join()
        self._models.close()

    def open(self, source: SourceInfo) -> None:
        self._info = source

    def write(self, frame: Frame, result: FrameResult) -> None:
        frame.camera = self._name
        self._last = (frame.index + 1, frame.stamps.age_ms, result.summary())

    def close(self) -> None: ...

    def snapshot(self) -> dict[str, Any]:
        captured, age_ms, words = self._last
        n, up_s = self._recorder.n, time.monotonic() - self._begin_s
        of_camera = camera(
            self._name,
            since_s=up_s,
            reconnects=0,
            captured=captured,
            processed=n,
            dropped=max(0, captured - n - 1),
            fps=n / up_s,
            age_ms=age_ms,
            last_result=words,
        )
        models = [
            {"name": m.name, "backend": m.model.backend, "precision": m.model.precision, "refused": []}
            for m in self._models.members
        ]
        return {
            "uptime_s": up_s,
            "version": "0.1.0",
            "cameras": [of_camera],
            "models": models,
            "latency": {self._name: self._latency()},
            "settings": {"source": self._uri, "web": {"token_file": "/etc/sightline/token"}},
            "device": dataclasses.asdict(this_machine()),
        }

    def _latency(self) -> dict[str, Any]:
        stages = {stage: _figures(spread) for stage, spread in self._recorder.spreads().items()}
        models = {
            model: {stage: _figures(spread) for stage, spread in of_model.items()}
            for model, of_model in self._recorder.model_spreads().items()
        }
        return {"n": self._recorder.n, "stages": stages, "models": models}


def _figures(spread: Any) -> dict[str, float | None]:
    return {name.replace(".", "_"): value for name, value in spread.as_json().items()}
