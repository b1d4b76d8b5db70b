"""Differences of two runs: what is equal cannot be told apart, and 5 % is found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import profiler_verdicts as bench
import pytest

from edge.errors import InputError
from edge.frame import STAGES
from edge.profiling import stats
from edge.profiling.compare import compare_timings
from edge.profiling.rows import Timings
from edge.profiling.stats import (
    _rank_autocorrelation,
    block_length,
    differences,
    intervals,
    percentiles,
    student,
)


@pytest.mark.parametrize("kind", ["alone", "in_turn"])
def test_verdicts_on_two_runs_of_the_same_and_on_5_percent_more(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "resamples", lambda n: 200)
    pair = getattr(bench, kind)(2000)
    equal, _ = bench.verdicts(pair, 1.0, 3, seed=7)
    slower, _ = bench.verdicts(pair, 1.05, 3, seed=8)
    assert equal == {"cannot tell": 3}
    assert slower == {"slower": 3}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alone", "in_turn"])
def test_verdicts_a_hundred_times(kind: str) -> None:
    pair = getattr(bench, kind)(2000)
    equal, cells = bench.verdicts(pair, 1.0, 100)
    slower, _ = bench.verdicts(pair, 1.05, 100, seed=1)
    assert equal["cannot tell"] >= 95
    assert cells <= 10
    assert slower["slower"] >= 90


def shifted(stage: str, by_ms: float, seed: int, n: int = 600) -> Timings:
    """A synthetic run with one stage longer by so much."""
    stages = bench.series(np.random.default_rng(seed), n)
    stages[STAGES.index(stage)] += by_ms
    timings: Timings = bench.timings_of(stages)
    return timings


def test_the_stage_that_changed_is_the_one_that_is_named() -> None:
    found = compare_timings(shifted("infer", 0.0, 1), shifted("infer", -1.0, 2))
    assert found.verdict == "faster"
    assert found.decisive.stage == "age"
    assert {c.stage for c in found.cells if c.verdict == "faster" and c.percent == 50} == {"infer", "age"}
    assert {c.percent for c in found.cells} == {50.0, 90.0, 99.0}
    assert "age p50 -" in found.decisive.in_words()


def test_too_short_a_run_is_not_compared() -> None:
    with pytest.raises(InputError, match="has 60 steady frames: expected 100 or more"):
        compare_timings(shifted("infer", 0.0, 1, n=60), shifted("infer", 0.0, 2))


def test_the_mood_of_the_machine_meets_both_and_is_not_taken_for_a_difference() -> None:
    """In turn the mood cancels; the same rows taken as single runs would be far less certain."""
    a, b = bench.in_turn(2000)(np.random.default_rng(5), 1.03)
    paired = compare_timings(a, b)
    assert (paired.paired, paired.verdict) == (True, "slower")
    apart = differences(a.stages_ms, b.stages_ms, (50.0,))
    together = differences(a.stages_ms, b.stages_ms, (50.0,), (a.rounds, b.rounds))
    assert together.margin[-1, 0] < apart.margin[-1, 0]


@pytest.mark.parametrize("freedom", [8, 9, 30, 100])
def test_students_quantiles_against_scipys(freedom: int) -> None:
    scipy = pytest.importorskip("scipy.stats")
    for probability in (0.975, 0.999, 1 - 0.05 / 2 / 28):
        assert student(probability, freedom) == pytest.approx(scipy.t.ppf(probability, freedom), rel=0.01)
    assert student(0.975, 10**6) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-4)


def test_blocks_are_longer_where_neighbours_are_more_alike() -> None:
    random = np.random.default_rng(0)
    independent = random.normal(size=2000)
    alike = np.zeros(2000)
    for at in range(1, 2000):
        alike[at] = 0.95 * alike[at - 1] + independent[at]
    assert block_length(independent) == math.ceil(math.sqrt(2000))
    assert block_length(alike) > 1.5 * block_length(independent)


def test_equal_values_are_not_alike_for_their_places() -> None:
    """A constant has no order, and one of two values at random has no neighbours that are more alike than others."""
    assert block_length(np.ones(2000)) == math.ceil(math.sqrt(2000))
    coins = np.random.default_rng(0).integers(0, 2, 1_000_000).astype(float)
    assert abs(_rank_autocorrelation(coins)) < 0.005


@pytest.mark.parametrize("alike", [0.0, 0.7])
def test_95_percent_intervals_hold_the_truth_of_correlated_frames(alike: float) -> None:
    held, times = 0, 60
    for seed in range(times):
        stages = bench.series(np.random.default_rng((5, seed)), 800, alike=alike)
        low, high = intervals(np.array([stages[STAGES.index("infer")]]), (50.0,))[0, 0]
        held += low <= bench.MEAN_MS["infer"] <= high
    assert held >= 0.9 * times


def test_percentiles_of_columns_are_those_of_each() -> None:
    values = np.random.default_rng(0).random((3, 400))
    found = percentiles(values, (50, 99))
    assert found.tolist() == [percentiles(row, (50, 99)).tolist() for row in values]


def written(path: Path, timings: Timings, **changes: Any) -> Path:
    """A report with rows, as `profile --json` writes it."""
    report = {
        "schema_version": 2, "taken_at": "2026-01-01T00:00:00+00:00", "machine": {}, "versions": {},
        "settings": {"source": "clip.mp4"}, "capture_clock": "file", "n": timings.n,
        "stages_ms": {name: spread.as_json() for name, spread in timings.spreads().items()},
        "rows": timings.as_json(),
        "conditions": {"machine": {"cpu": "one"}, "power_mode": "MAXN (0)"},
    }  # fmt: skip
    path.write_text(json.dumps(report | changes))
    return path


def test_the_command_says_which_is_slower(command: Callable[..., Any], tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", shifted("preprocess", 0.0, 1))
    b = written(tmp_path / "b.json", shifted("preprocess", 3.0, 2))
    ended = command("profile", "compare", a, b)
    assert ended.code == 0
    assert "B is slower than A: age p50 +" in ended.out
    assert "One run of each" in ended.out
    assert "slower" in ended.out
    assert "[" not in ended.out, "markup that nobody reads"
    assert "Cannot tell B from A: age p50" in command("profile", "compare", a, a).out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"conditions": {"machine": {"cpu": "one"}, "power_mode": "15W (1)"}},
            "power mode is MAXN (0) in A and",
        ),
        (
            {"conditions": {"machine": {"cpu": "two"}, "power_mode": "MAXN (0)"}},
            "The cpu is one in A and two in B",
        ),
        ({"settings": {"source": "demo://"}}, "The source is clip.mp4 in A and demo:// in B"),
        ({"open_loop": {"offered_fps": 30, "achieved_fps": 30}}, "as fast as it goes in A and 30.0 in B"),
        ({"conditions": None}, "only one of the runs"),
    ],
)
def test_runs_of_different_conditions_are_refused_unless_forced(
    command: Callable[..., Any], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    a = written(tmp_path / "a.json", shifted("infer", 0.0, 1, 200))
    b = written(tmp_path / "b.json", shifted("infer", 0.0, 2, 200), **changes)
    refused = command("profile", "compare", a, b)
    assert (refused.code, refused.out) == (2, "")
    assert reason in refused.err
    assert "--force" in refused.err
    forced = command("profile", "compare", a, b, "--force")
    assert forced.code == 0
    assert reason in forced.out.replace("\n", " ")


def test_a_file_without_rows_is_not_compared(command: Callable[..., Any], tmp_path: Path) -> None:
    a = written(tmp_path / "a.json", shifted("infer", 0.0, 1, 200))
    b = written(tmp_path / "b.json", shifted("infer", 0.0, 2, 200), rows=None)
    assert "has no row for each frame" in command("profile", "compare", a, b).err
