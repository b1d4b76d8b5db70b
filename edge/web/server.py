"""The web server: uvicorn in a thread of its own, with a deadline for every client."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, MissingPackageError, SightlineError
from edge.web.settings import WebSettings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from uvicorn import Config, Server

    from edge.web.actions import Controls
    from edge.web.live import LiveSink
    from edge.web.state import EventsReader, State

START_S = 10.0
STOP_S = 3.0
GRACE_S = 1
"""For answers under way when the server stops; streams are ended at once."""

IDLE_S = 15
"""A kept-alive connection without a request is closed after so long."""

LARGEST_INCOMPLETE = 16 * 1024
"""Of the beginning of a request that does not end."""

MOST_CONNECTIONS = 128
BACKLOG = 64

SEND_BUFFER = 64 * 1024
"""Of the kernel, for each connection, which doubles it: pictures in it grow old for a slow viewer, and Linux
would let it grow to megabytes. Enough for 1 MB/s over 100 ms of network."""

_REASONS = {
    errno.EADDRINUSE: "the port is in use, perhaps by another Sightline. Stop that one, or set `port` in [web]",
    errno.EACCES: "this user may not listen on so low a port. Set `port` in [web] to one from 1024",
    errno.EADDRNOTAVAIL: "this machine has no such address. Set `host` in [web] to one that it has",
}


class WebServer:
    """Serves an application until it is stopped.

    Args:
        app: of `edge.web.app.make_app`.
        settings: host and port.
    """

    def __init__(self, app: Starlette, settings: WebSettings) -> None:
        self._app = app
        self._settings = settings
        self._socket: socket.socket | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Where the page is, once the server has started; of all addresses `localhost`."""
        assert self._socket is not None, "start comes first"
        host = self._settings.host
        shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._port}/"

    def start(self) -> None:
        """Listen and serve; returns when requests are answered.

        Raises:
            InputError: the port is in use, or the address is not this machine's.
        """
        config = _config(self._app)
        import uvicorn

        self._socket = _listening(self._settings)
        self._port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(config)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="web", daemon=True)
        self._thread.start()
        if not ready.wait(START_S) or self._failure is not None:
            self.stop()
            raise SightlineError(f"The web server did not start: {self._failure or 'no answer'}.")

    def stop(self) -> None:
        """End all streams and close; harmless when called twice, or before `start`."""
        thread, self._thread = self._thread, None
        if thread is None or self._server is None:
            return
        self._server.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._app.state.streams.close)
        thread.join(STOP_S)

    def _serve(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve_until_stopped(ready))
        except BaseException as error:
            self._failure = error
        finally:
            ready.set()

    async def _serve_until_stopped(self, ready: threading.Event) -> None:
        assert self._server is not None
        assert self._socket is not None
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        ready.set()
        await serving


def serve(
    state: State,
    live: LiveSink,
    settings: WebSettings,
    events: EventsReader | None = None,
    controls: Controls | None = None,
) -> WebServer:
    """Make the application and serve it; the caller stops the server.

    Raises:
        InputError: as `make_app` and `WebServer.start`.
        MissingPackageError: the extra `web` is not installed.
    """
    require_packages()
    from edge.web.app import make_app

    server = WebServer(make_app(state, live, settings, events, controls), settings)
    server.start()
    return server


def require_packages() -> None:
    """Raises MissingPackageError where the extra `web` is not installed."""
    try:
        import edge.web.app
        import edge.web.deadlines  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "starlette", "web", "The web page") from error


def _listening(settings: WebSettings) -> socket.socket:
    """A bound socket, so that the one who starts the server hears what is wrong with the address."""
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio looks at it: without it small answers wait 40 ms (Nagle).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.bind((host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = _REASONS.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
        raise InputError(
            f"Cannot serve the page on {settings.host} port {settings.port}: {reason}."
        ) from error
    return listener


def _config(app: Any) -> Config:
    from uvicorn import Config

    from edge.web.deadlines import DeadlineProtocol

    return Config(
        app,
        http=DeadlineProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",  # what strangers send that is no HTTP would fill the journal, a line each
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=LARGEST_INCOMPLETE,
    )
