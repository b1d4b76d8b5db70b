"""What is searched: how it is drawn, narrowed, written, and where its edges lie."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.recipe import Recipe, changed, load_recipe
from train.search.command import search
from train.search.space import (
    EDGE,
    SPACE,
    Choice,
    Range,
    assignments,
    draw,
    edge_warning,
    narrowed,
    space_of,
)

RECIPE = Recipe("x", "m:f", "digits", epochs=10, weight_decay=0.01, l2=0.0)
FIELDS = st.sampled_from(sorted(name for name in SPACE if hasattr(RECIPE, name)))
SEEDS = st.integers(0, 10**6)


@given(FIELDS, SEEDS)
def test_what_is_drawn_lies_inside_and_the_command_line_gives_it_again(name: str, seed: int) -> None:
    part = SPACE[name]
    values = draw({name: part}, seed)
    assert part.low <= values[name] <= part.high
    assert isinstance(values[name], int if part.whole else float)
    assert getattr(changed(RECIPE, assignments(values)), name) == values[name]


def test_the_same_number_draws_the_same_values_on_any_machine() -> None:
    space = space_of(RECIPE, ["momentum", "activation=relu,gelu", "batch_size"])
    assert draw(space, 0, "coarse", 3) == draw(space, 0, "coarse", 3)
    assert draw(space, 0, "coarse", 3) == {
        "learning_rate": 0.24, "weight_decay": 0.00071, "momentum": 0.9789, "activation": "relu", "batch_size": 23,
    }  # fmt: skip
    drawn = [draw(space, 0, stage, number) for stage in ("coarse", "fine") for number in range(50)]
    assert len({values["learning_rate"] for values in drawn}) > 95


@pytest.mark.parametrize(
    ("name", "middle"), [("learning_rate", 0.01), ("momentum", 0.929), ("dropout", 0.35)]
)
def test_half_of_what_is_drawn_lies_below_the_middle_of_its_scale(name: str, middle: float) -> None:
    below = sum(draw({name: SPACE[name]}, number)[name] < middle for number in range(200))
    assert 80 < below < 120


def test_every_whole_number_is_as_likely() -> None:
    drawn = [draw({"shift_px": SPACE["shift_px"]}, number)["shift_px"] for number in range(500)]
    assert all(70 < drawn.count(number) < 130 for number in range(5))


@given(FIELDS, st.lists(SEEDS, min_size=1, max_size=8))
def test_the_narrowed_range_holds_the_best_values_and_stays_inside(name: str, seeds: list[int]) -> None:
    space: dict[str, Any] = {name: SPACE[name]}
    best = [draw(space, seed) for seed in seeds]
    inner = narrowed(space, best)[name]
    outer = SPACE[name]
    assert isinstance(inner, Range)
    assert outer.low <= inner.low <= min(values[name] for values in best)
    assert max(values[name] for values in best) <= inner.high <= outer.high
    for seed in seeds:
        assert inner.low <= draw({name: inner}, seed)[name] <= inner.high
    # A tenth of itself to either side, a quarter of the whole at least, and what rounding adds.
    positions = [outer.axis(float(values[name])) for values in best]
    least = 0.25 * (outer.axis(outer.high) - outer.axis(outer.low))
    rounding = 2.0 if outer.whole else 0.01
    widest = max(1.2 * (max(positions) - min(positions)), least) + rounding
    assert least - 0.01 <= inner.axis(inner.high) - inner.axis(inner.low) <= widest


@pytest.mark.parametrize(
    ("name", "best", "inner"),
    [
        ("learning_rate", 1e-4, "0.0001..0.001"),
        ("learning_rate", 1.0, "0.1..1"),
        ("learning_rate", 0.01, "0.00316..0.0316"),
        ("momentum", 0.5, "0.5..0.812"),
        ("shift_px", 0, "0..1"),
        ("shift_px", 2, "1..3"),
        ("shift_px", 4, "3..4"),
        ("batch_size", 16, "16..39"),
    ],
)
def test_a_quarter_is_left_at_an_end_too_and_never_a_single_whole_number(
    name: str, best: float, inner: str
) -> None:
    assert str(SPACE[name].narrowed([best, best])) == inner


@given(FIELDS, st.floats(0, 1))
def test_an_edge_is_the_outermost_twentieth(name: str, part: float) -> None:
    space = SPACE[name]
    low, high = space.axis(space.low), space.axis(space.high)
    value = {"linear": lambda p: p, "log": lambda p: 10**p, "from one": lambda p: 1 - 10**-p}[space.scale](
        low + part * (high - low)
    )
    expected = "lower" if part < EDGE - 1e-6 else "upper" if part > 1 - EDGE + 1e-6 else None
    if min(abs(part - EDGE), abs(part - 1 + EDGE)) > 1e-6:
        assert space.edge(value) == expected


def test_at_an_edge_the_next_range_is_named() -> None:
    space = space_of(RECIPE, ["dropout", "momentum"])
    assert edge_warning(RECIPE, space, "learning_rate", 0.01) is None
    assert edge_warning(RECIPE, space, "learning_rate", 0.9) == (
        "learning_rate = 0.9 lies at the upper end of 0.0001..1: a better one may lie beyond. "
        "Search on with --space learning_rate=0.009..90"
    )
    assert edge_warning(RECIPE, space, "momentum", 0.989) == (
        "momentum = 0.989 lies at the upper end of 0.5..0.99: a better one may lie beyond. "
        "Search on with --space momentum=0.92..0.998"
    )
    assert edge_warning(RECIPE, space, "dropout", 0.01) == (
        "dropout = 0.01 lies at the lower end of 0..0.7, beyond which the recipe takes none."
    )


@pytest.mark.parametrize(
    ("text", "value", "beyond"),
    [
        ("shift_px=1..4", 1, "0..3"),
        ("shift_px=0..4", 0, None),
        ("batch_size=1..8", 1, None),
        ("dropout=0..0.7", 0.69, "0.3..0.97"),
        ("momentum=0.5..0.99", 0.5, "0..0.93"),
        ("teacher_share=0..1", 0.99, None),
        ("teacher_share=0..0.6", 0.6, "0.3..0.9"),
        ("teacher_share=0.5..0.98", 0.98, "0.7..1"),
        ("warmup_epochs=1..5", 1.0, "0..3"),
        ("dropout=0.95..0.98", 0.98, "0.96..0.99"),
        ("learning_rate=0.011..0.012", 0.012, "0.011..0.013"),
    ],
)
def test_only_the_rules_at_that_end_count_and_the_next_range_keeps_to_them(
    text: str, value: float, beyond: str | None
) -> None:
    space, name = space_of(RECIPE, [text]), text.partition("=")[0]
    told = edge_warning(RECIPE, space, name, value)
    assert told is not None
    if beyond is None:
        assert told.endswith("beyond which the recipe takes none.")
    else:
        assert told.endswith(f"a better one may lie beyond. Search on with --space {name}={beyond}")
        assert str(space_of(RECIPE, [f"{name}={beyond}"])[name]) == beyond


@given(FIELDS, SEEDS)
def test_the_range_to_search_next_is_wider_than_nothing_and_has_the_best_inside(name: str, seed: int) -> None:
    value = draw({name: SPACE[name]}, seed)[name]
    part = SPACE[name].moved(value)
    assert part.low < float(value) < part.high


def test_the_named_range_is_one_that_the_option_takes() -> None:
    text = edge_warning(RECIPE, {"l2": SPACE["l2"]}, "l2", 0.0099)
    assert text is not None
    (part,) = space_of(RECIPE, [text.partition("--space ")[2]], ["learning_rate", "weight_decay"]).values()
    assert part.edge(0.0099) is None


def test_the_learning_rate_and_what_the_recipe_uses_are_searched() -> None:
    assert [*space_of(RECIPE, [])] == ["learning_rate", "weight_decay"]
    assert [*space_of(replace(RECIPE, l2=0.1, weight_decay=0, dropout=0.5), [])] == [
        "learning_rate",
        "l2",
        "dropout",
    ]
    assert [*space_of(replace(RECIPE, weight_decay=0), [])] == ["learning_rate", "weight_decay"]
    assert [*space_of(RECIPE, [], ["learning_rate"])] == ["weight_decay"]
    assert [*space_of(load_recipe("face"), [])] == ["learning_rate", "weight_decay"]


def test_ranges_and_choices_from_the_command_line() -> None:
    space = space_of(RECIPE, ["learning_rate=1e-3..0.5", "batch_size=32,64", "flip=true,false", "jpeg"])
    assert space["learning_rate"] == Range(0.001, 0.5, "log")
    assert space["batch_size"] == Choice((32, 64))
    assert space["flip"] == Choice((True, False))
    assert space["jpeg"] == SPACE["jpeg"]
    assert assignments(draw({"flip": Choice((True, False))}, 1)) in (("flip=true",), ("flip=false",))
    assert narrowed(space, [{**draw(space, 1), "batch_size": 32}])["batch_size"] == Choice((32,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat=0..1", "Did you mean learning_rate"),
        ("epochs=1..9", "'epochs' is not searched; known are learning_rate, "),
        ("learning_rate=0..1", "learning_rate must be above 0, got 0.0"),
        ("weight_decay=0..1", "drawn by its logarithm, so from above 0"),
        ("learning_rate=1..0.1", "the first must be below the second"),
        ("learning_rate=a..b", "learning_rate takes a finite number, got 'a'"),
        ("momentum=0.5..1", "momentum must be at least 0 and below 1, got 1.0"),
        ("optimiser=sgd,adamm", "Did you mean adam"),
        ("optimiser=adam", "expected optimiser=VALUE,VALUE"),
        ("dropout=0.1", r"expected dropout=LOW..HIGH, such as dropout=0..0.7"),
        ("mosaic", "'mosaic' is not searched"),
    ],
)
def test_a_wrong_space_is_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space_of(RECIPE, [text])


def test_a_field_is_searched_or_given_a_value() -> None:
    with pytest.raises(InputError, match="momentum was also given a value"):
        space_of(RECIPE, ["momentum"], ["momentum"])
    with pytest.raises(InputError, match="Nothing is left to search"):
        space_of(RECIPE, [], ["learning_rate", "weight_decay"])


DOCUMENT = (Path(__file__).parents[3] / "docs" / "search.md").read_text(encoding="utf-8")


def test_the_document_has_every_range() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (linear|log|from one) \|$", DOCUMENT, re.M)
    assert rows == [(name, str(part), part.scale) for name, part in SPACE.items()]


def test_the_documents_commands_are_ones_that_the_option_parser_takes() -> None:
    lines = re.findall(r"^    sightline search ([a-z]\w+ .*)$", DOCUMENT, re.M)
    assert lines
    for line in lines:
        with search.make_context("search", shlex.split(line)) as context:
            recipe = changed(load_recipe(context.params["recipe"]), context.params["assignments"])
            space_of(recipe, context.params["space"])
