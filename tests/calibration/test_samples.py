"""The pictures that calibration watches."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.samples import every_nth, read_samples
from edge.bundle import InputSpec
from train.detection.data import load_boxed

LETTERBOX = InputSpec(height=32, width=64, resize="letterbox")


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """Ten training pictures of 40x40, each of one grey value, and one test picture."""
    (tmp_path / "images").mkdir()
    rows = []
    for index in range(11):
        name = f"{index}.png"
        cv2.imwrite(str(tmp_path / "images" / name), np.full((40, 40, 3), 10 * index, np.uint8))
        split = "test" if index == 10 else "train"
        rows.append({"id": index, "file_name": name, "width": 40, "height": 40, "split": split})
    (tmp_path / "annotations.json").write_text(json.dumps({"images": rows, "annotations": []}))
    return tmp_path


def test_boxed_pictures_are_letterboxed_and_evenly_spaced(boxed: Path) -> None:
    samples = read_samples(str(boxed), LETTERBOX, 4)
    assert samples.images.shape == (4, 32, 64, 3)
    assert samples.images[:, 16, 32, 0].tolist() == [0, 30, 60, 90]
    assert (samples.images[:, :, :16] == 128).all()
    assert samples.source.endswith("/train, 4 evenly spaced")


def test_there_are_no_more_pictures_than_there_are(boxed: Path) -> None:
    train = load_boxed(boxed, "train")
    assert every_nth(train, 10) is train
    assert len(read_samples(str(boxed), LETTERBOX, 500).images) == 10


def test_labelled_images_are_chosen_by_class() -> None:
    samples = read_samples("digits", InputSpec(height=32, width=32, resize="crop"), 50)
    assert samples.images.shape == (50, 32, 32, 3)
    assert samples.source.endswith(", 50 by class")
