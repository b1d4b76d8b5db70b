"""The routes for machines: JSON under `/api/v1`, health, metrics, and the pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edge.sinks.happenings import EVENT_KINDS, EventKind
from edge.web.gate import refusal
from edge.web.metrics import CONTENT_TYPE, Exposition
from edge.web.openapi import LATEST_S, MOST_EVENTS, SOME_EVENTS, document
from edge.web.state import EventQuery, EventsReader, Snapshot, Snapshots, masked
from edge.web.stream import MjpegResponse, SnapshotResponse, Streams

_JSON_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Api:
    """The endpoints, with what they read from.

    Attributes:
        events: None where no events are kept; there are none then.
    """

    snapshots: Snapshots
    streams: Streams
    exposition: Exposition
    events: EventsReader | None

    async def state(self, request: Request) -> Response:
        """Everything of a moment."""
        return _json(self._snapshot())

    async def cameras(self, request: Request) -> Response:
        """All cameras."""
        return _json({"cameras": self._snapshot().cameras})

    async def camera(self, request: Request) -> Response:
        """One camera by its name."""
        name = request.path_params["camera"]
        found = next((camera for camera in self._snapshot().cameras if camera.name == name), None)
        return _json(found) if found else _no_camera()

    async def models(self, request: Request) -> Response:
        """All models."""
        return _json({"models": self._snapshot().models})

    async def latency(self, request: Request) -> Response:
        """By camera, stage and model."""
        return _json({"latency": self._snapshot().latency})

    async def settings(self, request: Request) -> Response:
        """Those that differ from their defaults, secrets masked."""
        return _json({"settings": self._snapshot().settings})

    async def device(self, request: Request) -> Response:
        """Facts of the machine."""
        return _json({"device": self._snapshot().device})

    async def list_events(self, request: Request) -> Response:
        """The events that an `EventQuery` asks for, the newest first."""
        try:
            limit = _count(request, "limit", SOME_EVENTS, MOST_EVENTS)
            before = _moment(request, "before")
            kind = _kind(request)
        except ValueError as error:
            return refusal(422, str(error))
        texts = {name: request.query_params.get(name) for name in ("older_than", "camera", "label")}
        query = EventQuery(limit, before, kind=kind, **texts)
        found = await run_in_threadpool(self.events, query) if self.events else []
        return _json({"events": masked(found)})

    async def openapi(self, request: Request) -> Response:
        """The description of all this."""
        return _json(document(self._snapshot().version))

    async def healthz(self, request: Request) -> Response:
        """200 while the daemon answers."""
        self._snapshot()
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 while results come."""
        ready = self._snapshot().ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self.exposition.text(), headers={"content-type": CONTENT_TYPE})

    async def stream(self, request: Request) -> Response:
        """Live pictures of a camera."""
        return self._pictures(request.path_params["camera"], MjpegResponse)

    async def snapshot(self, request: Request) -> Response:
        """The next picture of a camera."""
        return self._pictures(request.path_params["camera"], SnapshotResponse)

    def _snapshot(self) -> Snapshot:
        return self.snapshots.newest()

    def _pictures(self, camera: str, kind: type[MjpegResponse | SnapshotResponse]) -> Response:
        return self.streams.answer(camera, kind) if self.snapshots.has_camera(camera) else _no_camera()


def _no_camera() -> Response:
    return refusal(404, "There is no camera of this name. /api/v1/cameras lists them.")


def _json(content: Any) -> Response:
    """What JSON cannot say (a NaN) is null; what it does not know is its text."""
    body = to_json(content, inf_nan_mode="null", fallback=str)
    return Response(body, media_type="application/json")


def _count(request: Request, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most` in the query; raises ValueError for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= most):
        raise ValueError(f"'{name}' is a whole number from 1 to {most}.")
    return int(text)


def _moment(request: Request, name: str) -> float | None:
    """Seconds since 1970 in the query; raises ValueError for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not _JSON_NUMBER.fullmatch(text) or not 0 <= float(text) <= LATEST_S:
        raise ValueError(f"'{name}' is a moment in seconds since 1970, with decimals or without.")
    return float(text)


def _kind(request: Request) -> EventKind | None:
    """A kind of event in the query; raises ValueError for anything else."""
    text = request.query_params.get("kind")
    if text is not None and text not in EVENT_KINDS:
        raise ValueError(f"'kind' is one of {', '.join(EVENT_KINDS)}.")
    return text
