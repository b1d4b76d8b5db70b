"""What happens in a stream: a face enters and leaves, a class stays above a threshold for a time.

Results come many times a second and flicker. An event is told once: it begins when something was seen
for long enough, and ends when it was not seen for long enough. Both times are counted on the monotonic
clock of the frames' capture; the wall clock is for display alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.clock import in_utc, wall_s
from edge.frame import Frame
from edge.results import Classification, Faces, FrameResult

EventKind = Literal["face_entered", "face_left", "class_began", "class_ended"]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

BEGINNINGS: tuple[EventKind, ...] = ("face_entered", "class_began")

_RUN = uuid.uuid4()
"""Makes the ids of this process's events differ from those of any other run."""


class EventRules(BaseModel):
    """When an event begins and ends; part of the settings of every sink that tells of events.

    Attributes:
        enter_s: a tracked face enters once it has been followed for so long.
        leave_s: what is not seen for so long is gone.
        score_threshold: a class begins when its score stays at or above this for `hold_s`, 0 to 1. Results that
            were taken over from an earlier frame let what has begun go on, and begin nothing.
        release_threshold: it goes on while its score is at or above this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enter_s: float = Field(default=0.5, ge=0)
    leave_s: float = Field(default=2.0, gt=0)
    score_threshold: float = Field(default=0.6, gt=0, le=1)
    release_threshold: float = Field(default=0.4, gt=0, le=1)
    hold_s: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _release_is_not_above(self) -> EventRules:
        if self.release_threshold > self.score_threshold:
            raise ValueError("release_threshold must not be above score_threshold")
        return self


@dataclass(frozen=True)
class Event:
    """Something that began or ended.

    Attributes:
        id: unique, 32 hexadecimal digits; the same in all sinks of one run that have the same rules.
        at_s: when it was first or last seen, seconds since 1970 by the wall clock: for display.
        camera: empty where the stream has only one source; model: the name of the one that saw it.
        label: of a class; empty for a face.
        track: the number of the face; None for a class of the whole frame.
        score: the best so far, 0 to 1.
        seconds: how long it was there; 0 at the beginning.
        began: of an end, the id of its beginning.
    """

    id: str
    kind: EventKind
    at_s: float
    camera: str
    model: str
    label: str
    track: int | None
    score: float
    seconds: float = 0.0
    began: str | None = None

    def as_record(self) -> dict[str, Any]:
        """Its fields for JSON; `time` is ISO 8601 in UTC, and what is empty is left out."""
        optional = {"camera": self.camera, "label": self.label, "track": self.track, "began": self.began}
        return {
            "id": self.id,
            "kind": self.kind,
            "time": in_utc(self.at_s),
            "model": self.model,
            "score": round(self.score, 4),
            "seconds": round(self.seconds, 3),
            **{name: value for name, value in optional.items() if value not in (None, "")},
        }


class _Subject(NamedTuple):
    """What an event is about; a face has no class (-1), a class of the whole frame no track (0)."""

    camera: str
    model: str
    class_index: int
    track: int

    @property
    def is_class(self) -> bool:
        return self.class_index >= 0


class _Sighting(NamedTuple):
    """A subject in one frame.

    Attributes:
        may_begin: it stands out enough to begin an event.
        is_held: by a result that was taken over from an earlier frame. What has begun may still be there; it was
            not seen again.
    """

    subject: _Subject
    score: float
    may_begin: bool
    label: str = ""
    is_held: bool = False


@dataclass
class _Spell:
    """From the first to the last time that something was seen; `began` is empty until it is an event."""

    label: str
    first_ns: int
    last_ns: int
    best: float
    began: str = ""


class Watch:
    """Turns the results of any number of cameras into events. Used by one thread."""

    def __init__(self, rules: EventRules) -> None:
        self._rules = rules
        self._spells: dict[_Subject, _Spell] = {}
        self._now_ns = 0
        self._wall_s = 0.0  # of self._now_ns

    def update(self, frame: Frame, result: FrameResult) -> list[Event]:
        """What began or ended with this frame; what ended lies in the past by `leave_s`."""
        self._now_ns = max(self._now_ns, frame.stamps.capture)
        self._wall_s = wall_s(self._now_ns)
        seen = list(_sightings(frame.camera, result, self._rules))
        self._interrupt(frame.camera, result, {s.subject for s in seen if s.may_begin})
        began = [self._see(sighting) for sighting in seen]
        return [event for event in began if event] + self._ended(self._rules.leave_s)

    def finish(self) -> list[Event]:
        """The end of everything that is still there, for the end of the stream."""
        return self._ended(-1.0)

    def _see(self, sighting: _Sighting) -> Event | None:
        """Begin a spell or go on with it; the event, if it has lasted long enough with this frame."""
        spell = self._spells.get(sighting.subject)
        if spell is None:
            if sighting.is_held or not sighting.may_begin:
                return None
            spell = _Spell(sighting.label, self._now_ns, self._now_ns, sighting.score)
            self._spells[sighting.subject] = spell
        spell.last_ns, spell.best = self._now_ns, max(spell.best, sighting.score)
        is_class = sighting.subject.is_class
        wanted_s = self._rules.hold_s if is_class else self._rules.enter_s
        if sighting.is_held or spell.began or self._now_ns - spell.first_ns < wanted_s * 1e9:
            return None
        kind: EventKind = "class_began" if is_class else "face_entered"
        event = self._event(sighting.subject, spell, spell.first_ns, kind)
        spell.began = event.id
        return event

    def _interrupt(self, camera: str, result: FrameResult, above: set[_Subject]) -> None:
        """Forget classes that were on their way to an event, were looked at, and are not above any more."""
        looked_at = _looked_at(result)
        waiting = [s for s, spell in self._spells.items() if s.is_class and not spell.began]
        for subject in waiting:
            was_looked_at = subject.camera == camera and (subject.model, subject.track) in looked_at
            if was_looked_at and subject not in above:
                del self._spells[subject]

    def _ended(self, after_s: float) -> list[Event]:
        """End what was not seen for so long; what had never become an event is only forgotten."""
        gone = [s for s, spell in self._spells.items() if self._now_ns - spell.last_ns > after_s * 1e9]
        pairs = [(subject, self._spells.pop(subject)) for subject in gone]
        return [
            self._event(subject, spell, spell.last_ns, "class_ended" if subject.is_class else "face_left")
            for subject, spell in pairs
            if spell.began
        ]

    def _event(self, subject: _Subject, spell: _Spell, at_ns: int, kind: EventKind) -> Event:
        return Event(
            id=uuid.uuid5(_RUN, f"{kind} {subject} {at_ns}").hex,
            kind=kind,
            at_s=self._wall_s - (self._now_ns - at_ns) / 1e9,
            camera=subject.camera,
            model=subject.model,
            label=spell.label,
            track=subject.track or None,
            score=spell.best,
            seconds=(at_ns - spell.first_ns) / 1e9,
            began=spell.began or None,
        )


def _looked_at(result: FrameResult) -> set[tuple[str, int]]:
    """Model and track (0 for the whole frame) of every classification; one that is held says what it said before."""
    looked_at = {(name, 0) for name, found in result.by_model.items() if isinstance(found, Classification)}
    return looked_at | {(name, face.track) for face in result.faces if face.track for name in face.classes}


def _sightings(camera: str, result: FrameResult, rules: EventRules) -> Iterator[_Sighting]:
    """Tracked faces, and the classes that are above a threshold."""
    for model, found in result.by_model.items():
        if isinstance(found, Classification):
            sightings = _of_classes(camera, model, found, 0, rules)
        else:
            sightings = _of_faces(camera, model, found, rules)
        is_held = model in result.held_ms
        yield from (sighting._replace(is_held=is_held) for sighting in sightings)


def _of_faces(camera: str, model: str, faces: Faces, rules: EventRules) -> Iterator[_Sighting]:
    if faces.tracks is None or not faces.tracks.any():
        return
    for face in faces:
        if face.track is not None:
            yield _Sighting(_Subject(camera, model, -1, face.track), face.score, True)
            for classifier, found in face.classes.items():
                yield from _of_classes(camera, classifier, found, face.track, rules)


def _of_classes(
    camera: str, model: str, found: Classification, track: int, rules: EventRules
) -> Iterator[_Sighting]:
    """Only the best class may begin an event: it is the one whose name is known."""
    for index in np.flatnonzero(found.scores >= rules.release_threshold).tolist():
        score, best = float(found.scores[index]), index == found.index
        begins = best and score >= rules.score_threshold
        yield _Sighting(_Subject(camera, model, index, track), score, begins, found.label if best else "")
