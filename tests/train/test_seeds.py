"""Several seeds of one recipe: what the card of the first keeps, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import InputSpec
from train.card import Card, DataCard, read_card, write_card

Command = Callable[..., Any]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(name: str, seed: int | None, top1: float | None, digest: str = "0", **recipe: Any) -> Path:
        path = tmp_path / f"{name}.keras"
        path.write_bytes(b"weights")
        card = Card(
            name="net",
            labels=("cat", "dog"),
            input=InputSpec(height=8, width=8, resize="crop"),
            recipe={"name": name, "epochs": 3, "seed": seed, **recipe},
            seed=seed,
            data=DataCard(source="made", n=2, sha256=digest * 64),
            metrics={} if top1 is None else {"test_top1": top1},
        )
        write_card(card, path)
        return path

    return made


def test_the_card_of_the_first_keeps_all_runs(command: Command, make: Make) -> None:
    paths = make("a", 2, 91.0), make("b", 0, 94.0), make("c", 1, 92.5)
    ended = command("seeds", *paths)
    assert ended.code == 0, ended.err
    assert "test top-1, %: mean 92.5, standard deviation 1.5, 91 to 94; 3 seeds" in ended.out
    card = read_card(paths[0])
    assert [(run.seed, run.value) for run in card.seeds] == [(0, 94.0), (1, 92.5), (2, 91.0)]
    assert card.metrics == {"test_top1": 91.0}
    assert read_card(paths[1]).seeds == ()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 1, "top1": 92.0, "epochs": 4}, "epochs differ"),
        ({"seed": 1, "top1": 92.0, "digest": "1"}, "data differ"),
        ({"seed": 0, "top1": 92.0}, "The same seed twice: 0, 0"),
        ({"seed": 1, "top1": None}, "no test figure"),
        ({"seed": None, "top1": 92.0}, "no seed"),
    ],
)
def test_what_is_no_second_seed_is_refused(
    other: dict[str, Any], words: str, command: Command, make: Make
) -> None:
    first = make("a", 0, 91.0)
    ended = command("seeds", first, make("b", **other))
    assert ended.code == 2
    assert words in ended.err
    assert read_card(first).seeds == ()


def test_one_model_has_no_spread(command: Command, make: Make) -> None:
    ended = command("seeds", make("a", 0, 91.0))
    assert ended.code == 2
    assert "at least two seeds" in ended.err
