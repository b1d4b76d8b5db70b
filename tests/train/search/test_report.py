"""What a finished search says: verdict, edges, the command to go on with, the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
from matplotlib.figure import Figure

from train.card import DataCard
from train.recipe import Recipe
from train.search.report import report
from train.search.run import Found, Plan, Stage
from train.search.space import Choice, space_of
from train.search.study import Trial

RECIPE = Recipe("digits", "m:f", "digits", epochs=30, weight_decay=0.01, hold_out=1000)
SPACE = space_of(RECIPE, ["momentum", "activation=relu,gelu"])
VALUES = {"learning_rate": 0.03, "weight_decay": 0.01, "momentum": 0.9, "activation": "gelu"}
COMMAND = ["sightline", "train", "digits"], ["--data", "DIR"]


def trial(name: str, validation: float | None, **changes: Any) -> Trial:
    ending: Any = "cut" if validation is None else "done"
    why = "The loss rose to 9." if validation is None else ""
    about = {"why": why, "metric": "validation_top1"}
    return Trial(name, name.partition("-")[0], VALUES | changes, 3, ending, validation, 1.0, 2.0, **about)


def said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *trials: Trial,
    own: float = 90.0,
    held_out: Any = 1000,
) -> str:
    """What the report of these trials and of the recipe's own values prints."""
    recipes = replace(trial("fine-own", own), values={}, metric=trials[-1].metric)
    found = Found(Plan(RECIPE, SPACE, Stage(2, 1), Stage(2, 3), 0), (*trials, recipes), SPACE)
    data = DataCard(source="digits/train", n=9000, sha256="0" * 64)
    objective: Any = SimpleNamespace(recipe=RECIPE, held_out=held_out, about=SimpleNamespace(data=data))
    report(found, tmp_path, objective, COMMAND)
    return capsys.readouterr().out


def test_the_best_is_told_with_its_interval_and_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(
        tmp_path, capsys, trial("coarse-000", 80.0), trial("coarse-001", None), trial("fine-000", 95.0)
    )
    assert "Best: fine-000, 95.00 % of 1,000 training images held out, 95 % interval 93.47 to 96.19." in text
    assert "The recipe's own values, trained for as many epochs: 90.00 %.\n" in text
    assert "1 of 5 trials were cut, for their loss diverged. coarse-001: The loss rose to 9." in text
    assert "At an edge" not in text
    line = (
        "sightline train digits learning_rate=0.03 weight_decay=0.01 momentum=0.9 activation=gelu --data DIR"
    )
    assert f"Train it with: {line}\n" in text
    content = json.loads((tmp_path / "search.json").read_text())
    assert (content["command"], content["best"]) == (line, "fine-000")
    assert [row.split()[0] for row in text.splitlines() if row.startswith(("  fine", "  coarse"))] == [
        "fine-000",
        "fine-own",
        "coarse-000",
    ]
    # Four panels in two rows.
    picture = cv2.imread(str(tmp_path / "search.png"))
    assert picture.shape[1] > picture.shape[0] > 600


def test_too_few_images_to_tell_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(tmp_path, capsys, trial("coarse-000", 80.0), trial("fine-000", 91.0))
    assert "90.00 %. So few images do not tell the two apart for certain." in text


def test_an_edge_is_told_with_the_range_to_search_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = trial("fine-000", 95.0, learning_rate=0.95, momentum=0.51)
    text = said(tmp_path, capsys, trial("coarse-000", 80.0), best)
    assert (
        "At an edge: learning_rate = 0.95 lies at the upper end of 0.0001..1: a better one may lie beyond."
        in text
    )
    assert "At an edge: momentum = 0.51 lies at the lower end of 0.5..0.99" in text


def test_the_recipes_own_values_may_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(tmp_path, capsys, trial("coarse-000", 80.0), trial("fine-000", 89.0, learning_rate=1.0))
    assert "These are the recipe's own values: nothing that was drawn does better." in text
    assert "Train it with: sightline train digits --data DIR\n" in text
    assert "At an edge" not in text


def test_a_detectors_measure_has_no_interval_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = replace(trial("fine-000", 0.905), metric="validation_ap50")
    text = said(tmp_path, capsys, trial("coarse-000", 0.8), best, own=0.85, held_out=None)
    assert "Best: fine-000, 0.9050 of the val split; the recipe's own values: 0.8500." in text


def test_no_figure_is_cut_where_many_fields_are_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {
        "dropout": 0.25,
        "label_smoothing": 0.125,
        "warmup_epochs": 1.5,
        "norm_bias_rate": 64.0,
        "patch": 0.375,
    }
    for name in more:
        monkeypatch.setitem(SPACE, name, space_of(RECIPE, [name])[name])
    text = said(tmp_path, capsys, trial("coarse-000", 80.0, **more), trial("fine-000", 95.0, **more))
    row = next(line for line in text.splitlines() if line.startswith("  fine-000"))
    assert (
        " ".join(row.split()) == "fine-000 * 3 95.00 % 1.000 0.03 0.01 0.9 gelu 0.25 0.125 1.5 64 0.375 2.0"
    )


def test_the_picture_ends_at_100_per_cent_and_its_words_do_not_run_into_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    monkeypatch.setitem(SPACE, "batch_size", space_of(RECIPE, ["batch_size"])["batch_size"])
    monkeypatch.setitem(SPACE, "model", Choice(tuple(f"m:{name}_of_some_length" for name in "abc")))
    chosen = {"batch_size": 64, "model": "m:a_of_some_length"}
    said(tmp_path, capsys, trial("coarse-000", 99.0, **chosen), trial("fine-000", 100.0, **chosen))
    (figure,) = drawn
    assert figure.axes[0].get_ylim()[1] == 100
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == [
        "where fine was drawn",
        "coarse, 1 epoch",
    ]
    for axes in figure.axes:
        boxes = [
            label.get_window_extent() for label in axes.get_xticklabels(which="both") if label.get_text()
        ]
        upright = [box for box in boxes if box.height < 40]
        assert not any(
            one.overlaps(other) for one, other in pairwise(sorted(upright, key=lambda box: box.x0))
        )


def test_brackets_in_users_texts_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPACE, "activation", Choice(("relu", "gelu", "own[/x]")))
    folder = tmp_path / "o [b] [/b]"
    folder.mkdir(parents=True)
    failed = replace(trial("coarse-001", None), ending="failed", why="No file a[/b] [red] :cat:.")
    best = trial("fine-000", 95.0, activation="own[/x]")
    text = said(folder, capsys, trial("coarse-000", 80.0), failed, best)
    assert "coarse-001: No file a[/b] [red] :cat:." in text
    assert any(row.startswith("  fine-000 *") and "own[/x]" in row for row in text.splitlines())
    assert "'activation=own[/x]' --data DIR" in text
    assert f"{folder}/search.png are written." in text
