"""The study on the disk: a journal of finished trials, and a lock for each one under way.

A trial is in the journal when it has ended, and not before. Until then its process holds a lock that the kernel frees
when the process ends, however it ends: a killed trial is seen to be free at once, and whoever is next runs it anew,
with the same values. So several processes need nothing but the folder, and none waits for a heartbeat to stop.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState, create_trial

from edge.errors import InputError
from edge.files import errors_of
from train.search.space import Space, Values

JOURNAL = "study.journal"
STUDY = "search"
SETTINGS = "settings"
TRIAL = "trial"

Ending = Literal["done", "cut", "failed"]


@dataclass(frozen=True)
class Task:
    """A trial to be run: its name, the values drawn, the epochs of its stage."""

    name: str
    stage: str
    values: Values
    epochs: int


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        name: `coarse-03`; of the recipe's own values `fine-own`. stage: `coarse` or `fine`.
        values: what was drawn, empty for the recipe's own; epochs: it was trained for.
        ending: `done`; `cut`, when its loss was no number or passed three times its start; `failed`, when it could not
            be trained at all, for want of memory for example. why: of the last two, in words.
        validation: what `metric` measured on the images held out, None unless it is done.
        loss: the training's last, which decides between equals. seconds: it took.
        history: metrics of every epoch.
    """

    name: str
    stage: str
    values: Values
    epochs: int
    ending: Ending
    validation: float | None
    loss: float | None
    seconds: float
    metric: str = ""
    why: str = ""
    history: tuple[dict[str, float], ...] = ()

    @property
    def outcome(self) -> str:
        """The measure, or how it ended without one."""
        if self.validation is None:
            return self.ending
        return f"{self.validation:.2f} %" if self.metric == "validation_top1" else f"{self.validation:.4f}"

    @property
    def own(self) -> bool:
        """Whether it has the recipe's own values."""
        return not self.values

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better; for trials that are done."""
        assert self.validation is not None
        assert self.loss is not None
        return self.validation, -self.loss


_STATES = {"done": TrialState.COMPLETE, "cut": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """Trials in `folder`, shared by all processes that open it with the same settings.

    Raises:
        InputError: the folder holds another search, a damaged journal or a foreign one, or cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        with errors_of(folder):
            (folder / "trials").mkdir(parents=True, exist_ok=True)
            with _locked(folder / "trials" / "settings.lock", wait=True):
                with _readable(folder):
                    self._study = _opened(folder / JOURNAL)
                self._agree(json.loads(json.dumps(settings)))
            self.trials()

    def trials(self) -> list[Trial]:
        """All that have ended, in any process, by their order in the search."""
        with _readable(self.folder):
            found = [Trial(**trial.user_attrs[TRIAL]) for trial in self._study.get_trials(deepcopy=False)]
        return sorted(found, key=lambda trial: trial.name)

    def checkpoint(self, name: str) -> Path:
        """Where the trial of that name may leave what a killed one can go on from."""
        return self.folder / "trials" / f"{name}.checkpoint.keras"

    @contextmanager
    def claimed(self, name: str, wait: bool) -> Iterator[bool]:
        """Whether that trial is ours to run, and nobody else's meanwhile: it has not ended, and nobody runs it.

        With `wait`, until the one who runs it has ended, or been killed.
        """
        with _locked(self.folder / "trials" / f"{name}.lock", wait) as ours:
            # Only now: it may have ended just before the lock became free.
            yield ours and not any(trial.name == name for trial in self.trials())

    def record(self, trial: Trial, space: Space) -> None:
        """Write a trial that has ended; it is on the disk when this returns.

        Raises:
            DiskFailed: the disk is full; the trial will be run anew. InputError: the journal cannot be written.
        """
        declared = {} if trial.own else {name: part.declared() for name, part in space.items()}
        ended = create_trial(
            state=_STATES[trial.ending],
            value=trial.validation,
            params=trial.values,
            distributions=declared,
            user_attrs={TRIAL: asdict(trial)},
        )
        with errors_of(self.folder / JOURNAL):
            self._study.add_trial(ended)
        self.checkpoint(trial.name).unlink(missing_ok=True)

    def _agree(self, settings: dict[str, Any]) -> None:
        known = self._study.user_attrs.get(SETTINGS)
        if known is None:
            self._study.set_user_attr(SETTINGS, settings)
            return
        for key, value in settings.items():
            if known.get(key) != value:
                raise InputError(
                    f"{self.folder} holds a search with another {key}: {_difference(known.get(key), value)}. Give the "
                    "same command to go on with it, or another folder with --out for a new one."
                )


def _opened(journal: Path) -> optuna.Study:
    """The study in a journal, or a new one in an empty one; nothing is written to what is not ours."""
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_JournalLock(journal)))
    *lines, torn = journal.read_bytes().split(b"\n")
    # Optuna passes over a last line that it cannot read, until it has written another one behind it.
    for line in lines:
        json.loads(line)["op_code"]
    if not lines and not torn.startswith(_START[: len(torn)]):
        raise ValueError("it is no journal of Optuna's")
    names = optuna.get_all_study_names(storage)
    if not lines:
        return optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")
    if STUDY not in names:
        raise ValueError(f"it holds the study '{names[0]}'" if names else "it holds no study")
    study = optuna.load_study(storage=storage, study_name=STUDY)
    # Between its start and its settings a kill may fall, but no trial.
    if SETTINGS not in study.user_attrs and study.get_trials(deepcopy=False):
        raise ValueError("its study has trials, but no settings")
    return study


_START = b'{"op_code":'


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raises InputError for a journal that is damaged or another program's."""
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:  # Optuna takes its own lines for granted: others may fail in any way.
        raise InputError(
            f"{folder / JOURNAL} is damaged, or no search of Sightline's ({type(error).__name__}: {error}). Move "
            f"{folder} away to search anew there, or choose another folder with --out."
        ) from error


def _difference(before: Any, now: Any) -> str:
    """What was and what is, of two dictionaries their first differing entry alone."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            if before.get(key) != now.get(key):
                return f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
    return f"it was {before!r}, now {now!r}"


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Whether the lock is ours; the kernel frees it when this process ends, also by SIGKILL."""
    with errors_of(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        ours = True
    except BlockingIOError:
        ours = False
    try:
        yield ours
    finally:
        os.close(handle)


class _JournalLock(JournalFileOpenLock):
    """In place of Optuna's, a file that a killed process leaves behind: the others would then wait for 30 s.

    A line that a kill or a power cut broke off is removed, for Optuna would not read beyond it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal, self._path = journal, journal.with_suffix(".lock")
        self._handle = -1

    def acquire(self) -> bool:
        """Wait for the lock, then mend the journal's end."""
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        _without_torn_line(self._journal)
        return True

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._handle)


def _without_torn_line(path: Path) -> None:
    with open(path, "rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return
        stream.seek(size - 1)
        if stream.read(1) != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
