"""How far a build is and how long it may still take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.progress import Phases, in_words, remaining_s

TREE = st.recursive(st.integers(0, 3), lambda inside: st.lists(inside, min_size=1, max_size=4), max_leaves=12)
"""A phase: so many steps, or one step for each phase inside."""


def run(phases: Phases, name: str, parent: str | None, tree: Any, seen: list[float]) -> None:
    """Go through a phase as TensorRT does, and note the share after each step."""
    steps = tree if isinstance(tree, int) else len(tree)
    phases.start(name, parent, steps)
    for step in range(steps):
        if isinstance(tree, list):
            run(phases, f"{name}.inner", name, tree[step], seen)
        phases.step(name, step)
        seen.append(phases.share)
    phases.finish(name)


@given(TREE)
def test_the_share_grows_to_one_and_never_goes_back(tree: Any) -> None:
    phases, seen = Phases(), [0.0]
    run(phases, "outer", None, tree, seen)
    assert seen == sorted(seen)
    assert all(0 <= share <= 1 for share in seen)
    assert phases.share == 1


def test_steps_inside_count_as_a_part_of_the_one_under_way() -> None:
    phases = Phases()
    phases.start("outer", None, 4)
    phases.step("outer", 0)
    phases.start("inner", "outer", 2)
    assert phases.step("inner", 0) == (1, 2)
    assert phases.share == pytest.approx(1 / 4 + 1 / 8)


@pytest.mark.parametrize(
    ("elapsed_s", "share", "last_s", "expected"),
    [
        (10, 0.0, None, None),
        (10, 0.01, None, None),
        (10, 0.25, None, 30),
        (10, 0.25, 100, 90),
        (120, 0.75, 100, 40),
        (120, 0.0, 100, None),
        (7, 1.0, None, 0),
    ],
)
def test_the_last_build_is_the_guide_until_this_one_takes_longer(
    elapsed_s: float, share: float, last_s: float | None, expected: float | None
) -> None:
    assert remaining_s(elapsed_s, share, last_s) == expected


def test_the_time_left_in_words() -> None:
    assert in_words(None) == "time left unknown"
    assert in_words(12.4) == "about 12 s left"
    assert in_words(185) == "about 3 min left"
