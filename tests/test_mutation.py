"""The mutation check of the TensorRT path, as a test; see `tests/mutation.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("target", "tests"),
    [
        ("export/tensorrt.py", ("tests/export/test_tensorrt.py",)),
        (
            "edge/runners/tensorrt.py",
            ("tests/edge/test_tensorrt_runner.py", "tests/edge/profiling/test_layers_tensorrt.py"),
        ),
    ],
)
def test_every_deleted_or_swapped_call_is_noticed(target: str, tests: tuple[str, ...]) -> None:
    run = [sys.executable, "tests/mutation.py", target, *tests]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
