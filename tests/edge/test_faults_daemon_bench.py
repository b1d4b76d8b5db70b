"""The table of faults of a whole daemon: what it counts, that it finds a secret, and one short real run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.config import StreamSettings


@pytest.fixture
def bench() -> Any:
    pytest.importorskip("av")
    import faults_daemon

    return faults_daemon


def test_the_page_names_the_rows(bench: Any) -> None:
    assert bench.__doc__
    assert all(row in bench.__doc__ for row in bench.ROWS)


def test_growth_and_what_does_not_stay_the_same_are_found(bench: Any) -> None:
    def held(pss: float, descriptors: int = 60) -> Any:
        return bench.Held(pss, pss / 2, pss / 4, descriptors, 16, 5)

    steady = bench._growth([held(100.0)] * 40)
    assert (steady["growth"]["pss_mb"], steady["passed"]) == (0.0, True)
    growing = bench._growth([held(100 + 0.1 * number) for number in range(40)])
    assert growing["growth"]["pss_mb"] > bench.GROWTH_MB
    assert not growing["passed"]
    assert not bench._growth([held(100.0, 60 + number) for number in range(40)])["passed"]


def test_addresses_of_every_shape_are_good_settings_and_a_secret_that_is_shown_is_found(
    bench: Any, tmp_path: Path
) -> None:
    import secret_shapes

    shapes = len(secret_shapes.LITERAL)
    config, environment, markers = secret_shapes.leaky_config(tmp_path, range(3 * shapes))
    (tmp_path / "run.toml").write_text(config)
    settings = StreamSettings.read(tmp_path / "run.toml")
    assert len(settings.cameras) == len(set(markers)) == 3 * shapes
    files = [path.read_text() for path in (tmp_path / "secrets").iterdir()]
    told = [config, *environment.values(), *files]
    assert len(list(bench.found_in({"all": "\n".join(told).encode()}, markers))) == len(markers)
    assert not list(bench.found_in({"repr": repr(settings).encode()}, markers))


@pytest.mark.slow
def test_real_daemons_start_and_end_and_tell_no_secret(bench: Any) -> None:
    assert bench.cold_one(1)["n"] == 1
    found = bench.secrets(3)
    assert (found["seen"], found["bytes_looked_at"] > 10_000) == ({}, True)


@pytest.mark.slow
def test_a_daemon_is_ended_whole(bench: Any) -> None:
    from faults_camera import Server

    from edge.errors import InputError

    try:
        with Server((320, 240)) as server:
            _, complaint = bench._one_end(server)
    except InputError as error:
        pytest.skip(str(error))
    assert complaint == ""
