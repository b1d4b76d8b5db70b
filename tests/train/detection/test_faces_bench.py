"""The side-by-side measurement: what it skips, and that the peers' outputs are read as they mean them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


def bench(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATA", "PEERS")}
    command = [sys.executable, str(ROOT / "bench/faces.py")]
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment)


def test_without_data_or_peers_it_is_skipped(tmp_path: Path) -> None:
    done = bench()
    assert (done.returncode, done.stderr) == (0, "")
    assert "skipped: give --data DIR and --peers DIR" in done.stdout
    done = bench(DATA=str(tmp_path), PEERS=str(tmp_path))
    assert done.returncode == 0
    assert "annotations.json" in done.stdout
    assert "version-RFB-320.onnx" in done.stdout


class FakeYuNet:
    """Heads of a picture of 64x32 in which one cell sees a face: row 2, column 3 of the level of stride 8."""

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name=f"{head}_{s}") for s in (8, 16, 32) for head in ("cls", "obj", "bbox")]

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert feeds["input"].shape == (1, 3, 32, 64)
        assert feeds["input"][0, :, 0, 0].tolist() == [3.0, 2.0, 1.0]  # blue, green, red
        assert not feeds["input"][0, :, 20:].any()  # padded below
        outputs = []
        for stride in (8, 16, 32):
            cells = (32 // stride) * (64 // stride)
            outputs += [np.zeros((1, cells, depth), np.float32) for depth in (1, 1, 4)]
        outputs[0][0, 2 * 8 + 3], outputs[1][0, 2 * 8 + 3] = 0.9, 0.5
        outputs[2][0, 2 * 8 + 3] = [0.5, -0.25, np.log(2), 0.0]
        return outputs


def test_yunet_is_decoded_by_its_own_rules() -> None:
    """Centre (3 + 0.5, 2 - 0.25) * 8 = (28, 14), size 16x8, score 0.9 * 0.5; the picture is twice as large."""
    from peers.faces import YuNet

    picture = np.tile(np.array([1, 2, 3], np.uint8), (40, 128, 1))
    found = YuNet(FakeYuNet(), 64).detect(picture)
    assert found.scores == pytest.approx([0.45])
    assert found.boxes.tolist() == [pytest.approx([40, 20, 72, 36])]


def test_rfb_boxes_are_parts_of_the_sides() -> None:
    from peers.faces import Rfb320

    class Fake:
        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert feeds["input"].shape == (1, 3, 240, 320)
            return [
                np.array([[[0.2, 0.8], [0.99, 0.01]]], np.float32),
                np.array([[[0.5, 0.25, 0.75, 1.1], [0, 0, 1, 1]]], np.float32),
            ]

    found = Rfb320(Fake()).detect(np.zeros((100, 200, 3), np.uint8))
    assert found.scores == pytest.approx([0.8])
    assert found.boxes.tolist() == [pytest.approx([100, 25, 150, 100])]
