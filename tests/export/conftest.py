"""One small real model, trained once, and the bundle made of it; a tiny detector, untrained, and its bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
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


@pytest.fixture(scope="session")
def boxed_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of drawn faces: pale ellipses on noise, 12 training and 8 test pictures of two shapes."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "images").mkdir()
    rng, rows, boxes = np.random.default_rng(0), [], []
    for index in range(20):
        height, width = [(90, 120), (140, 70)][index % 2]
        picture = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        for _ in range(index % 4):
            x, y = int(rng.integers(20, width - 20)), int(rng.integers(25, height - 25))
            cv2.ellipse(picture, (x, y), (14, 20), 0, 0, 360, (150, 190, 230), -1)
            boxes.append({"id": len(boxes), "image_id": index, "bbox": [x - 14, y - 20, 28, 40]})
        split = "train" if index < 12 else "test"
        row = {"id": index, "file_name": f"{index}.png", "width": width, "height": height, "split": split}
        rows.append(row)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
    (folder / "annotations.json").write_text(json.dumps({"images": rows, "annotations": boxes}))
    return folder


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector that takes pictures of any size, its statistics and weights away from their start."""
    import keras

    from train.models.face import Widths, _detector

    keras.utils.set_random_seed(0)
    model = _detector(None, None, Widths(stem=(4, 8), stage=8, pairs=(1, 1, 1), inner=(8, 8, 8)))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.endswith("bias"):
            weight.assign(rng.normal(0, 0.5, weight.shape))
        elif "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    path = tmp_path_factory.mktemp("detector") / "tiny.keras"
    model.save(path)
    card = {"name": "tiny", "task": "faces", "labels": ["face"]}
    spec = {"height": 64, "width": 64, "resize": "letterbox"}
    path.with_suffix(".card.json").write_text(json.dumps({**card, "input": spec}))
    return path


@pytest.fixture(scope="session")
def detector_bundle(detector: Path, boxed_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete bundle of `detector` at 96x64; treat as read-only."""
    out = tmp_path_factory.mktemp("bundles") / "tiny-96x64"
    args = ("--out", out, "--data", boxed_pictures, "--size", "96x64", "--max-drop", "100")
    # The ranges that the bounds of the tests were seen with; the default is tested by itself.
    assert _sightline("export", detector, *args, "--ranges", "percentile:99.99") == 0
    return out
