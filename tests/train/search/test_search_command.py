"""`sightline search` from the outside: real trainings, files, messages."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.errors import MissingPackageError
from train.recipe import changed, load_recipe
from train.search.cluster import on_ray

START = "import sightline; sightline.main()"
STAGES = ("--coarse", "5x1", "--fine", "3x2")
SPREAD = ("--space", "learning_rate=1e-4..1e5", "--space", "momentum")


def without_times(folder: Path) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads((folder / "search.json").read_text())["trials"]
    return [trial | {"seconds": 0} for trial in trials]


def test_a_search_from_the_first_trial_to_the_command_that_trains_the_best(
    tiny: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    ended = command("search", tiny, "jpeg=0.1", *SPREAD, *STAGES, "--out", tmp_path / "a")
    assert ended.code == 0, ended.err
    content = json.loads((tmp_path / "a" / "search.json").read_text())
    trials = {trial["name"]: trial for trial in content["trials"]}
    assert [*trials] == [
        *(f"coarse-{n:03}" for n in range(5)),
        *(f"fine-{n:03}" for n in range(3)),
        "fine-own",
    ]

    # The loss of those is three times its start and more; nothing else is cut.
    endings = {name: trial["ending"] for name, trial in trials.items()}
    assert {"cut", "done"} == set(endings.values())
    for trial in trials.values():
        assert (trial["ending"] == "cut") == ("diverged" in trial["why"]) == (trial["validation"] is None)
    cut = Counter(endings.values())["cut"]
    assert f"{cut} of 9 trials were cut, for their loss diverged" in ended.out

    # Held out of the training split; the test split has 360 images.
    assert (content["held_out"], content["data"]["source"], content["data"]["n"]) == (
        300,
        "digits/train without 300",
        1137,
    )
    assert (content["seed"], content["stages"]) == (0, {"coarse": "5x1", "fine": "3x2"})
    assert content["optuna"]
    assert content["machine"]["packages"]["keras"]

    best = trials[content["best"]]
    fine = [trial for trial in trials.values() if trial["stage"] == "fine" and trial["ending"] == "done"]
    assert best["validation"] == max(trial["validation"] for trial in fine)
    assert f"Best: {best['name']}, {best['validation']:.2f} % of 300 training images held out" in ended.out
    line = shlex.split(content["command"])
    assert line[:4] == ["sightline", "train", str(tiny), "jpeg=0.1"]
    trained = changed(load_recipe(str(tiny)), tuple(line[3:])).as_dict()
    assert {name: trained[name] for name in best["values"]} == best["values"]
    assert trained["epochs"] == 4

    picture = cv2.imread(str(tmp_path / "a" / "search.png"))
    assert picture.shape[1] > picture.shape[0] > 300
    assert not list((tmp_path / "a" / "trials").glob("*.keras"))

    # Again: nothing is left to do. Elsewhere: the same values, and the same results.
    again = command("search", tiny, "jpeg=0.1", *SPREAD, *STAGES, "--out", tmp_path / "a")
    assert "9 of 9 trials are done; going on." in again.err
    assert not re.search("coarse-00", again.err)
    assert json.loads((tmp_path / "a" / "search.json").read_text()) == content
    command("search", tiny, "jpeg=0.1", *SPREAD, *STAGES, "--out", tmp_path / "b")
    assert without_times(tmp_path / "b") == without_times(tmp_path / "a")


def test_the_best_at_an_edge_is_told(tiny: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    wanted = ("--space", "learning_rate=1e-9..2e-9", "--space", "dropout=0..0.01", "weight_decay=0")
    ended = command("search", tiny, *wanted, "--coarse", "1x1", "--fine", "1x1", "--out", tmp_path / "a")
    assert ended.code == 0, ended.err
    # The recipe's own rate beats those, and has no edge; what was drawn is told to be no better.
    assert "These are the recipe's own values: nothing that was drawn does better." in ended.out
    assert "At an edge" not in ended.out


def test_brackets_in_a_trials_values_and_in_the_notes_are_no_styles(
    tiny: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = property(lambda self: replace(self.lesson.about, notes=("left out [/a] [red].png",)))
    monkeypatch.setattr("train.search.objective.Objective.about", about)
    wanted = ("--space", "model=search_network:tiny,search_network:none[/b]", "--coarse", "4x1")
    ended = command("search", tiny, *wanted, "--fine", "1x1", "--out", tmp_path / "a [/c]")
    assert ended.code == 0, ended.err
    assert "digits/train without 300: left out [/a] [red].png" in ended.err
    assert re.search(r"/6  coarse-00\d  failed  .*model=search_network:none\[/b\]", ended.err)
    assert "could not be trained. coarse-00" in ended.out
    assert f"{tmp_path}/a [/c]/search.json and" in ended.out


def test_a_search_that_diverges_throughout_is_no_traceback(
    tiny: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    ended = command(
        "search", tiny, "--space", "learning_rate=1e6..1e7", "--coarse", "2x1", "--out", tmp_path / "a"
    )
    assert ended.code == 1
    assert "None of the 2 coarse trials came through. The first: The loss " in ended.err
    assert "sightline sanity" in ended.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--coarse", "5"], "--coarse 5: expected TRIALSxEPOCHS, such as 24x1."),
        (["--fine", "0x3"], "--fine 0x3: expected TRIALSxEPOCHS, such as 8x1."),
        (["--space", "learning=0..1"], "Did you mean learning_rate?"),
        (["hold_out=1437"], "hold_out=1437 leaves nothing of 1437 images"),
        (["data=cifar10"], "needs --data DIR"),
        (["--data", "nowhere"], "No data folder nowhere"),
    ],
)
def test_wrong_calls(
    args: list[str], message: str, tiny: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    ended = command("search", tiny, *args, "--out", tmp_path / "a")
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "a").exists()


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install '\.\[ray\]'"):
        on_ray("local", load_recipe("lenet_digits"), "digits", None, "")


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        line = [str(arg) for arg in args]
        processes.append(subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], text: str) -> None:
    """Reads what a process says on stderr as far as that."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"ended without {text!r}")


@pytest.mark.slow
def test_lenet_killed_shared_and_finished(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]], command: Callable[..., Any]
) -> None:
    search = ["search", "lenet_digits", "--coarse", "6x2", "--fine", "3x3", "--out"]
    killed = started(sys.executable, "-c", START, *search, tmp_path / "a")
    until(killed, "coarse-001")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    pair = [started(sys.executable, "-c", START, *search, tmp_path / "a") for _ in range(2)]
    outputs = [process.communicate(timeout=280) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    said = Counter(re.findall(r"^\d+/10  (\S+)", "\n".join(err for _, err in outputs), re.M))
    assert set(said.values()) == {1}
    content = json.loads((tmp_path / "a" / "search.json").read_text())
    assert said.keys() | {"coarse-000", "coarse-001"} == {trial["name"] for trial in content["trials"]}
    assert len(content["trials"]) == 10
    assert command(*search, tmp_path / "b").code == 0
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_finds_the_same(
    tiny: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]], command: Callable[..., Any]
) -> None:
    ray = pytest.importorskip("ray")
    address = "127.0.0.1:6399"
    # Its sockets' paths may have 107 bytes, which pytest's folders would use up.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    cluster = started(
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2", "--port=6399",
        "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", "--temp-dir", folder,
    )  # fmt: skip
    try:
        assert cluster.stdout is not None
        assert any("Ray runtime started" in line for line in cluster.stdout)
        wanted = ("search", tiny, *SPREAD, *STAGES, "--out")
        ended = command(*wanted, tmp_path / "ray", "--ray", address)
        assert ended.code == 0, ended.err
    finally:
        ray.shutdown()
        cluster.terminate()
        cluster.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
    assert command(*wanted, tmp_path / "here").code == 0
    here, there = without_times(tmp_path / "here"), without_times(tmp_path / "ray")
    assert [trial["values"] for trial in here] == [trial["values"] for trial in there]
    assert [trial["ending"] for trial in here] == [trial["ending"] for trial in there]
    for ours, theirs in zip(here, there, strict=True):
        assert ours["validation"] == pytest.approx(theirs["validation"], abs=1)
