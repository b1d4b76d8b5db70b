"""What `sightline run` does with a configuration of cameras: serve them, or say what it would serve."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from edge.config import CameraSettings, StreamSettings
from edge.console import leave_terminal
from edge.daemon import Daemon
from edge.daemon_state import DaemonState
from edge.errors import InputError, SightlineError, SourceError
from edge.frame import Frame
from edge.protocols import Sink, SourceInfo
from edge.results import FrameResult
from edge.ring import Counts
from edge.secret import Secrets, masked
from edge.wiring import Models, check_outputs, make_sinks, make_source

if TYPE_CHECKING:
    from edge.enrolment.live import Teacher
    from edge.web.state import EventQuery, EventsReader

PERIOD_S = 1.0


class StatusLines:
    """A sink that prints the daemon's state once a second."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._due_s = 0.0

    def open(self, source: SourceInfo) -> None:
        """Nothing to open."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Print, if it is time."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + PERIOD_S
            click.echo(
                f"{self._state.status()}. {frame.camera}: {result.summary()}, {frame.stamps.age_ms:.0f} ms"
            )

    def close(self) -> None:
        """Nothing to close."""


def serve(settings: StreamSettings, reread: Callable[[], StreamSettings] | None, quiet: bool = False) -> None:
    """Serve until Ctrl-C, SIGTERM, a limit, or the end of all cameras; SIGHUP reads the settings anew.

    Raises:
        SightlineError: as `Daemon.run`, or the page cannot be served.
        SourceError: all cameras have ended, and not all of them as files do.
    """
    from edge.run import ended_by_signals

    state = DaemonState(settings)
    sinks: list[tuple[str, Sink]] = []
    if settings.sinks.terminal and not quiet:
        sinks.append(("terminal", StatusLines(state)))
    with ExitStack() as ending:
        say = partial(click.echo, err=True)  # stdout may be a file of results; a journal has both
        daemon = Daemon(settings, reread, state, sinks, say=say)
        if settings.web is not None:
            sinks += _page(settings, daemon, ending)  # which the daemon takes when it runs
        ending.enter_context(ended_by_signals(daemon.stop))
        ending.enter_context(on_hangup(daemon.reload))  # last: it takes SIGHUP for itself
        counts = daemon.run()
    if not quiet:
        click.echo(_in_words(counts))
    if daemon.failure:
        raise SourceError(f"Nothing is left to serve. {daemon.failure}")


def _page(settings: StreamSettings, daemon: Daemon, ending: ExitStack) -> list[tuple[str, Sink]]:
    """Serve the page; the sinks that show it the pictures, and take those that classes are taught from."""
    from edge.web.live import LiveSink
    from edge.web.server import serve as serve_page

    assert settings.web is not None
    live, controls = LiveSink(), DaemonControls(daemon, settings.teaches)
    server = serve_page(daemon.state, live, settings.web, events_reader(settings), controls)
    ending.callback(server.stop)
    click.echo(f"The page is at {server.url}")
    return [("page", live), *controls.sinks]


class DaemonControls:
    """What the page may do to a daemon, see `edge.web.actions.Controls`.

    Args:
        teaches: whether classes can be taught.

    Attributes:
        sinks: that it needs among the daemon's.
    """

    def __init__(self, daemon: Daemon, teaches: bool) -> None:
        self._daemon = daemon
        self._teacher: Teacher | None = None
        self.sinks: list[tuple[str, Sink]] = []
        if teaches:
            from edge.enrolment.live import Teacher

            self._teacher = Teacher(lambda: daemon.settings, daemon.reload)
            self.sinks.append(("teacher", self._teacher))

    def reload(self) -> None:
        """Have the daemon read its configuration anew."""
        self._daemon.reload()

    def taught(self) -> list[dict[str, Any]]:
        """Of each model that can be taught."""
        return self._teacher.taught() if self._teacher else []

    def teach(self, camera: str, model: str, label: str) -> dict[str, Any]:
        """As `Teacher.teach`."""
        return self._the_teacher().teach(camera, model, label)

    def forget(self, model: str, label: str) -> None:
        """As `Teacher.forget`."""
        self._the_teacher().forget(model, label)

    def _the_teacher(self) -> Teacher:
        if self._teacher is None:
            raise InputError("Classes are not taught here. Set `enrolment = true` in [web] to allow it.")
        return self._teacher


def events_reader(settings: StreamSettings) -> EventsReader | None:
    """The newest events of the database for the page; None where no events are kept."""
    from edge.sinks.events import read_events

    events = settings.sinks.events
    if events is None:
        return None

    def newest(query: EventQuery) -> list[dict[str, Any]]:
        try:
            found = read_events(
                events.path,
                query.camera,
                query.kind,
                query.label,
                limit=query.limit,
                before_s=math.inf if query.before is None else query.before,
                older_than=query.older_than,
            )
        except InputError:  # none was ever written
            return []
        return [event.as_record() for event in found]

    return newest


@contextmanager
def on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """Let SIGHUP call `reload`; where a terminal that was closed has sent it, nothing is printed any more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: object) -> None:
        leave_terminal()
        reload()

    before = signal.signal(signal.SIGHUP, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def check(settings: StreamSettings) -> str:
    """What a run of these settings would do: cameras, models with their backends, and where results go.

    Models are loaded and replay their golden vectors; cameras are looked up, not opened; no file is made.

    Raises:
        SightlineError: a model, a source, a sink's file, a secret or a package that would not do.
    """
    secrets, lines = Secrets(), []
    for camera in settings.all_cameras():
        _look_up(camera, secrets)
        options = camera.model_dump(exclude={"name", "source"}, exclude_defaults=True, exclude_none=True)
        lines.append(f"camera {camera.name}: {masked(camera.source)}{_listed(options)}")
    models = Models.open(settings)
    with closing(models.cascade):
        for loaded in models.loaded:
            facts = loaded.facts
            lines.append(
                f"model {facts.name}: {facts.backend} {facts.precision}, golden vectors within "
                f"{facts.golden_steps:g} steps"
            )
            lines += [f"  refused {refusal}" for refusal in facts.refused]
    lines += [f"sink {name}" for name, _ in make_sinks(settings.sinks, "")]
    check_outputs(settings)
    if settings.web is not None:
        from edge.web.credentials import Credentials
        from edge.web.server import require_packages

        require_packages()
        Credentials.read(settings.web)
        lines.append(f"page on {settings.web.host} port {settings.web.port}")
    return "\n".join(lines)


def _look_up(camera: CameraSettings, secrets: Secrets) -> None:
    try:
        make_source(camera, secrets)
    except SightlineError as error:
        raise InputError(f"The camera '{camera.name}': {secrets.scrubbed(str(error))}") from None


def _listed(options: dict[str, Any]) -> str:
    return "".join(f", {name} = {value}" for name, value in options.items())


def _in_words(counts: Counts) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.dropped_for.items()))
    dropped = f"{counts.dropped} dropped" + (f" ({reasons})" if reasons else "")
    return f"{counts.processed} of {counts.captured} frames, {dropped}{counts.lost_in_words}."
