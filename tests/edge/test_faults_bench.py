"""The table of faults: what it counts, what it finds left behind, and one real round of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench() -> Any:
    pytest.importorskip("av")
    import faults

    return faults


def test_a_round_that_misses_or_fails_is_counted_and_nothing_is_smoothed(bench: Any) -> None:
    targets = {"lost": 2.0, "back": 2.5}
    good = bench.Outcome({"lost": [1.0, 2.0], "back": [2.5, 0.1]}, 0, {})
    assert good.passed(targets)
    late = bench.Outcome({"lost": [1.0, 2.01], "back": [1.0, 1.0]}, 0, {})
    assert (late.held("lost", 2.0), late.passed(targets)) == (1, False)
    assert not bench.Outcome({"lost": [1.0], "back": [1.0]}, 1, {}).passed(targets)
    assert not bench.Outcome({"lost": [1.0], "back": [1.0]}, 0, {"descriptors": 1}).passed(targets)


def test_a_figure_without_rounds_did_not_pass(bench: Any) -> None:
    assert not bench.Outcome({"gap": []}, 3, {}).passed({"gap": 2.0})
    assert not bench.Outcome({"gap": []}, 0, {}).passed({"gap": 2.0})


def test_a_child_and_a_descriptor_that_are_left_are_found(bench: Any) -> None:
    before = bench.Left.now()
    reading, writing = os.pipe()
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert bench.Left.now().beyond(before) == {"descriptors": 2, "children": 1}
        assert child.pid in bench.children()
    finally:
        child.kill()
        child.wait()
        os.close(reading)
        os.close(writing)
    assert bench.Left.now().beyond(before) == {}


def test_the_gap_counts_from_the_last_frame_before_the_fault(bench: Any) -> None:
    camera = bench.Watched("rtsp://127.0.0.1:1/stream")
    camera.came_s = [1.0, 1.1, 1.2, 3.0, 3.1]
    assert camera.longest_gap_s(1.25) == pytest.approx(1.8)
    assert camera.longest_gap_s(3.05) == pytest.approx(0.1)
    assert camera.frame_after(1.25) == 3.0


def test_the_page_names_the_rows(bench: Any) -> None:
    assert bench.__doc__
    assert all(f"\n    {row} " in bench.__doc__ for row in bench.ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["half-open", "gone", "resized", "killed", "hung"])
def test_one_real_round_of_each_row(tmp_path: Path, row: str) -> None:
    command = [sys.executable, "bench/faults.py", row, "--n", "1", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout)
    (outcome,) = json.loads((tmp_path / "figures.json").read_text()).values()
    # How soon depends on what else the machine does; that it came back and left nothing does not.
    assert (outcome["failed"], outcome["left"]) == (0, {}), done.stdout


@pytest.mark.slow
def test_a_real_camera_behind_the_proxy_is_lost_when_half_open_and_comes_back(bench: Any) -> None:
    with bench.Server(bench.SIZES[1]) as server:
        target = server.uri.removeprefix("rtsp://").partition("/")[0]
        command = [sys.executable, "-m", "edge.fault_proxy", "--to", target]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as proxy:
            assert proxy.stdin is not None
            assert proxy.stdout is not None
            port = json.loads(proxy.stdout.readline())["listens"]
            with bench.Watched(f"rtsp://127.0.0.1:{port}/stream") as camera:
                camera.frame_after(time.monotonic())
                print("half-open", file=proxy.stdin, flush=True)
                lost_s = bench.wait_until(lambda: not camera.is_live)
                print("pass", file=proxy.stdin, flush=True)
                camera.frame_after(lost_s)
                assert camera.longest_gap_s(lost_s - 1.0) > 1.0
            print("quit", file=proxy.stdin, flush=True)
            proxy.stdout.read()
        assert proxy.returncode == 0
