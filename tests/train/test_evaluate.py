"""Top-1, its interval, and the command `evaluate` on Keras models and on bundles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.bundle import InputSpec
from edge.files import sha256
from train.card import Card, card_path, write_card
from train.data import load
from train.evaluate import Top1

LABELS = tuple("0123456789")
SIZE = 8


def test_wilson_known_answers() -> None:
    """Agresti and Coull 1998's form of Wilson's interval, worked by hand for 8 and for 0 of 10."""
    assert Top1(8, 10).ci95 == pytest.approx((49.02, 94.33), abs=0.005)
    assert Top1(0, 10).ci95 == pytest.approx((0.0, 27.75), abs=0.005)
    assert Top1(10, 10).ci95 == pytest.approx((72.25, 100.0), abs=0.005)


@given(st.integers(1, 10**6), st.data())
def test_wilson_bounds_solve_their_equation(n: int, data: st.DataObject) -> None:
    """Each bound p0 is where |p - p0| is 1.96 standard errors of p0 itself: Wilson's definition."""
    top1 = Top1(data.draw(st.integers(0, n)), n)
    p = top1.right / n
    for bound in top1.ci95:
        p0 = bound / 100
        assert abs(p - p0) == pytest.approx(1.959964 * (p0 * (1 - p0) / n) ** 0.5, rel=1e-4, abs=1e-6)
    low, high = top1.ci95
    assert 0 <= low <= top1.per_cent + 1e-9
    assert top1.per_cent - 1e-9 <= high <= 100


@pytest.fixture(scope="module")
def linear() -> NDArray[np.float32]:
    """The best linear map from digits' pixels / 255, and a one, to their classes: float32 (193, 10)."""
    data = load("digits", "train", SIZE, SIZE)
    pixels = np.c_[data.images.reshape(len(data), -1) / 255.0, np.ones(len(data))]
    return np.linalg.lstsq(pixels, np.eye(10)[data.labels], rcond=1e-6)[0].astype(np.float32)


@pytest.fixture(scope="module")
def expected_right(linear: NDArray[np.float32]) -> NDArray[np.bool_]:
    data = load("digits", "test", SIZE, SIZE)
    answers = data.images.reshape(len(data), -1) / np.float32(255) @ linear[:-1] + linear[-1]
    right: NDArray[np.bool_] = answers.argmax(axis=1) == data.labels
    assert 0.85 < right.mean() < 0.99  # Neither all right nor by chance, so that a mistake would show.
    return right


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, linear: NDArray[np.float32]) -> Path:
    """The linear map as an ONNX bundle with uint8 NHWC input."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("bundle")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, (1, SIZE, SIZE, 3))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 10))],
        [
            numpy_helper.from_array(linear[:-1] / np.float32(255), "weights"),
            numpy_helper.from_array(linear[-1], "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.fp32.onnx")
    np.savez(folder / "golden.npz", inputs=np.zeros((1, SIZE, SIZE, 3), np.uint8))
    manifest = {
        "schema_version": 1,
        "name": "digits-linear",
        "task": "classification",
        "sightline": "0.1.0",
        "input": {"height": SIZE, "width": SIZE, "resize": "crop"},
        "outputs": [{"name": "logits", "shape": [1, 10], "role": "logits"}],
        "labels": LABELS,
        "artefacts": [
            {
                "format": "onnx",
                "precision": "fp32",
                "file": "model.fp32.onnx",
                "sha256": sha256(folder / "model.fp32.onnx"),
                "size_bytes": (folder / "model.fp32.onnx").stat().st_size,
            }
        ],
        "golden": {"file": "golden.npz", "sha256": sha256(folder / "golden.npz"), "step": {"logits": 0.1}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def keras_model(tmp_path_factory: pytest.TempPathFactory, linear: NDArray[np.float32]) -> Path:
    """The same map as a Keras model, whose input is (x - 128) / 128."""
    path = tmp_path_factory.mktemp("keras") / "linear.keras"
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    weights = linear[:-1] * (128 / 255)
    model.set_weights([weights, linear[-1] + weights.sum(axis=0)])
    model.save(path)
    card = {"name": "linear", "labels": LABELS, "input": {"height": SIZE, "width": SIZE, "resize": "crop"}}
    card_path(path).write_text(json.dumps(card))
    return path


@pytest.mark.parametrize(("kind", "backend"), [("bundle", "onnx"), ("keras_model", "keras")])
def test_the_command_counts_as_numpy_does(
    kind: str,
    backend: str,
    request: pytest.FixtureRequest,
    command: Callable[..., Any],
    tmp_path: Path,
    expected_right: NDArray[np.bool_],
) -> None:
    path = request.getfixturevalue(kind)
    ended = command(
        "evaluate", path, "--data", "digits", "--json", tmp_path / "result.json", "--backend", backend
    )
    assert ended.code == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["value"] == pytest.approx(100 * expected_right.mean())
    assert result["ci95"] == pytest.approx(list(Top1(int(expected_right.sum()), 360).ci95))
    assert [result[key] for key in ("metric", "n", "backend", "precision", "data")] == [
        "top1", 360, backend, "fp32", "digits/test",
    ]  # fmt: skip
    assert f"{result['value']:.2f} %" in ended.out
    assert "of 360 images" in ended.out


def test_limit_and_split(bundle: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    options = ("--split", "train", "--limit", "50", "--json", path)
    assert command("evaluate", bundle, "--data", "digits", *options).code == 0
    assert json.loads(path.read_text())["n"] == 50
    assert json.loads(path.read_text())["data"] == "digits/train 50 of 1437"


def test_a_bundle_is_evaluated_without_tensorflow(bundle: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'onnx')))\n"
        f"sys.argv = ['sightline', 'evaluate', {str(bundle)!r}, '--data', 'digits']\n"
        "import sightline; sightline.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "onnx fp32" in done.stdout


def test_other_classes_are_refused(bundle: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    import cv2

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / "1.png"), np.zeros((9, 9, 3), np.uint8))
    ended = command("evaluate", bundle, "--data", tmp_path)
    assert ended.code == 2
    assert "has 2 classes, digits-linear has 10: cat, dog against 0, 1, 2, …" in ended.err


def test_as_many_classes_of_other_names_are_refused(
    keras_model: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    other = tmp_path / "linear.keras"
    other.write_bytes(keras_model.read_bytes())
    card = json.loads(card_path(keras_model).read_text())
    card["labels"][3] = "drei"
    card_path(other).write_text(json.dumps(card))
    ended = command("evaluate", other, "--data", "digits")
    assert ended.code == 2
    assert "disagree on class 3: '3' against 'drei'" in ended.err


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("bundle", ("--backend", "tpu"), "Unknown backend 'tpu'"),
        ("bundle", ("--precision", "int4"), "Unknown precision 'int4'"),
        ("bundle", ("--precision", "int8"), "holds no"),
        ("bundle", ("--backend", "tflite"), "holds no tflite"),
        ("keras_model", ("--backend", "onnx"), "runs on the backend keras in fp32"),
        ("keras_model", ("--precision", "int8"), "runs on the backend keras in fp32"),
        ("bundle", ("--split", "validation"), "validation"),
        ("bundle", ("--limit", "0"), "limit"),
        ("bundle", ("--json", "/proc/nowhere/x.json"), "Cannot write"),
    ],
)
def test_wrong_options_end_with_2(
    kind: str,
    options: tuple[str, ...],
    words: str,
    request: pytest.FixtureRequest,
    command: Callable[..., Any],
) -> None:
    ended = command("evaluate", request.getfixturevalue(kind), "--data", "digits", *options)
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("takes", "end", "words"),
    [
        ((SIZE, SIZE, 3), (keras.layers.Dense(4),), "gives (4,); its card names 10 classes"),
        ((SIZE, SIZE, 3), (), "gives (192,); its card names 10 classes"),
        ((16, 16, 3), (keras.layers.Dense(10),), "takes (16, 16, 3); its card says pictures of (8, 8, 3)"),
        ((SIZE, SIZE, 1), (keras.layers.Dense(10),), "takes (8, 8, 1); its card says pictures of (8, 8, 3)"),
    ],
)
def test_a_model_that_is_not_what_its_card_says_is_refused(
    takes: tuple[int, ...], end: tuple[Any, ...], words: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.keras"
    keras.Sequential([keras.Input(takes), keras.layers.Flatten(), *end]).save(path)
    spec = InputSpec(height=SIZE, width=SIZE, resize="crop")
    write_card(Card(name="mine", labels=LABELS, input=spec), path)
    for name in ("evaluate", "ensemble"):
        ended = command(name, path, *([path] if name == "ensemble" else []), "--data", "digits")
        assert (ended.code, words in ended.err) == (2, True), ended.err


@pytest.mark.parametrize("missing", ["nowhere", "nowhere.keras"])
def test_a_missing_model_ends_with_2(missing: str, command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("evaluate", tmp_path / missing, "--data", "digits")
    assert ended.code == 2
    assert missing in ended.err
