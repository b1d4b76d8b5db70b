"""What cameras do to pictures: each corruption against what it must do, and the figures of the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.corrupt import CORRUPTIONS, NOISE_SIGMA, corrupted
from train.data import LabelledImages

SIZE = 16


@pytest.fixture
def data() -> LabelledImages:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 180, (50, 4, 4, 3), np.uint8)
    images = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    return LabelledImages(images, np.arange(50) % 2, ("a", "b"), "made")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_changes_pixels_and_nothing_else(name: str, data: LabelledImages) -> None:
    result = corrupted(data, name)
    assert (result.images.shape, result.images.dtype) == (data.images.shape, np.uint8)
    assert (result.images != data.images).any(axis=(1, 2, 3)).all()
    assert np.array_equal(result.labels, data.labels)
    assert result.source == f"made, {name}"


def test_light_scales_and_saturates(data: LabelledImages) -> None:
    expected = np.minimum(np.rint(data.images * 1.4), 255)
    assert np.abs(corrupted(data, "bright").images - expected).max() <= 1
    assert np.abs(corrupted(data, "dark").images - data.images * 0.6).max() <= 1


def test_noise_has_the_stated_strength_and_comes_again_from_its_seed(data: LabelledImages) -> None:
    noisy = corrupted(data, "noise").images
    assert np.std(noisy.astype(float) - data.images) == pytest.approx(NOISE_SIGMA, rel=0.05)
    assert np.array_equal(noisy, corrupted(data, "noise").images)
    assert not np.array_equal(noisy, corrupted(data, "noise", seed=1).images)


def test_coarse_keeps_blocks_and_loses_a_checkerboard() -> None:
    board = np.indices((SIZE, SIZE)).sum(axis=0) % 2 * 200
    images = np.repeat(board[None, :, :, None], 3, axis=3).astype(np.uint8)
    result = corrupted(LabelledImages(images, np.array([0]), ("a",), "made"), "coarse").images
    assert np.ptp(result) == 0
    assert result[0, 0, 0, 0] == 100


def test_jpeg_keeps_the_colour_order(data: LabelledImages) -> None:
    red = np.tile(np.uint8([200, 20, 20]), (1, SIZE, SIZE, 1))
    result = corrupted(LabelledImages(red, np.array([0]), ("a",), "made"), "jpeg").images
    assert np.abs(result[0, 0, 0].astype(int) - [200, 20, 20]).max() < 6


def test_the_command_prints_and_writes_what_each_costs(command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    bundle = "cifar10-convnetjs"
    folder = picture_folder(tmp_path / "pictures")
    ended = command("evaluate", bundle, "--data", folder, "--corrupt", "--json", out)
    assert ended.code == 0, ended.err
    found = json.loads(out.read_text())
    assert set(found["corrupted"]) == set(CORRUPTIONS)
    for name, (words, _) in CORRUPTIONS.items():
        row = found["corrupted"][name]
        assert row["drop"] == pytest.approx(found["value"] - row["value"])
        assert f"{row['value']:6.2f} %  {0.0 - row['drop']:+6.2f} points  {words}" in ended.out


def picture_folder(folder: Path) -> Path:
    """A few images of noise in the folders of CIFAR-10's classes, as train and test alike."""
    import cv2

    from edge.bundle import Bundle

    rng = np.random.default_rng(0)
    for label in Bundle.open("cifar10-convnetjs").manifest.labels:
        (folder / label).mkdir(parents=True)
        for index in range(6):
            cv2.imwrite(str(folder / label / f"{index}.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))
    return folder


def test_a_detector_refuses(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("evaluate", "face-320", "--data", tmp_path, "--corrupt")
    assert ended.code == 2
    assert "--corrupt: for classifiers only; face-320 is a face detector" in ended.err
