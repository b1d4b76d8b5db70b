"""One small real model, trained once, and the bundle made of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sightline


def _sightline(*args: object) -> int:
    """Run the command in this process; its exit code."""
    before, sys.argv = sys.argv, ["sightline", *map(str, args)]
    try:
        sightline.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="session")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5 on the digits, a few epochs: its `.keras` file with the card beside it."""
    out = tmp_path_factory.mktemp("models")
    assert _sightline("train", "lenet_digits", "epochs=6", "--out", out) == 0
    return out / "lenet-digits.keras"


@pytest.fixture(scope="session")
def lenet_bundle(lenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete bundle of `lenet`, all six artefacts; treat as read-only."""
    out = tmp_path_factory.mktemp("bundles") / "lenet"
    assert _sightline("export", lenet, "--out", out, "--data", "digits", "--max-drop", "2") == 0
    return out
