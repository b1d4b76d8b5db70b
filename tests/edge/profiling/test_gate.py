"""Budgets: kept, broken with the guilty stage named, and written wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.frame import STAGES
from edge.profiling.rows import Timings
from edge.profiling.stats import frames_needed

N = 400
LEVEL_MS = {"decode": 3.0, "wait": 0.2, "preprocess": 1.0, "infer": 6.0, "postprocess": 0.1, "publish": 0.05}


def run(path: Path, slow: dict[str, float] | None = None, n: int = N, **changes: Any) -> Path:
    """A profile whose last 2 % of frames take so much longer in some stages."""
    columns = {stage: np.full(n, int(LEVEL_MS[stage] * 1e6)) for stage in STAGES}
    for stage, more_ms in (slow or {}).items():
        columns[stage][-max(n // 50, 1) :] += int(more_ms * 1e6)
    meta = {name: np.zeros(n, np.int64) for name in ("index", "round", "at")} | {
        "steady": np.ones(n, np.int64)
    }
    timings = Timings(meta | columns)
    spreads = timings.spreads((50.0, 90.0, 99.0))
    report = {
        "schema_version": 2, "taken_at": "", "machine": {}, "versions": {}, "settings": {}, "capture_clock": "file",
        "n": n, "stages_ms": {name: spread.as_json() for name, spread in spreads.items()}, "rows": timings.as_json(),
    }  # fmt: skip
    path.write_text(json.dumps(report | changes))
    return path


@pytest.fixture
def gate(command: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Holds a run against a budget's text."""

    def hold(budget: str, *args: Any, **kwargs: Any) -> Any:
        (tmp_path / "budget.toml").write_text(budget)
        path = run(tmp_path / "run.json", *args, **kwargs)
        return command("profile", "gate", path, "--budget", tmp_path / "budget.toml")

    return hold


def test_a_kept_budget_ends_with_0(gate: Callable[..., Any]) -> None:
    ended = gate("[age]\np50 = 11\np99 = 12.0\n[infer]\np95 = 7\nmax = 7\nmean = 7\njitter = 1\n")
    assert ended.code == 0, ended.err
    assert "age p50 10.350 of 11 ms" in ended.out
    assert "infer p95 6.000 of 7 ms" in ended.out
    reached = gate("[infer]\np95 = 6\n", n=frames_needed(95))
    assert reached.code == 0, "a budget may be used up, by as few frames as tell it"


def test_the_guilty_stage_is_named_from_the_frames(gate: Callable[..., Any]) -> None:
    ended = gate("[age]\np99 = 12.0\n", {"preprocess": 4.75})
    assert ended.code == 1
    assert "age p99 +3.1 ms, all in preprocess (15.100, budget 12)" in ended.err


def test_shares_are_named_where_several_are_guilty(gate: Callable[..., Any]) -> None:
    ended = gate("[age]\np99 = 12.0\n", {"preprocess": 3.0, "infer": 6.0, "publish": 0.2})
    assert "65 % in infer, 33 % in preprocess" in ended.err
    assert "publish" not in ended.err
    ended = gate("[age]\np99 = 12.0\n", {"preprocess": 4.0, "wait": 1.0, "infer": -1.0})
    assert "80 % in preprocess, 20 % in wait" in ended.err, "what was quicker takes nothing of it"


def test_budgets_of_stages_come_before_the_frames(gate: Callable[..., Any]) -> None:
    ended = gate("[age]\np50 = 9.0\n[preprocess]\np50 = 0.5\n[infer]\np50 = 7.0\n")
    assert "age p50 +1.35 ms, all in preprocess" in ended.err
    assert "preprocess p50 +0.5 ms (1.000, budget 0.5)" in ended.err
    assert "infer" not in ended.err


def test_where_every_frame_is_over_the_longest_stages_are_named(gate: Callable[..., Any]) -> None:
    assert "58 % in infer, 29 % in decode" in gate("[age]\np50 = 9.0\n").err


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("[infr]\np99 = 3\n", "'infr', which is no stage. Did you mean infer?"),
        ("[gpu]\np99 = 3\n", "There are decode, wait, preprocess, infer, postprocess, publish, age."),
        ("[infer]\nmaximum = 3\n", "'maximum' for infer, which is no figure of the run. Did you mean max"),
        ("[infer]\np100 = 3\n", "'p100' for infer"),
        ("[infer]\np99 = 'fast'\n", "infer p99 is 'fast'. Expected milliseconds, above 0."),
        ("[infer]\np99 = -1\n", "Expected milliseconds, above 0."),
        ("[infer]\np99 = true\n", "Expected milliseconds, above 0."),
        ("age = 3\n", "'age' is no table. Expected [age]"),
        ("", "has no line"),
        ("[age]\n", "has no line"),
        ("[age]\np50 = inf\n", "Expected milliseconds, above 0"),
        ("[age]\np99.9 = 30.0\n", 'Write quotes where a point is: "p99.9"'),
        ("[age\n", "is not a TOML file"),
        ('[age]\n"p99.9" = 50\n', "age p99.9 needs 2995 frames, and the run has 400"),
    ],
)
def test_a_wrong_budget_ends_with_2(gate: Callable[..., Any], budget: str, message: str) -> None:
    ended = gate(budget)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_a_budget_with_a_byte_order_mark_is_read(gate: Callable[..., Any]) -> None:
    assert gate("\ufeff[age]\np50 = 11\n").code == 0


def test_a_run_too_short_for_its_own_percentile_is_refused(gate: Callable[..., Any]) -> None:
    ended = gate("[age]\np99 = 50\n", n=298)
    assert ended.code == 2
    assert "age p99 needs 299 frames, and the run has 298" in ended.err
    assert "--percentiles 99" in ended.err


def test_a_percentile_of_a_run_without_rows(gate: Callable[..., Any]) -> None:
    assert gate("[age]\np95 = 50\n", rows=None).code == 2
    broken = gate("[age]\np50 = 9\n", rows=None)
    assert broken.code == 1
    assert "age p50 +1.35 ms (10.350, budget 9)" in broken.err
