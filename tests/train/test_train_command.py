"""`sightline train` from the outside: files, interruptions, messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edge.files import alone_with, sha256
from train.card import read_card, weights_sha256
from train.data import load
from train.watch import Watch
from train.weights import load_keras

START = "import sightline; sightline.main()"
SHORT = ("lenet_digits", "epochs=3")


def test_lenet_digits_reaches_its_accuracy(tmp_path: Path, command: Callable[..., Any]) -> None:
    ended = command("train", "lenet_digits", "--out", tmp_path)
    assert ended.code == 0
    path = tmp_path / "lenet-digits.keras"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "lenet-digits.card.json", path]
    card = read_card(path)
    assert card.metrics["test_top1"] >= 98
    assert f"{card.metrics['test_top1']:.2f} % of 360 images" in ended.out
    # Not on a terminal: one line an epoch, nothing else.
    assert re.findall(r"^epoch (\d+)/30  loss \d", ended.err, re.M) == [str(i) for i in range(1, 31)]
    assert ended.err.count("\n") == 30

    test = load("digits", "test")
    logits = keras.ops.convert_to_numpy(load_keras(path)((test.images.astype(np.float32) - 128) / 128))
    top1 = 100 * (logits.argmax(axis=1) == test.labels).mean()
    assert card.metrics["test_top1"] == pytest.approx(top1, abs=1e-3)


def test_the_card_tells_what_how_and_where(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert command("train", "lenet_digits", "epochs=1", "seed=7", "hold_out=100", "--out", tmp_path).code == 0
    path = tmp_path / "lenet-digits.keras"
    card = read_card(path)
    assert card.command == "sightline train lenet_digits epochs=1 seed=7 hold_out=100"
    assert card.recipe is not None
    assert (card.recipe["epochs"], card.recipe["seed"], card.seed) == (1, 7, 7)
    assert (card.parameters, card.macs, card.labels) == (62_006, 651_720, tuple("0123456789"))
    assert card.data is not None
    assert (card.data.source, card.data.n) == ("digits/train without 100", 1337)
    assert {"test_top1", "test_n", "validation_top1", "train_loss"} <= card.metrics.keys()
    assert card.machine is not None
    assert card.machine.packages["keras"] == keras.version()
    assert card.machine.cpu
    assert card.model_sha256 == sha256(path)
    assert card.weights_sha256 == weights_sha256(load_keras(path))


@pytest.mark.parametrize("smoothing", ["0.2", "0"])
def test_a_teacher_that_learnt_smoothed_labels_is_told(
    smoothing: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    short = ("train", "lenet_digits", "epochs=1", "--out", tmp_path)
    assert command(*short, "name=teacher", f"label_smoothing={smoothing}").code == 0
    ended = command(*short, f"teacher={tmp_path / 'teacher.keras'}")
    assert ended.code == 0
    assert ("learnt with label_smoothing=0.2" in " ".join(ended.err.split())) is (smoothing == "0.2")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `sightline train` in a process of its own and waits until it has begun with an epoch."""
    processes: list[subprocess.Popen[str]] = []

    def start(*args: object, until: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", START, "train", *map(str, args), "--out", str(tmp_path)]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stderr is not None
        seen = ""
        while until not in seen:
            seen = process.stderr.readline()
            assert seen, "the training ended by itself"
            assert seen.startswith("epoch ")  # TensorFlow's start-up notes are not the user's business.
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started("lenet_digits", "epochs=1000", until="epoch 1/")
    time.sleep(0.1)  # Into the second epoch, which takes at least 0.2 s.
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    *_, message = err.splitlines()
    assert message == "Stopped; no model was written (no checkpoint yet)."
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_a_second_training_of_the_same_model_is_refused(tmp_path: Path, command: Callable[..., Any]) -> None:
    with alone_with(tmp_path / "lenet-digits.keras"):
        ended = command("train", *SHORT, "--out", tmp_path)
    assert ended.code == 2
    assert f"{tmp_path / 'lenet-digits.keras'} is in use by another Sightline" in ended.err


def test_ctrl_c_leaves_the_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(Watch, "epoch_done", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    ended = command("train", *SHORT, "--checkpoint-every", 0, "--out", tmp_path)
    signal.signal(signal.SIGINT, before)
    assert ended.code == 2
    assert ended.err.strip() == "Stopped; no model was written (add --resume to go on from its checkpoint)."
    assert [path.name for path in tmp_path.iterdir()] == ["lenet-digits.checkpoint.keras"]


def test_a_checkpoint_is_not_overwritten_by_a_training_that_begins_anew(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    checkpoint = tmp_path / "lenet-digits.checkpoint.keras"
    checkpoint.write_text("of hours")
    ended = command("train", *SHORT, "--out", tmp_path)
    assert ended.code == 2
    assert "Go on with --resume; to begin anew, remove it" in ended.err
    assert checkpoint.read_text() == "of hours"


def test_ctrl_c_loses_nothing_once_there_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    steps: list[int] = []

    def step_done(watch: Watch, step: int, metrics: Any) -> None:
        steps.append(step)
        if step == 5:
            monkeypatch.setattr("train.fit._Run.save_when_due", lambda run: None)
        if step == 9:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Watch, "step_done", step_done)
    assert command("train", *SHORT, "--checkpoint-every", 0, "--out", tmp_path).code == 2
    monkeypatch.undo()
    monkeypatch.setattr(Watch, "step_done", step_done)
    steps.clear()
    assert command("train", *SHORT, "--resume", "--out", tmp_path).code == 0
    assert steps[0] == 10


def test_a_killed_training_resumes_to_the_same_weights(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]], command: Callable[..., Any]
) -> None:
    process = started(*SHORT, "--checkpoint-every", 0, until="epoch 2/")
    process.kill()
    process.wait()
    resumed = command("train", *SHORT, "--resume", "--out", tmp_path)
    assert resumed.code == 0
    assert "epoch 1/3" not in resumed.err
    assert re.search(r"^epoch 3/3  .*  accuracy \d+\.\d %", resumed.err, re.M)
    assert not (tmp_path / "lenet-digits.checkpoint.keras").exists()
    assert command("train", *SHORT, "--out", tmp_path / "unbroken").code == 0
    cards = [read_card(folder / "lenet-digits.keras") for folder in (tmp_path, tmp_path / "unbroken")]
    assert cards[0].weights_sha256 == cards[1].weights_sha256
    assert cards[0].metrics == cards[1].metrics


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("no_such_recipe",), 2, "No recipe 'no_such_recipe'"),
        (("lenet_digits", "epochs=none"), 2, "epochs takes a whole number, got 'none'"),
        (("lenet_digits", "speed=3"), 2, "'speed=3' is not KEY=VALUE"),
        (("lenet_digits", "--resume"), 2, "Nothing to resume"),
        (("convnetjs_cifar10",), 2, "needs --data DIR"),
        (("lenet_digits", "data=folder"), 2, "a folder of class folders"),
        (("lenet_digits", "model=none:at_all"), 2, "cannot be imported"),
        (("lenet_digits", "height=4"), 2, "cannot be built for pictures of 4x32"),
        (("lenet_digits", "learning_rate=1e30"), 1, "diverged"),
        (("lenet_digits", "--checkpoint-every", "-1"), 2, "checkpoint-every"),
        ((), 2, "RECIPE"),
    ],
)
def test_a_wrong_call_ends_in_one_message(
    args: tuple[str, ...], code: int, words: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    ended = command("train", *args, "--out", tmp_path)
    assert ended.code == code
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_before_training(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = command("train", "lenet_digits", "--out", tmp_path / "file" / "below")
    assert ended.code == 2
    assert "Cannot write to the folder" in ended.err
    assert "epoch" not in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_before_training(tmp_path: Path, command: Callable[..., Any]) -> None:
    tmp_path.chmod(0o555)
    ended = command("train", "lenet_digits", "--out", tmp_path)
    assert ended.code == 2
    assert "Permission denied" in ended.err


def test_without_keras_the_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['keras'] = None\n"
        f"sys.argv = ['sightline', 'train', 'lenet_digits', '--out', {str(tmp_path)!r}]\n"
        "import sightline; sightline.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr
