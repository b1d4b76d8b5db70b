"""Several cameras, one set of models, for months: what `sightline run` is when it serves cameras.

Each camera has a thread that feeds its ring (`edge.feeder`). One loop, in the thread that calls `run`, takes
their frames in turn (`edge.turns`), infers, and hands the results to the sinks. What takes long is done
beside it and taken over between two frames: building a better backend (`edge.upgrade`), and reading the
configuration anew.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from edge.config import CameraSettings, StreamSettings
from edge.daemon_state import DaemonState
from edge.errors import DeviceFailed, InputError, reason_of
from edge.feeder import Feeder
from edge.frame import Frame
from edge.notices import Notices
from edge.notify import Notifier
from edge.protocols import Sink, Source
from edge.results import FrameResult
from edge.ring import Counts, DropReason
from edge.secret import Secrets
from edge.turns import Lane, Turns
from edge.upgrade import FindUpgrade, Job, Switch, Upgrader, missing_plan
from edge.wiring import Models, make_sinks, make_source, prepare

POLL_S = 0.1
"""How often an idle loop looks whether it was asked for something."""

END_S = 0.5
"""How long the end waits for all feeders together, which may hang in their sources."""

MOST_FAILURES = 10
"""Frames in a row on which the models fail, before the daemon gives up and its supervisor starts it anew."""

STATUS_S = 5.0

MakeSource = Callable[[CameraSettings, Secrets], Source]
OpenModels = Callable[[StreamSettings, "Models | None"], Models]


FIXED = ("sinks", "web", "seconds", "frames")
"""Settings that are read at the start alone."""


@dataclass(frozen=True)
class _New:
    """A configuration that was read and found right, and its models."""

    settings: StreamSettings
    models: Models


class Daemon:
    """Runs until it is stopped, or until all its cameras have ended.

    Args:
        settings: what to run.
        reread: reads the settings anew, for `reload`; None cannot be reloaded.
        state: is told everything.
        more_sinks: beside those of the settings, each opened once for each camera.
        find_upgrade: what could be built for a bundle.
        make_source: a camera's source.
        open_models: as `Models.open`.
        say: takes a line for the journal, of what goes wrong and comes right again.

    Attributes:
        failure: why nothing was left to serve, where a camera's error was the reason; empty else.
    """

    def __init__(
        self,
        settings: StreamSettings,
        reread: Callable[[], StreamSettings] | None = None,
        state: DaemonState | None = None,
        more_sinks: Sequence[tuple[str, Sink]] = (),
        find_upgrade: FindUpgrade = missing_plan,
        make_source: MakeSource = make_source,
        open_models: OpenModels = Models.open,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.state = state or DaemonState()
        self._notices = Notices(self.state, say)
        self._settings = settings
        self._reread = reread
        self._more_sinks = more_sinks
        self._find_upgrade = find_upgrade
        self._make_source = make_source
        self._open_models = open_models
        self._secrets = Secrets()
        self._notifier = Notifier()
        self._turns = Turns()
        self._upgrader = Upgrader(self._turns.wake)
        self._feeders: dict[str, Feeder] = {}
        self._gone: list[Feeder] = []  # of cameras that a reload took away, until their threads have ended
        self._past = Counts()  # of those that have
        self._sinks: list[tuple[str, Sink]] = []
        self._begun: set[Feeder] = set()  # those of which a frame was processed
        self._results = self._failures = 0
        self._status_s = 0.0
        self.failure = ""
        self._stop = self._reload = False
        self._reloading: threading.Thread | None = None
        self._new: _New | None = None

    @property
    def settings(self) -> StreamSettings:
        """Those in force."""
        return self._settings

    def stop(self) -> None:
        """End after the present frame. Safe in a signal handler: it takes no lock."""
        self._stop = True

    def reload(self) -> None:
        """Read the configuration anew soon. Safe in a signal handler."""
        self._reload = True

    def run(self) -> Counts:
        """Serve; the counts of all cameras together at the end.

        Raises:
            SightlineError: a model runs on no backend, or a sink has a wrong target: before it is ready.
            DeviceFailed: later, when the models failed on many frames in a row.
        """
        import cv2

        cv2.setNumThreads(1)  # cameras are many and cores few: OpenCV would take all of them for each
        self.state.configure(self._settings)
        with ExitStack() as closing:
            closing.callback(self._notifier.stopping)
            closing.callback(self._stop_feeders)
            self._serve_cameras()  # first: they connect while the models are loaded
            self._models = self._open_models(self._settings, None)
            closing.callback(lambda: self._models.close_all_but())
            closing.callback(self._upgrader.stop)
            self._sinks = make_sinks(self._settings.sinks, self._models.cascade.title)
            self._sinks += self._more_sinks
            self.state.write_to(self._sinks)
            closing.callback(self._notices.end)
            for name, sink in self._sinks:
                closing.push(partial(self._close, name, sink))
            prepare(self._sinks, self._settings)
            # Again, if not stopped yet: before sinks and models are closed.
            closing.callback(self._stop_feeders)
            self._serve_models()
            self._loop()
        feeders = (*self._gone, *self._feeders.values())
        return total([self._past, *(feeder.counts() for feeder in feeders)])

    def _loop(self) -> None:
        begin_s = time.monotonic()
        self._notifier.ready(self.state.status())
        while not self._is_over(time.monotonic() - begin_s):
            self._notifier.progress()
            self._between_frames()
            taken = self._turns.take(POLL_S)
            if taken is not None:
                self._process(*taken)
        self._notices.look_now()
        if self._have_ended():
            failed = [feeder for feeder in self._feeders.values() if feeder.failed]
            self.failure = "; ".join(f"camera {f.camera.name}: {f.health().last_error}" for f in failed)

    def _have_ended(self) -> bool:
        return all(feeder.ended for feeder in self._feeders.values())

    def _is_over(self, seconds: float) -> bool:
        """It was stopped, a limit is reached, or all cameras have ended."""
        most, longest = self._settings.frames, self._settings.seconds
        return (
            self._stop
            or (most is not None and self._results >= most)
            or (longest is not None and seconds >= longest)
            or self._have_ended()
        )

    def _process(self, lane: Lane, frame: Frame) -> None:
        """Infer and publish; a frame on which the models fail is dropped, unless many are."""
        processed = False
        try:
            self._begin_stream(self._feeders[lane.camera.name])
            frame.stamps.mark("dequeue")
            try:
                result = self._models.cascade.process(frame)
            except Exception as error:  # whatever a runner throws: of a lost accelerator, for example
                self._fail(error)
            else:
                self._publish(frame, result)
                processed = True
        finally:
            lane.ring.release(processed)
        self._results += processed
        self._failures = 0 if processed else self._failures

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise DeviceFailed(
                f"The models failed on {self._failures} frames in a row, at last with: {error}. "
                "Start again; if that does not help, look at the device with: sightline doctor"
            ) from error

    def _publish(self, frame: Frame, result: FrameResult) -> None:
        """Each sink sees the stamp of the moment at which it got the result; one that fails loses it."""
        frame.stamps.mark("publish")
        for name, sink in self._sinks:
            frame.stamps.mark("publish")
            try:
                sink.write(frame, result)
            except Exception as error:  # whatever a disk or an encoder throws: the others get theirs
                self.state.sink_failed(name, frame.camera, reason_of(error))
                self._notices.look_now()  # the next result may go well, and nobody would know why this one did not
            else:
                self.state.sink_took(name, frame.camera)
        self.state.published(frame, result)

    def _close(self, name: str, sink: Sink, kind: object, why: BaseException | None, trace: object) -> None:
        """What a sink cannot write at the end does not hide why the daemon ends: its supervisor goes by that."""
        try:
            sink.close()
        except Exception as error:  # as of `write`
            if why is None:
                raise
            self.state.sink_failed(name, "", reason_of(error))

    def _begin_stream(self, feeder: Feeder) -> None:
        """Of a camera's first frame: make it known to models and sinks."""
        if feeder in self._begun:
            return
        assert feeder.info is not None, "it has delivered a frame"
        self._models.cascade.start(feeder.info)
        for name, sink in self._sinks:
            try:
                sink.open(feeder.info)
            except Exception as error:  # a full disk, say: a wrong target was found at the start
                self.state.sink_failed(name, feeder.camera.name, reason_of(error))
        self._begun.add(feeder)

    def _between_frames(self) -> None:
        """What others have prepared is taken over here, where no frame is in anybody's hands."""
        while switch := self._upgrader.take():
            self._switch(switch)
        if self._reload and self._reloading is None:
            self._reload = False
            self._notifier.reloading()
            self._reloading = threading.Thread(target=self._read_again, name="reload", daemon=True)
            self._reloading.start()
        if self._reloading is not None and not self._reloading.is_alive():
            self._reloading = None
            self._take_over()
        self._notices.look()
        if time.monotonic() - self._status_s >= STATUS_S:
            self._status_s = time.monotonic()
            self._notifier.status(self.state.status())
            self._forget_gone()
            for model in self._models.loaded:
                self.state.change_model(model.member.name, changed=model.has_changed)

    def _forget_gone(self) -> None:
        """Keep the counts of the cameras that have ended since a reload, and not the memory of their frames."""
        for feeder in [feeder for feeder in self._gone if feeder.join(0)]:
            self._past = total([self._past, feeder.counts()])
            self._gone.remove(feeder)
            self._begun.discard(feeder)

    def _switch(self, switch: Switch) -> None:
        """Go on with what was built, unless it failed or its model is gone."""
        job = switch.job
        model = next((m for m in self._models.loaded if m.bundle is job.bundle), None)
        backend, precision = job.upgrade.backend, job.upgrade.precision
        if model is None:
            if switch.runner is not None:
                switch.runner.close()
            return
        facts = self.state.model(job.model)
        if switch.runner is None:
            refused = (*facts.refused, f"{backend} {precision}: {switch.reason}")
            self.state.change_model(job.model, building="", refused=refused)
            return
        model.member.model.switch(switch.runner, backend, precision).close()
        self._models.cascade.choice.try_again()
        self.state.change_model(
            job.model, backend=backend, precision=precision, building="", switches=facts.switches + 1
        )

    def _serve_models(self, before: Models | None = None) -> None:
        """Tell what serves, and have built what would be better."""
        known = {id(model): self.state.model(model.member.name) for model in before.loaded} if before else {}
        self.state.run_models([known.get(id(model), model.facts) for model in self._models.loaded])
        for model in self._models.loaded:
            wanted = model.settings
            if id(model) in known or not self._settings.build_plans or wanted.backend != "auto":
                continue
            upgrade = self._find_upgrade(model.bundle, wanted.precision)
            if upgrade is not None:
                name = model.member.name
                self.state.change_model(name, building=f"{upgrade.backend} {upgrade.precision}")
                self._upgrader.start(Job(name, model.bundle, upgrade, wanted.threads))

    def _serve_cameras(self) -> None:
        """Start the cameras of the settings; those that run already and have not changed run on."""
        wanted = {camera.name: camera for camera in self._settings.all_cameras()}
        for name, feeder in list(self._feeders.items()):
            if wanted.get(name) != feeder.camera:
                self._gone.append(self._feeders.pop(name))
                feeder.ask_to_stop()
                self._models.cascade.forget(name)
        for name, camera in wanted.items():
            if name not in self._feeders:
                self._feeders[name] = self._feeder(camera)
                self._feeders[name].start()
        self._turns.lanes = tuple(self._feeders.values())
        self.state.watch(self._feeders.values())

    def _feeder(self, camera: CameraSettings) -> Feeder:
        secrets = self._secrets
        return Feeder(camera, lambda: self._make_source(camera, secrets), self._turns.wake, secrets)

    def _read_again(self) -> None:
        """On a thread of its own: read, check and load; nothing of what runs is touched."""
        try:
            if self._reread is None:
                raise InputError("There is no file to read the settings from.")
            settings = self._reread()
            changed = [n for n in FIXED if getattr(settings, n) != getattr(self._settings, n)]
            if changed:
                raise InputError(
                    f"Changed: {', '.join(changed)}. These are read at the start only: restart it."
                )
            self._new = _New(settings, self._open_models(settings, self._models))
        except Exception as error:  # whatever is wrong with what was read: what runs goes on
            reason = reason_of(error)
            self.state.reloaded(refused=self._secrets.scrubbed(reason))

    def _take_over(self) -> None:
        """Go on with the new configuration; without one, since it was wrong, with the old one."""
        new, self._new = self._new, None
        if new is not None:
            before, self._models, self._settings = self._models, new.models, new.settings
            self._models.cascade.continue_from(before.cascade)
            self.state.configure(self._settings)
            self._serve_models(before)
            before.close_all_but(self._models)
            self._serve_cameras()
            self.state.reloaded()
        self._notifier.ready(self.state.status())

    def _stop_feeders(self) -> None:
        feeders = (*self._gone, *self._feeders.values())
        for feeder in feeders:
            feeder.ask_to_stop()
        until_s = time.monotonic() + END_S
        for feeder in feeders:
            feeder.join(max(0.0, until_s - time.monotonic()))


def total(counts: Iterable[Counts]) -> Counts:
    """Of several rings together."""
    found = list(counts)
    reasons: Counter[DropReason] = Counter()
    for of_ring in found:
        reasons.update(of_ring.dropped_for)
    return Counts(
        sum(c.captured for c in found),
        sum(c.processed for c in found),
        sum(c.dropped for c in found),
        sum(c.in_flight for c in found),
        dict(reasons),
        sum(c.lost_before for c in found),
    )
