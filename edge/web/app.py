"""The application: a literal table of routes behind one gate."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.web.actions import Actions, Controls
from edge.web.api import Api
from edge.web.credentials import Credentials
from edge.web.gate import HEADERS, Gate, Guard, refusal
from edge.web.live import LiveSink
from edge.web.metrics import Exposition
from edge.web.page import Pages
from edge.web.settings import WebSettings
from edge.web.state import EventsReader, Snapshots, State
from edge.web.stream import Streams


def make_app(
    state: State,
    live: LiveSink,
    settings: WebSettings,
    events: EventsReader | None = None,
    controls: Controls | None = None,
) -> Starlette:
    """The page and its API over what runs.

    Args:
        state: asked for a snapshot whenever somebody looks.
        live: one of the stream's sinks.
        settings: who may look.
        events: where events are kept; None where they are not.
        controls: what may be changed; None for nothing.

    Raises:
        InputError: the file of a secret is missing or holds something else.
    """
    guard = Guard(settings, Credentials.read(settings))
    snapshots = Snapshots(state)
    streams = Streams(live, settings.max_viewers, snapshots.has_camera)
    api = Api(snapshots, streams, Exposition(snapshots, live), events)
    app = Starlette(
        routes=routes(api, Pages(guard), Actions(controls)),
        middleware=[Middleware(Gate, guard=guard)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    app.router.redirect_slashes = False
    app.state.streams = streams
    return app


def routes(api: Api, pages: Pages, actions: Actions) -> list[Route]:
    """All there is to ask for; `edge.web.gate.PUBLIC` says what of it needs no secret."""
    return [
        Route("/", pages.index),
        Route("/login", pages.login, methods=["GET", "POST"]),
        Route("/logout", pages.logout, methods=["POST"]),
        Route("/healthz", api.healthz),
        Route("/readyz", api.readyz),
        Route("/metrics", api.metrics),
        Route("/api/openapi.json", api.openapi),
        Route("/api/v1/state", api.state),
        Route("/api/v1/cameras", api.cameras),
        Route("/api/v1/cameras/{camera}", api.camera),
        Route("/api/v1/models", api.models),
        Route("/api/v1/latency", api.latency),
        Route("/api/v1/settings", api.settings),
        Route("/api/v1/device", api.device),
        Route("/api/v1/events", api.list_events),
        Route("/api/v1/reload", actions.reload, methods=["POST"]),
        Route("/api/v1/enrolment", actions.taught),
        Route("/api/v1/enrolment/teach", actions.teach, methods=["POST"]),
        Route("/api/v1/enrolment/forget", actions.forget, methods=["POST"]),
        Route("/stream/{camera}.mjpg", api.stream),
        Route("/snapshot/{camera}.jpg", api.snapshot),
    ]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    return refusal(error.status_code, error.detail, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """The text of an error may hold anything, so that it goes to the log and not out. This lies outside the gate."""
    return refusal(500, "This could not be answered; the log says why.", HEADERS)
