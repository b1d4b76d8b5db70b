"""Recipes, and KEY=VALUE on the command line."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.architecture import architecture
from train.choices import ACTIVATIONS, INITIALISERS, OPTIMISERS, PREPROCESSES, SCHEDULES
from train.recipe import RECIPES_FOLDER, Recipe, changed, load_recipe

BASE = Recipe(name="base", model="m:f", data="digits", epochs=1)

VALID: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.integers(1, 10**6),
    "shift_px": st.integers(0, 100),
    "seed": st.integers(0, 2**32 - 1),
    "learning_rate": st.floats(1e-9, 1e9),
    "momentum": st.floats(0, 0.999),
    "weight_decay": st.floats(0, 10) | st.integers(0, 3),
    "flip": st.booleans(),
    "nesterov": st.booleans(),
    "dropout": st.floats(0, 0.999),
    "activation": st.sampled_from(["own", *ACTIVATIONS]),
    "initialiser": st.sampled_from(["own", *INITIALISERS]),
    "preprocess": st.sampled_from(PREPROCESSES),
    "optimiser": st.sampled_from(OPTIMISERS),
    "schedule": st.sampled_from(SCHEDULES),
    "resize": st.sampled_from(["crop", "stretch", "letterbox"]),
    "name": st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True),
}


@given(st.fixed_dictionaries({}, optional=VALID))
def test_each_value_arrives_in_its_field(values: dict[str, Any]) -> None:
    recipe = changed(BASE, tuple(f"{key}={value}" for key, value in values.items()))
    assert {key: getattr(recipe, key) for key in values} == values
    assert type(recipe.weight_decay) is float
    untouched = BASE.as_dict().keys() - values.keys()
    assert all(getattr(recipe, key) == getattr(BASE, key) for key in untouched)


@given(st.sampled_from(sorted(BASE.as_dict())), st.text(max_size=12))
def test_any_text_is_taken_or_refused_in_words(key: str, text: str) -> None:
    try:
        recipe = changed(BASE, (f"{key}={text}",))
    except InputError:
        return
    value = getattr(recipe, key)
    assert type(value) is type(getattr(BASE, key))
    assert not isinstance(value, float) or math.isfinite(value)
    assert "/" not in recipe.name


WRONG = (
    "epochs", "=3", "epoch=3", "epochs=", "epochs=0", "epochs=-1", "epochs=1.5", "epochs=true", "batch_size=0",
    "learning_rate=0", "learning_rate=nan", "learning_rate=inf", "learning_rate=fast", "momentum=1",
    "weight_decay=-1", "label_smoothing=1", "shift_px=-1", "hold_out=-5", "flip=perhaps", "flip=2",
    "dropout=1", "activation=swish", "initialiser=zero", "norm=layer", "preprocess=pca", "optimiser=lion",
    "schedule=poly", "nesterov=2", "skip_corrupt=yes", "seed=-1", "seed=4294967296", "resize=zoom",
    "data=mnist", "name=../x", "name=a/b", "name=", "name=.x",
)  # fmt: skip


@pytest.mark.parametrize("assignment", WRONG)
def test_a_wrong_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(InputError):
        changed(BASE, (assignment,))


def test_true_and_false_are_case_blind() -> None:
    assert changed(BASE, ("flip=True",)).flip is True
    assert changed(BASE, ("flip=true", "flip=FALSE")).flip is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("RECIPE = 3", "defines no RECIPE"),
        ("", "defines no RECIPE"),
        ("RECIPE = (", "SyntaxError"),
        ("import no_such_package", "no_such_package"),
        ("from train.recipe import Recipe\nRECIPE = Recipe()", "TypeError"),
        ("from train.recipe import Recipe\nRECIPE = Recipe('x', 'm:f', 'digits', epochs=0)", "at least 1"),
    ],
)
def test_a_broken_recipe_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        load_recipe(str(path))


def test_a_recipe_may_lie_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("from train.recipe import Recipe\nRECIPE = Recipe('own', 'm:f', 'digits', epochs=2)")
    assert load_recipe(str(path)) == Recipe("own", "m:f", "digits", epochs=2)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("hold_out=0.1", "hold_out must be a whole number, got 0.1"),
        ("epochs=2.5", "epochs must be a whole number, got 2.5"),
        ("height='32'", "height must be a whole number, got '32'"),
        ("flip='false'", "flip must be true or false, got 'false'"),
        ("seed=True", "seed must be a whole number, got True"),
        ("model=print", "model must be text, got <built-in"),
        ("learning_rate=float('inf')", "learning_rate must be a finite number, got inf"),
        ("l2=float('nan')", "l2 must be a finite number, got nan"),
    ],
)
def test_a_field_of_another_type_is_refused(tmp_path: Path, field: str, words: str) -> None:
    given = {"model": "'a:b'", "epochs": "1"} | dict([field.split("=")])
    fields = ", ".join(f"{key}={value}" for key, value in given.items())
    (tmp_path / "mine.py").write_text(
        f"from train.recipe import Recipe\nRECIPE = Recipe(name='mine', data='digits', {fields})\n"
    )
    with pytest.raises(InputError, match=re.escape(words)):
        load_recipe(str(tmp_path / "mine.py"))


def test_an_architecture_may_lie_beside_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_own_net.py").write_text("from train.models.lenet import lenet5 as net\n")
    (tmp_path / "mine.py").write_text(
        "from train.recipe import Recipe\n"
        "RECIPE = Recipe(name='mine', model='my_own_net:net', data='digits', epochs=1)\n"
    )
    recipe = load_recipe(str(tmp_path / "mine.py"))
    assert architecture(recipe.model, 32, 32, 10).name == "lenet5"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"convnetjs_cifar10, face, face_plus, .*lenet_digits") as refused:
        load_recipe("lenet_digit")
    assert "Did you mean lenet_digits" in str(refused.value)


@pytest.mark.parametrize(
    ("assignment", "near"),
    [
        ("epoch=3", "Did you mean epochs"),
        ("learning-rate=3", "Did you mean learning_rate?"),
        ("activation=leakyrelu", "Did you mean leaky_relu or relu?"),
        ("initialiser=orthogonol", "Did you mean orthogonal?"),
        ("schedule=onecycle", "Did you mean one_cycle?"),
        ("optimiser=adadelt", "Did you mean adadelta?"),
        ("preprocess=standardize", "Did you mean standardise?"),
    ],
)
def test_the_nearest_names_are_offered(assignment: str, near: str) -> None:
    with pytest.raises(InputError) as refused:
        changed(BASE, (assignment,))
    assert near in str(refused.value)


def test_nothing_near_is_no_guess() -> None:
    with pytest.raises(InputError) as refused:
        changed(BASE, ("zzzz=3",))
    assert "Did you mean" not in str(refused.value)


@pytest.mark.parametrize("path", sorted(RECIPES_FOLDER.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_shipped_recipe_states_command_cost_and_result(path: Path) -> None:
    text = path.read_text()
    assert f"Command: sightline train {path.stem}" in text
    assert "\nCost: " in text
    assert "\nResult: " in text
    assert load_recipe(path.stem).epochs > 0
