"""The model card beside a `.keras` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import InputSpec
from edge.errors import InputError
from edge.files import sha256
from train.card import Card, card_path, read_card, write_card

SMALLEST: dict[str, Any] = {
    "name": "net",
    "labels": ["cat", "dog"],
    "input": {"height": 8, "width": 6, "resize": "stretch"},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.v2.keras"
    path.write_bytes(b"weights")
    return path


def test_a_card_comes_back_as_it_was_written(model: Path) -> None:
    card = Card(
        name="net",
        labels=("cat", "dog"),
        input=InputSpec(height=8, width=6, resize="crop"),
        metrics={"test_top1": 12.5},
        model_sha256=sha256(model),
    )
    write_card(card, model)
    assert card_path(model).name == "net.v2.card.json"
    assert read_card(model) == card


def test_name_labels_and_input_are_enough(model: Path) -> None:
    card_path(model).write_text(json.dumps(SMALLEST))
    card = read_card(model)
    assert (card.labels, card.input.width, card.recipe) == (("cat", "dog"), 6, None)


def test_a_missing_card_is_told_with_the_way_out(model: Path) -> None:
    with pytest.raises(
        InputError, match=r"net\.v2\.card\.json.*write it by hand, with name, labels and input"
    ):
        read_card(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "labels"),
        ({"labels": ["one"]}, "labels"),
        ({"input": {"height": 0, "width": 6, "resize": "crop"}}, "input.height"),
        ({"input": {"height": 8, "width": 6, "resize": "zoom"}}, "input.resize"),
        ({"lables": []}, "lables"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
    ],
)
def test_a_broken_field_is_named(model: Path, change: dict[str, Any], words: str) -> None:
    card_path(model).write_text(json.dumps(SMALLEST | change))
    with pytest.raises(InputError, match=words):
        read_card(model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_what_is_no_card_is_refused(model: Path, content: bytes) -> None:
    card_path(model).write_bytes(content)
    with pytest.raises(InputError, match="is not a model card"):
        read_card(model)


def test_a_card_of_another_file_is_refused(model: Path) -> None:
    card_path(model).write_text(json.dumps(SMALLEST | {"model_sha256": sha256(model)}))
    read_card(model)
    model.write_bytes(b"other weights")
    with pytest.raises(InputError, match="another file"):
        read_card(model)
