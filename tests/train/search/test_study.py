"""A study that several processes share, and what a kill leaves of it. The training itself is stood in for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
import pytest

from edge.errors import CheckFailed, DiskFailed, InputError
from train.recipe import Recipe
from train.search.run import OWN, Plan, Stage, one_by_one, search
from train.search.space import Range
from train.search.study import JOURNAL, Study, Task, Trial

FileSizeLimit = Callable[[int], AbstractContextManager[None]]

RECIPE = Recipe("x", "m:f", "digits", epochs=10)
SPACE = {"learning_rate": Range(1e-4, 1.0, "log"), "dropout": Range(0.0, 0.7)}
PLAN = Plan(RECIPE, SPACE, Stage(12, 2), Stage(4, 5), seed=0)
NAMES = [*(f"coarse-{n:03}" for n in range(12)), *(f"fine-{n:03}" for n in range(4)), OWN]

WORKER = f"""
import sys, time
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_study import PLAN, opened, trial_of
from train.search.run import one_by_one, search

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def objective(task, checkpoint):
    with open(folder / "runs", "a") as runs:
        runs.write(task.name + chr(10))
    print(task.name, flush=True)
    time.sleep(seconds)
    return trial_of(task)

search(PLAN, opened(folder), one_by_one(objective), lambda trial: None)
"""


def opened(folder: Path, **changes: Any) -> Study:
    return Study(folder, PLAN.settings("0" * 64) | changes)


def trial_of(task: Task) -> Trial:
    """The best learning rate is 0.1; above 0.5 it diverges."""
    rate = float(task.values.get("learning_rate", 0.02))
    if rate > 0.5:
        return Trial(
            task.name, task.stage, task.values, task.epochs, "cut", None, None, 0.0, why="it diverged"
        )
    value = 90 - abs(SPACE["learning_rate"].axis(rate) + 1)
    return Trial(task.name, task.stage, task.values, task.epochs, "done", value, 1.0, 0.0)


def found(folder: Path, told: list[Trial]) -> Any:
    return search(PLAN, opened(folder), one_by_one(lambda task, _: trial_of(task)), told.append)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Starts a process that works on the study in `tmp_path`, each trial as long as told."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", WORKER, str(tmp_path), str(seconds)]
        started.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_search_runs_every_trial_once_and_then_none(tmp_path: Path) -> None:
    told: list[Trial] = []
    first = found(tmp_path, told)
    assert [trial.name for trial in told] == [*NAMES[:12], OWN, *NAMES[12:16]]
    assert [trial.name for trial in first.trials] == NAMES
    told.clear()
    assert found(tmp_path, told) == first
    assert told == []


def test_the_fine_stage_is_drawn_around_the_best(tmp_path: Path) -> None:
    result = found(tmp_path, [])
    rates = {
        name: [t.values["learning_rate"] for t in result.trials if t.stage == name and not t.own]
        for name in ("coarse", "fine")
    }
    assert 3 * min(rates["coarse"]) < min(rates["fine"])
    assert all(trial.epochs == (2 if trial.stage == "coarse" else 5) for trial in result.trials)
    assert result.best.stage == "fine"
    assert result.own is not None
    assert result.best.validation > result.own.validation
    assert {trial.ending for trial in result.trials} == {"done", "cut"}


def test_optunas_own_tools_read_the_study(tmp_path: Path) -> None:
    found(tmp_path, [])
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    states = Counter(trial.state.name for trial in study.trials)
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert sum(states.values()) == len(PLAN) == 17
    assert study.best_trial.user_attrs["trial"]["validation"] == study.best_value
    assert set(study.best_trial.params) == {"learning_rate", "dropout"}


def test_a_killed_process_lets_its_trial_go_at_once_and_loses_no_other(
    tmp_path: Path, worker: Callable[[float], subprocess.Popen[str]]
) -> None:
    killed = worker(0.2)
    assert killed.stdout is not None
    names = [killed.stdout.readline().strip() for _ in range(3)]
    assert names == NAMES[:3]
    study = opened(tmp_path)
    with study.claimed(names[2], wait=False) as ours:
        assert not ours
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = [trial.name for trial in study.trials()]
    assert before == names[:2]
    told: list[Trial] = []
    result = found(tmp_path, told)
    assert [trial.name for trial in told[:2]] == NAMES[2:4]
    assert [trial.name for trial in result.trials] == NAMES
    assert result.trials == found(tmp_path / "unbroken", []).trials


def test_processes_share_a_study_and_one_takes_over_what_another_was_killed_at(
    tmp_path: Path, worker: Callable[[float], subprocess.Popen[str]]
) -> None:
    slow = worker(600)
    assert slow.stdout is not None
    assert slow.stdout.readline().strip() == "coarse-000"
    workers = [worker(0.01), worker(0.01)]
    # Until nothing is left of the coarse stage but what the slow one holds.
    while not set(NAMES[:12]) <= set((tmp_path / "runs").read_text().split()):
        time.sleep(0.02)
    slow.kill()
    assert [process.wait(200) for process in workers] == [0, 0]
    runs = Counter((tmp_path / "runs").read_text().split())
    assert runs == Counter([*NAMES, "coarse-000"])
    assert opened(tmp_path).trials() == list(found(tmp_path / "alone", []).trials)


def test_a_line_that_was_broken_off_costs_its_own_trial_alone(tmp_path: Path) -> None:
    whole = found(tmp_path, [])
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-100])
    told: list[Trial] = []
    assert found(tmp_path, told).trials == whole.trials
    assert [trial.name for trial in told] == [NAMES[15]]


def damaged(content: bytes, how: str) -> bytes:
    lines = content.splitlines(keepends=True)
    return {
        "middle": b"".join([*lines[:4], b"garbage\n", *lines[4:]]),
        "last line": content + b"garbage\n",
        "half a line": b"".join([*lines[:5], lines[5][:50] + b"\n", *lines[6:]]),
        "binary": bytes(range(256)) * 2,
        "a list": b"[]\n",
        "a dictionary": b"{}\n",
        "another file": b'{"name": 1}',
        "first line lost": b"".join(lines[1:]),
        "another version's trial": content.replace(b'"ending"', b'"end"'),
        "a trial of no search's": content.replace(b'"trial":{', b'"other":{'),
        "no settings": b"".join([lines[0], *lines[2:]]),
    }[how]


@pytest.mark.parametrize("how", [
    "middle", "last line", "half a line", "binary", "a list", "a dictionary", "another file", "first line lost",
    "another version's trial", "a trial of no search's", "no settings",
])  # fmt: skip
def test_a_damaged_journal_is_told_and_left_as_it_is(how: str, tmp_path: Path) -> None:
    found(tmp_path, [])
    journal = tmp_path / JOURNAL
    content = damaged(journal.read_bytes(), how)
    journal.write_bytes(content)
    with pytest.raises(InputError, match=r"study\.journal is damaged, or no search of .*with --out\."):
        opened(tmp_path)
    assert journal.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "direction"), [("mine", "maximize"), ("search", "maximize"), ("search", "minimize")]
)
def test_a_study_of_another_program_is_left_as_it_is(name: str, direction: str, tmp_path: Path) -> None:
    journal = tmp_path / JOURNAL
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    content = journal.read_bytes()
    with pytest.raises(InputError, match=r"no search of Sightline's"):
        opened(tmp_path)
    assert journal.read_bytes() == content


@pytest.mark.parametrize("left", [0, 5, 30, -1, None])
def test_a_search_killed_before_its_settings_were_written_begins_anew(
    left: int | None, tmp_path: Path
) -> None:
    opened(tmp_path)
    journal = tmp_path / JOURNAL
    first = journal.read_bytes().splitlines(keepends=True)[0]
    journal.write_bytes(first[:left])
    opened(tmp_path)
    with pytest.raises(InputError, match="another seed"):
        opened(tmp_path, seed={"seed": 1})


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(InputError, match=r"another space: dropout was '0\.\.0\.7', now '0\.\.0\.5'"):
        opened(tmp_path, space={"learning_rate": "0.0001..1", "dropout": "0..0.5"})
    with pytest.raises(InputError, match="another seed: seed was 0, now 1"):
        opened(tmp_path, seed={"seed": 1})
    opened(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="or choose another place"):
        opened(tmp_path / "file")


def test_a_full_disk_is_told_and_costs_the_trial_that_ended_on_it_alone(
    tmp_path: Path, files_of_at_most: FileSizeLimit
) -> None:
    told: list[Trial] = []
    study = opened(tmp_path)
    with (
        files_of_at_most((tmp_path / JOURNAL).stat().st_size + 2000),
        pytest.raises(DiskFailed, match=r"study\.journal cannot be written: .* Free some space"),
    ):
        search(PLAN, study, one_by_one(lambda task, _: trial_of(task)), told.append)
    assert 0 < len(told) < 12
    found(tmp_path, told)
    assert Counter(trial.name for trial in told) == dict.fromkeys(NAMES, 1)


def test_a_stage_of_which_nothing_came_through_ends_the_search(tmp_path: Path) -> None:
    def cut(task: Task, _: Path) -> Trial:
        return Trial(
            task.name, task.stage, task.values, task.epochs, "cut", None, None, 0.0, why="The loss rose."
        )

    with pytest.raises(
        CheckFailed, match=r"None of the 12 coarse trials came through\. The first: The loss rose\."
    ):
        search(PLAN, opened(tmp_path), one_by_one(cut), lambda trial: None)


def test_equals_are_told_apart_by_their_loss() -> None:
    low, high = (Trial("x", "fine", {}, 1, "done", 90.0, loss, 0.0) for loss in (0.1, 0.2))
    assert max(high, low, key=lambda trial: trial.rank) == low
    assert json.dumps(low.rank) == "[90.0, -0.1]"
