"""The CPU runners and the choice among backends."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, SHIPPED, Bundle, OutputSpec
from edge.errors import BundleError, InputError, MissingPackageError
from edge.model import Model
from edge.runners import choose, open_runner


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(DEFAULT_BUNDLE)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (("auto", "auto"), ("tflite", "int8")),
        (("auto", "fp16"), ("onnx", "fp16")),
        (("onnx", "auto"), ("onnx", "int8")),
    ],
)
def test_auto_takes_the_fastest_that_the_bundle_holds(bundle: Bundle, asked: Any, got: Any) -> None:
    assert choose(bundle, *asked) == got


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [
        ("tflite", "ai_edge_litert.interpreter", "pip install ai-edge-litert"),
        ("onnx", "onnxruntime", r"'\.\[onnx\]'"),
    ],
)
def test_a_backend_that_is_not_installed_names_what_brings_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, backend: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(MissingPackageError, match=extra):
        open_runner(bundle, backend, "int8")


@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_a_file_with_fewer_heads_than_the_manifest_is_refused(bundle: Bundle, backend: str) -> None:
    heads = (*bundle.manifest.outputs, OutputSpec(name="embedding", shape=(1, 8), role="embedding"))
    more = Bundle(bundle.folder, bundle.manifest.model_copy(update={"outputs": heads}))
    with pytest.raises(BundleError, match=r"names the outputs logits, embedding; the .* has"):
        open_runner(more, backend, "int8")


@pytest.mark.parametrize(("backend", "precision"), [("tflite", "int8"), ("onnx", "int8"), ("onnx", "fp16")])
def test_a_file_that_is_no_model_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, backend: str, precision: Any
) -> None:
    monkeypatch.setattr(Bundle, "content", lambda *_: b"TFL3 is how such a file begins, and then nothing")
    with pytest.raises(InputError, match=f"cannot load the {precision} artefact"):
        open_runner(bundle, backend, precision)


def test_two_threads_of_one_runner_compute_the_same(bundle: Bundle) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    one, two = (open_runner(bundle, "tflite", "int8", threads).infer(pixels) for threads in (1, 2))
    np.testing.assert_array_equal(one["logits"], two["logits"])


def test_scores_are_probabilities_in_the_order_of_the_labels(bundle: Bundle) -> None:
    model = Model.open(bundle)
    result = model.predict(np.random.default_rng(0).integers(0, 256, (72, 128, 3), dtype=np.uint8))
    assert result.scores.shape == (10,)
    assert result.scores.sum() == pytest.approx(1, abs=1e-5)
    assert result.label == bundle.manifest.labels[int(result.scores.argmax())]
    model.close()


def test_huge_logits_do_not_overflow(bundle: Bundle) -> None:
    from edge.tasks.classification import ClassificationTask

    logits = np.array([[1e4, -1e4, *[0.0] * 8]], np.float32)
    result = ClassificationTask(bundle.manifest).decode({"logits": logits}, np.empty((0, 0, 3), np.uint8))
    assert result.scores.tolist() == [1.0] + [0.0] * 9


def test_a_plan_built_ahead_of_time_does_not_take_auto_to_tensorrt(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED / DEFAULT_BUNDLE, tmp_path / "bundle"))
    (folder / "plans").mkdir()
    (folder / "plans" / "model.int8.0123456789abcdef.plan").write_bytes(b"built on another machine")
    assert choose(Bundle.open(folder)) == ("tflite", "int8")
