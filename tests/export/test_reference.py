"""What an export compares with: the model itself, and of quantization-aware training what that started from."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import pytest
from keras import layers

from calibration.plan import Plan
from calibration.provenance import Provenance
from calibration.settings import Settings
from edge.bundle import InputSpec
from edge.files import sha256
from export.reference import compared_with
from train.card import Card, QatStart

CARD = Card(name="m", labels=("a", "b"), input=InputSpec(height=4, width=4, resize="crop"))


def _model(bias: float) -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    bias_of = keras.initializers.Constant(bias)
    return keras.Model(pixels, layers.Dense(2, bias_initializer=bias_of)(layers.Flatten()(pixels)))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Card, keras.Model]:
    """A trained model with a card that names the float model in the folder above, which is there."""
    (tmp_path / "out").mkdir()
    _model(7.0).save(tmp_path / "float.keras")
    trained = _model(1.0)
    trained.save(tmp_path / "out" / "m-qat.keras")
    start = QatStart(path="../float.keras", sha256=sha256(tmp_path / "float.keras"))
    return tmp_path / "out" / "m-qat.keras", CARD.model_copy(update={"qat_start": start}), trained


def _bias(model: keras.Model) -> float:
    return float(model.layers[-1].get_weights()[1][0])


def test_a_plain_model_is_compared_with_itself(files: tuple[Path, Card, keras.Model]) -> None:
    path, _, model = files
    found = compared_with(path, model, CARD, None)
    assert found.model is model
    assert found.reference.kind == "itself"
    assert found.reference.sha256 == sha256(path)


def test_a_trained_one_is_compared_with_what_it_started_from(files: tuple[Path, Card, keras.Model]) -> None:
    path, card, model = files
    found = compared_with(path, model, card, None)
    assert _bias(found.model) == 7
    assert found.reference.kind == "origin"
    assert (
        "float.keras, the float model that quantization-aware training started from" in found.reference.words
    )


def test_the_origin_may_lie_beside_the_model(files: tuple[Path, Card, keras.Model], tmp_path: Path) -> None:
    path, card, model = files
    shutil.move(tmp_path / "float.keras", path.parent)
    assert _bias(compared_with(path, model, card, None).model) == 7


def test_a_missing_origin_is_said_and_not_hidden(
    files: tuple[Path, Card, keras.Model], tmp_path: Path
) -> None:
    path, card, model = files
    (tmp_path / "float.keras").unlink()
    found = compared_with(path, model, card, None)
    assert found.model is model
    assert found.reference.kind == "trained"
    assert "../float.keras" in found.reference.words
    assert "is not there" in found.reference.words
    assert "is not seen here" in found.reference.words


def test_another_file_in_its_place_is_no_origin(
    files: tuple[Path, Card, keras.Model], tmp_path: Path
) -> None:
    path, card, model = files
    _model(8.0).save(tmp_path / "float.keras")
    found = compared_with(path, model, card, None)
    assert found.model is model
    assert "another file than the training started from" in found.reference.words


def test_a_plan_tells_of_the_training_where_the_card_is_lost(files: tuple[Path, Card, keras.Model]) -> None:
    path, _, model = files
    made_from = Provenance.model_construct(method="")
    settings = Settings(qat=True)
    plan = Plan.model_construct(settings=settings, ranges={}, kernel_scales={}, provenance=made_from)
    found = compared_with(path, model, CARD, plan)
    assert found.reference.kind == "trained"
    assert "no card that names it" in found.reference.words
