"""Teaching a class from what a camera sees now, for a page: no picture is sent, and none is kept.

Only models whose settings name a store (`enrolled`) can be taught, and people only where `people = true` and the
model takes faces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.config import ModelSettings, StreamSettings
from edge.enroll import embeddings, face_of
from edge.enrolment.classifier import ACCEPT, threshold
from edge.enrolment.store import Store
from edge.errors import InputError
from edge.frame import Frame
from edge.model import Model
from edge.pixels import Image
from edge.protocols import SourceInfo
from edge.results import FrameResult

PICTURES, EVERY_S = 8, 0.4
"""Taken for one class: 3 seconds, in which somebody turns the thing about."""

SLACK_S = 5.0
"""Beyond these seconds a camera that gives nothing is given up."""


@dataclass
class _Shoot:
    """Pictures that are being taken of a camera."""

    camera: str
    pictures: list[Image] = field(default_factory=list)
    due_s: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


class Teacher:
    """A sink that takes pictures when it is asked to, and what is done with them.

    Args:
        settings: those in force.
        changed: called when classes were taught or forgotten, so that the stream reads them anew.
    """

    def __init__(self, settings: Callable[[], StreamSettings], changed: Callable[[], None]) -> None:
        self._settings, self._changed = settings, changed
        self._shoot: _Shoot | None = None
        self._one_at_a_time = threading.Lock()

    def open(self, source: SourceInfo) -> None:
        """Nothing to open."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Copy the frame if it is wanted; called by the thread that infers."""
        shoot = self._shoot
        if shoot is None or frame.camera != shoot.camera or time.monotonic() < shoot.due_s:
            return
        shoot.due_s = time.monotonic() + EVERY_S
        shoot.pictures.append(frame.pixels.copy())
        if len(shoot.pictures) >= PICTURES:
            self._shoot = None
            shoot.done.set()

    def close(self) -> None:
        """Nothing to close."""

    def taught(self) -> list[dict[str, Any]]:
        """The models that can be taught: `model`, `people`, `classes` (`label`, `people`, `pictures`).

        Raises:
            InputError: a file of the store cannot be used.
        """
        return [self._listed(name, wanted) for name, wanted in self._teachable().items()]

    def teach(self, camera: str, model: str, label: str) -> dict[str, Any]:
        """Take pictures, and teach; takes some seconds. `label`, `pictures` in all, `threshold`.

        Raises:
            InputError: no such model or camera, no pictures, a label that cannot be, or another is taught now.
        """
        wanted = self._model(model)
        if not self._one_at_a_time.acquire(blocking=False):
            raise InputError("A class is being taught at the moment. Wait until it is done.")
        try:
            bundle = Bundle.open(wanted.bundle)
            Store(_store(wanted), bundle.manifest).check(label)  # before anybody has to stand still
            made = self._taught_with(bundle, wanted, label, self._take(camera))
        finally:
            self._one_at_a_time.release()
        self._changed()
        return made

    def forget(self, model: str, label: str) -> None:
        """Delete a class of a model; raises InputError where there is none."""
        wanted = self._model(model)
        Store(_store(wanted), Bundle.open(wanted.bundle).manifest).forget(label)
        self._changed()

    def _teachable(self) -> dict[str, ModelSettings]:
        chosen = [wanted for wanted in self._settings().chosen() if wanted.enrolled is not None]
        return {wanted.name or Bundle.open(wanted.bundle).manifest.name: wanted for wanted in chosen}

    def _model(self, name: str) -> ModelSettings:
        known = self._teachable()
        if name not in known:
            can = ", ".join(known) or "none"
            raise InputError(
                f"'{name}' cannot be taught; there can be: {can}. `enrolled` of [[models]] lets it."
            )
        return known[name]

    def _listed(self, name: str, wanted: ModelSettings) -> dict[str, Any]:
        classes = Store(_store(wanted), Bundle.open(wanted.bundle).manifest).classes()
        listed = [
            {"label": one.label, "people": one.people, "pictures": len(one.exemplars)} for one in classes
        ]
        return {"model": name, "people": _of_people(wanted), "classes": listed}

    def _take(self, camera: str) -> list[Image]:
        """RGB pictures of the next seconds."""
        if camera not in {known.name for known in self._settings().all_cameras()}:
            raise InputError(f"There is no camera '{camera}'.")
        shoot = self._shoot = _Shoot(camera)
        full = shoot.done.wait(PICTURES * EVERY_S + SLACK_S)
        self._shoot = None
        if not full:
            raise InputError(
                f"The camera '{camera}' gave {len(shoot.pictures)} of {PICTURES} pictures. Is it live?"
            )
        return shoot.pictures

    def _taught_with(
        self, bundle: Bundle, wanted: ModelSettings, label: str, pictures: list[Image]
    ) -> dict[str, Any]:
        with closing(Model.open(bundle, wanted.backend, wanted.precision)) as model:
            with self._cutter(wanted) as cut:
                found = [picture for taken in pictures if (picture := cut(taken)) is not None]
            if not found:
                raise InputError(
                    "No picture shows one face alone. Come nearer, look at the camera, and be alone in it."
                )
            rows = embeddings(model, found)
        made = Store(_store(wanted), bundle.manifest).add(label, rows, _of_people(wanted), ACCEPT)
        accepted = threshold(made.examples().exemplars, ACCEPT)
        return {"label": label, "pictures": len(made.exemplars), "threshold": round(accepted, 3)}

    def _cutter(self, wanted: ModelSettings) -> AbstractContextManager[Callable[[Image], Image | None]]:
        """What a model with `input = "faces"` is shown: the face, or None where there is not one alone."""
        if wanted.input == "frame":
            return nullcontext(lambda picture: picture)
        return _one_face(self._detector_of(wanted))

    def _detector_of(self, wanted: ModelSettings) -> str:
        """The bundle of the detector before it; the cascade would not have begun without one."""
        before: list[str] = []
        for model in self._settings().chosen():
            if model == wanted:
                break
            if Bundle.open(model.bundle).manifest.task == "faces":
                before.append(model.bundle)
        return before[-1]


@contextmanager
def _one_face(detector: str) -> Iterator[Callable[[Image], Image | None]]:
    """`face_of`, with None for a picture without exactly one face."""
    with face_of(detector) as cut:

        def one_face(picture: Image) -> Image | None:
            try:
                return cut(picture, "")
            except InputError:
                return None

        yield one_face


def _store(wanted: ModelSettings) -> Path:
    assert wanted.enrolled is not None, "others cannot be taught"
    return wanted.enrolled


def _of_people(wanted: ModelSettings) -> bool:
    """Whether what it is taught are people: of faces, and where people are switched on."""
    return wanted.input == "faces" and wanted.people
