"""The JSON: its schema, what is refused, and how large it gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import InputError
from edge.frame import STAGES
from edge.profiling.report import read_report, schema, write_report
from edge.profiling.rows import Timings

ROOT = Path(__file__).parents[3]


def report(n: int = 3) -> dict[str, Any]:
    """With rows of realistic size: nanoseconds of some milliseconds."""
    random = np.random.default_rng(0)
    names = (*STAGES, "slow.preprocess", "slow.infer", "slow.postprocess")
    columns = {name: random.lognormal(14, 1, n).astype(np.int64) for name in names}
    meta = {
        "index": np.arange(n),
        "round": np.zeros(n, int),
        "steady": np.ones(n, int),
        "at": np.arange(n) * 33_000_000,
    }
    timings = Timings(meta | columns)
    return {
        "schema_version": 2, "taken_at": "2026-01-01T00:00:00+00:00", "machine": {"cores": 2}, "versions": {},
        "settings": {}, "capture_clock": "file", "n": n,
        "stages_ms": {name: spread.as_json() for name, spread in timings.spreads().items()},
        "rows": timings.as_json(),
    }  # fmt: skip


def test_the_published_schema_is_that_of_the_code() -> None:
    published = (ROOT / "docs" / "schema" / "profile.schema.json").read_text()
    assert published == schema(), "python -m edge.profiling.report > docs/schema/profile.schema.json"


def test_2000_frames_are_a_small_file_that_reads_back_equal(tmp_path: Path) -> None:
    path, content = tmp_path / "run.json", report(2000)
    write_report(path, content)
    assert path.stat().st_size < 250_000
    assert len(path.read_text().splitlines()) < 150
    back = read_report(path)
    assert back.rows == content["rows"]
    timings = Timings.of_report(back.rows, "run.json")
    assert timings.n == 2000
    assert timings.models_ms["slow"]["infer"].shape == (2000,)
    assert timings.stages_ms[-1] == pytest.approx(timings.stages_ms[:-1].sum(axis=0))


def test_a_report_without_rows_is_written_too(tmp_path: Path) -> None:
    content = {name: value for name, value in report().items() if name != "rows"}
    write_report(tmp_path / "run.json", content)
    assert json.loads((tmp_path / "run.json").read_text()) == content
    assert read_report(tmp_path / "run.json").rows is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ('{"schema_version": 2, "machine": {"os": "Deb', "may have been cut off"),
        ("\xff\xfe", "is not JSON"),
        ("[1, 2]", "is no profile: it has no schema_version"),
        ('{"image": "a.png"}', "is no profile: it has no schema_version"),
        (
            '{"schema_version": 1, "n": 3}',
            "has schema version 1, and this Sightline reads 2: another version wrote it",
        ),
        ('{"schema_version": 99}', "has schema version 99"),
        ('{"schema_version": 2}', "is no valid profile: 'taken_at': Field required"),
    ],
)
@pytest.mark.parametrize("subcommand", ["compare", "gate"])
def test_what_is_no_profile_is_refused(
    command: Callable[..., Any], tmp_path: Path, subcommand: str, text: str, message: str
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("latin-1"))
    (tmp_path / "budget.toml").write_text("[age]\np99 = 3\n")
    more = [path] if subcommand == "compare" else ["--budget", tmp_path / "budget.toml"]
    ended = command("profile", subcommand, path, *more)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_a_missing_file_and_unequal_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_report(tmp_path / "none.json")
    rows = report()["rows"]
    rows["infer"] = rows["infer"][:-1]
    with pytest.raises(InputError, match="differ in length"):
        Timings.of_report(rows, "run.json")
