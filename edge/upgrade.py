"""A better backend that has to be built first: built beside the stream, proven, and handed over.

Building is done by a child process with the lowest priority, so that this package needs nothing of the
builder and a builder that crashes takes nothing along. What the child has built is loaded and replays the
golden vectors on a thread of its own; the thread that infers then takes it between two frames.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from edge.backends import best_precision, open_proven
from edge.bundle import Bundle, Precision
from edge.children import end
from edge.errors import InputError, SightlineError
from edge.protocols import Runner
from edge.runners import cuda
from edge.runners.plans import find_toolkit, usable_plan

POLL_S = 0.1
END_S = 0.5
"""How long a child may take to end when it is asked to; then it is killed."""

_LAST_WORDS = 300


@dataclass(frozen=True)
class Upgrade:
    """A backend that could serve once `command` has succeeded."""

    backend: str
    precision: Precision
    command: tuple[str, ...]


FindUpgrade = Callable[[Bundle, str], "Upgrade | None"]
"""From a bundle and the precision asked for: what could be built for it here, if anything."""


def missing_plan(bundle: Bundle, precision: str = "auto") -> Upgrade | None:
    """The TensorRT plan that `sightline build` could make on this device; None where it could not run.

    Where there is one already, it was refused for what it is: another would be no better.
    """
    wanted = best_precision(bundle, "tensorrt", precision)
    if wanted is None or not cuda.is_in_sight() or usable_plan(bundle):
        return None
    try:
        cuda.probe()
        find_toolkit()
    except SightlineError:
        return None
    command = (sys.executable, "-m", "sightline", "build", str(bundle.folder), "--precision", wanted)
    return Upgrade("tensorrt", wanted, command)


@dataclass(frozen=True)
class Job:
    """An upgrade that is wanted for a model, known by its name."""

    model: str
    bundle: Bundle
    upgrade: Upgrade
    threads: int = 1


@dataclass(frozen=True)
class Switch:
    """How a job ended: with a runner to go on with, or without one and with the reason."""

    job: Job
    runner: Runner | None
    reason: str = ""


@dataclass
class Upgrader:
    """Does one job after the other.

    Args:
        on_ready: called, from another thread, when `take` has something to give.
    """

    on_ready: Callable[[], None] = lambda: None
    _jobs: queue.SimpleQueue[Job | None] = field(default_factory=queue.SimpleQueue)
    _ready: deque[Switch] = field(default_factory=deque)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, job: Job) -> None:
        """Begin, or put it behind those that were wanted before."""
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="upgrade", daemon=True)
            self._thread.start()

    def take(self) -> Switch | None:
        """The next job that has ended; never waits."""
        return self._ready.popleft() if self._ready else None

    def stop(self) -> None:
        """End the child and the thread; runners that nobody took are closed."""
        self._stopping.set()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(2 * END_S)
        while switch := self.take():
            if switch.runner is not None:
                switch.runner.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopping.is_set():
            self._ready.append(self._done(job))
            self.on_ready()

    def _done(self, job: Job) -> Switch:
        try:
            self._build(job.upgrade.command)
            runner, _ = open_proven(job.bundle, job.upgrade.backend, job.upgrade.precision, job.threads)
        except (SightlineError, OSError) as error:
            return Switch(job, None, str(error))
        return Switch(job, runner)

    def _build(self, command: tuple[str, ...]) -> None:
        """Run the child to its end; raises InputError when it fails or is stopped."""
        lowly = [sys.executable, "-m", "edge.lowly", *command]
        with subprocess.Popen(
            lowly, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            words = self._listen(child)
            if self._stopping.is_set():
                raise InputError("stopped")
            if child.returncode:
                raise InputError(f"building failed with exit code {child.returncode}: {words}")

    def _listen(self, child: subprocess.Popen[str]) -> str:
        """Wait for the end or `stop`; what the child said last on its standard error."""
        words = ""
        while True:
            with suppress(subprocess.TimeoutExpired):
                words = child.communicate(timeout=POLL_S)[1]
            if child.returncode is not None:
                return " ".join(words[-_LAST_WORDS:].split())
            if self._stopping.is_set():
                end(child, END_S)
