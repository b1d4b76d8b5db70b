"""Networks of `keras.applications` at 224 pixels, as a user brings them: carried through every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from edge.bundle import Bundle
from train.architecture import architecture

NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_v2_b0", "resnet50")
SIZE = 224


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ by their tint: eight training and four test pictures of each.

    Blobs and noise, as the golden inputs are: on unlike ones a random network's outputs have no bounds.
    """
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label, tint in (("blue", (40, 0, -40)), ("red", (-40, 0, 40))):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                blobs = rng.integers(0, 256, (3 + index, 3 + index, 3)).astype(np.float32)
                soft = cv2.resize(blobs, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) + tint
                picture = np.clip(soft + rng.normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / split / label / f"{index}.png"), picture)
    return folder


def _network(name: str, pictures: Path) -> keras.Model:
    """A random network that tells the classes apart: normalised by the pictures' statistics, its head fitted.

    To the strongest features alone: the weak ones of a random network are as large as what rounding makes of them, and
    a head that needs them lies 60 steps from itself on other kernels of the same runtime.
    """
    keras.utils.set_random_seed(0)
    model = architecture(f"train.models.imagenet:{name}", SIZE, SIZE, 2)
    batch = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(pictures.glob("train/*/*.png"))])
    pixels = (batch.astype(np.float32) - 128) / 128
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(pixels, training=True)
    head = next(layer for layer in reversed(model.layers) if getattr(layer, "kernel", None) is not None)
    features = np.asarray(keras.Model(model.input, head.input)(pixels)).reshape(len(pixels), -1)
    targets = np.repeat([[4.0, -4.0], [-4.0, 4.0]], len(pixels) // 2, axis=0)
    kernel = np.linalg.lstsq(features, targets, rcond=0.4)[0]
    head.set_weights([kernel.reshape(head.kernel.shape), np.zeros(2)])
    return model


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_keras_goes_through_every_format(
    name: str, pictures: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    path, out = tmp_path / f"{name}.keras", tmp_path / "bundle"
    _network(name, pictures).save(path)
    ended = command("export", path, "--out", out, "--data", pictures, "--max-drop", 100)
    assert ended.code == 0, ended.err
    bundle = Bundle.open(out)
    bundle.verify()
    artefacts = {(a.format, a.precision): a for a in bundle.manifest.artefacts}
    refused = {(a.format, a.precision): a.reason for a in bundle.manifest.absent if a.format != "tensorrt"}
    assert refused == {}
    assert len(artefacts) == 6
    for format in ("tflite", "onnx"):
        assert artefacts[format, "fp32"].metrics.agreement == 100
        assert artefacts[format, "int8"].size_bytes < 0.35 * artefacts[format, "fp32"].size_bytes
