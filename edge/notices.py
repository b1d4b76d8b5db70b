"""What a person who reads the journal wants to know of a daemon: a line for each change, none while all is well."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edge.daemon_state import DaemonState

PERIOD_S = 1.0
"""How often the state is looked at."""

REPEAT_S = 60.0
"""How soon another reason for a camera's state, or more losses of a sink, are told of."""

BURST = 4
"""Lines of one camera or sink within `REPEAT_S`: one that comes and goes all the time would fill the journal."""


class Notices:
    """Compares the state of a daemon with what it was, and says what has changed.

    Told are: a camera that is lost, degraded, ended by an error or live again; a configuration that was
    read anew or refused; a sink in trouble or well again, the results that it lost, and what it found damaged; a
    model's new backend, and what is built for it.

    Args:
        say: takes a line.
        clock: seconds, monotonic.
    """

    def __init__(
        self, state: DaemonState, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._say, self._clock = state, say, clock
        self._due_s = float("-inf")
        self._known: dict[str, Any] = {}
        self._told_s: dict[str, deque[float]] = {}

    def look(self) -> None:
        """Say what is new, if the last look was a while ago."""
        if self._clock() >= self._due_s:
            self._due_s = self._clock() + PERIOD_S
            self.look_now()

    def look_now(self) -> None:
        """Say what is new."""
        brief = self._state.brief()
        for camera in brief["cameras"]:
            self._camera(camera)
        for model in brief["models"]:
            self._model(model)
        for sink in brief["sinks"]:
            self._sink(sink)
        self._reloads(brief["reloads"])

    def end(self) -> None:
        """Say what the sinks lost at last, however lately their losses were told."""
        self._told_s.clear()
        for sink in self._state.brief()["sinks"]:
            self._sink(sink)

    def _camera(self, camera: dict[str, Any]) -> None:
        key, state, error = f"camera {camera['name']}", camera["state"], camera["last_error"] or ""
        state_before, error_before = self._known.get(key, ("opening", ""))
        is_news = bool(error) and error != error_before
        if not self._may_tell(key) or (state == state_before and not (is_news and self._may_repeat(key))):
            return  # what is held back now is told at a later look, if it is still so
        self._known[key] = (state, error)
        if state == "live" and state_before == "live":
            self._tell(key, f"live, but: {error}")
        elif state == "live" and error:
            self._tell(key, f"live again, after: {error}")
        elif state in ("lost", "degraded") or is_news:
            self._tell(key, f"{state}: {error}")

    def _model(self, model: dict[str, Any]) -> None:
        key = f"model {model['name']}"
        facts = [f"{model['backend']} {model['precision']}", *(f"refused {r}" for r in model["refused"])]
        if model["building"]:
            facts.append(f"building {model['building']}")
        if model["changed"]:
            facts.append("its files on the disk are others now; a reload takes them")
        for fact in facts:
            if fact not in self._known.get(key, facts):
                self._tell(key, fact)
        self._known[key] = facts

    def _sink(self, sink: dict[str, Any]) -> None:
        self._damage(sink)
        key, lost, error = f"sink {sink['name']}", sink["lost"], sink["last_error"]
        lost_before, error_before = self._known.get(key, (0, ""))
        is_news = bool(error) != bool(error_before)
        if not self._may_tell(key) or not (is_news or (lost > lost_before and self._may_repeat(key))):
            return  # as of a camera
        self._known[key] = (lost, error)
        if lost > lost_before:
            self._tell(key, f"{lost} lost so far" + (f": {error}" if error else ""))
        else:
            self._tell(key, error or f"well again, after: {error_before}")

    def _damage(self, sink: dict[str, Any]) -> None:
        key = f"damage {sink['name']}"
        if sink["damage"] and sink["damage"] != self._known.get(key):
            self._safely(f"sink {sink['name']}: {sink['damage']}")
        self._known[key] = sink["damage"]

    def _reloads(self, reloads: dict[str, Any]) -> None:
        before = self._known.get("reloads", {"done": 0, "refused": 0})
        self._known["reloads"] = reloads
        if reloads["refused"] > before["refused"]:
            self._safely(f"configuration refused, the old one goes on: {reloads['last_error']}")
        if reloads["done"] > before["done"]:
            self._safely("configuration read anew")

    def _may_repeat(self, key: str) -> bool:
        told = self._told_s.get(key)
        return not told or self._clock() - told[-1] >= REPEAT_S

    def _may_tell(self, key: str) -> bool:
        told = self._told_s.get(key)
        return told is None or len(told) < BURST or self._clock() - told[0] >= REPEAT_S

    def _tell(self, key: str, text: str) -> None:
        self._told_s.setdefault(key, deque(maxlen=BURST)).append(self._clock())
        self._safely(f"{key}: {text}")

    def _safely(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that is gone, a full disk: the stream goes on
            self._say(line)
