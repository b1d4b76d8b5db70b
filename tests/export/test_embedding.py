"""A bundle's second head: what its last layer sees, with golden vectors that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.enroll import embeddings
from edge.errors import InputError
from edge.golden import check
from edge.model import Model
from export.embedding import with_embedding


def test_the_shipped_classifier_gets_an_embedding_and_keeps_its_logits(tmp_path: Path) -> None:
    before = Bundle.open("cifar10-convnetjs")
    made = with_embedding(before, tmp_path / "cifar10-embedding")
    made.verify()
    assert made.manifest.name == "cifar10-embedding"
    assert [output.role for output in made.manifest.outputs] == ["logits", "embedding"]
    assert made.manifest.outputs[1].shape == (1, 320)
    assert {(absent.format, absent.precision) for absent in made.manifest.absent} >= {("tflite", "int8")}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    for precision in ("int8", "fp16"):
        check(made, "onnx", precision)
        old, new = (Model.open(bundle, "onnx", precision) for bundle in (before, made))
        np.testing.assert_array_equal(old.infer(pixels)["logits"], new.infer(pixels)["logits"])
        assert new.infer(pixels)["embedding"].dtype == np.float32
        assert embeddings(new, [pixels[0]]).shape == (1, 330)
        assert embeddings(old, [pixels[0]]).shape == (1, 10)


def test_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a classifier with ONNX artefacts"):
        with_embedding(Bundle.open("face-320"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
