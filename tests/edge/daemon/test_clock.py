"""The system's clock is set while the daemon runs: nothing restarts, and no age is wrong.

Debian's libfaketime moves the wall clock of a daemon and of its decoder, and leaves the monotonic one alone, as
setting a clock does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sightline

ROOT = Path(sightline.__file__).parent
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
CONFIG = """
build_plans = false
model = "cifar10-convnetjs"
[[cameras]]
name = "door"
source = "demo://?width=160&height=90&fps=20"
[[cameras]]
name = "yard"
source = "gst://videotestsrc is-live=true ! video/x-raw,width=160,height=90,framerate=20/1"
[sinks]
jsonl = "results.jsonl"
jsonl_max_bytes = 100_000_000
[sinks.events]
path = "events.sqlite"
"""
JUMPS = ("+3600", "-3600", "+315360000", "-315360000", "+0")
"""Seconds from the true time: one hour and ten years, both ways, and back."""


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY is None, reason="skipped the clock: Debian's package faketime is not installed")
def test_setting_the_clock_by_an_hour_or_ten_years_restarts_nothing_and_makes_no_age_wrong(
    tmp_path: Path,
) -> None:
    pytest.importorskip("skimage", reason="skipped the clock: the demo camera needs scikit-image")
    if subprocess.run(["/usr/bin/python3", "-c", "import gi"], capture_output=True).returncode:
        pytest.skip("skipped the clock: python3-gi is not installed")
    (tmp_path / "run.toml").write_text(CONFIG)
    (tmp_path / "offset").write_text("+0")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(LIBRARY), "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "offset"), "FAKETIME_NO_CACHE": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "sightline", "run", "run.toml"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: {result["camera"] for result in results(tmp_path)} == {"door", "yard"})
            decoders = children(process.pid)
            for jump in JUMPS:
                (tmp_path / "offset").write_text(jump)
                shown = subprocess.run(["date", "+%s"], env=environment, capture_output=True, text=True)
                assert abs(int(shown.stdout) - time.time() - int(jump)) < 60, "the clock was not set"
                seen = len(results(tmp_path))
                until(lambda seen=seen: len(results(tmp_path)) > seen + 20)
            assert process.poll() is None
            assert children(process.pid) == decoders, "a decoder was replaced"
        finally:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    check(results(tmp_path))


def check(found: list[dict[str, Any]]) -> None:
    """Ages are of the monotonic clock, and the cameras' frames went on."""
    for result in found:
        assert 0 <= result["age_ms"] < 60_000
        assert sum(result["stages_ms"].values()) == pytest.approx(result["age_ms"], abs=0.1)
    for name in ("door", "yard"):
        frames = [result["frame"] for result in found if result["camera"] == name]
        assert frames == sorted(set(frames)), "the camera began again"


def results(folder: Path) -> list[dict[str, Any]]:
    path = folder / "results.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.05)
