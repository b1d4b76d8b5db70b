"""`sightline evaluate` on face detectors: a Keras model and a bundle that find white squares."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from edge.bundle import InputSpec
from edge.errors import InputError
from train.detection.data import load_boxed
from train.detection.evaluate import keras_detections, resized
from train.weights import load_keras

Coco = Callable[..., Path]
ROWS: list[dict[str, Any]] = [
    {"faces": [[8, 16, 8, 8], [40, 40, 8, 8]], "source": "a"},
    {"faces": [[0, 0, 8, 8]], "source": "b"},
    {"faces": [], "source": "b"},
]
"""Faces on the detector's cells: it finds them all, exactly."""


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in ROWS]


@pytest.mark.parametrize(("kind", "backend"), [("keras_detector", "keras"), ("detector_bundle", "onnx")])
def test_a_perfect_detector(
    kind: str,
    backend: str,
    coco: Coco,
    command: Callable[..., Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    path, plot = tmp_path / "result.json", tmp_path / "curve.png"
    model = request.getfixturevalue(kind)
    ended = command("evaluate", model, "--data", coco(rows()), "--json", path, "--plot", plot)
    assert ended.code == 0, ended.err
    result = json.loads(path.read_text())
    wanted = {
        "model": "squares", "data": "coco/test", "metric": "ap50", "value": 1.0, "n": 3, "faces": 3,
        "backend": backend, "precision": "fp32", "ci95": [1.0, 1.0], "ap50_coco": 1.0, "ap50_95": 1.0,
        "recall_at_one": 1.0, "input": [64, 64], "score_floor": 0.02, "notes": [],
    }  # fmt: skip
    assert {key: result[key] for key in wanted} == wanted
    assert {name: part["faces"] for name, part in result["by_source"].items()} == {"a": 2, "b": 1}
    assert {name: part["ap50"] for name, part in result["by_size"].items()} == {
        "small": 1.0, "medium": None, "large": None,
    }  # fmt: skip
    assert "squares" in ended.out
    assert cv2.imread(str(plot)).shape[1] > 600


def test_a_missed_face_a_false_one_and_notes(
    coco: Coco, command: Callable[..., Any], detector_bundle: Path, tmp_path: Path
) -> None:
    """Found: two of three faces, and one white cell that is no face, with the same score as all."""
    folder = coco([{"faces": [[8, 8, 8, 8], [40, 40, 3, 3]]}, {"faces": [[0, 0, 8, 8], [60, 60, 9, 9]]}, {}])
    false = np.zeros((64, 64, 3), np.uint8)
    false[24:32, 24:32] = 255
    cv2.imwrite(str(folder / "images/3.png"), false)
    ended = command("evaluate", detector_bundle, "--data", folder, "--json", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert ended.code == 0
    assert (result["n"], result["faces"]) == (3, 4)
    assert result["value"] == pytest.approx(2 / 4 * 3 / 4)
    assert result["ap50_coco"] == pytest.approx(51 / 101 * 3 / 4)
    assert result["recall_at_one"] == 0.5
    assert result["notes"] == ["boxes cut at the picture's edge: 1"]
    assert "boxes cut at the picture's edge: 1" in ended.out


def test_without_a_face_to_plot_no_file_is_written_and_that_is_told(
    coco: Coco, command: Callable[..., Any], detector_bundle: Path, tmp_path: Path
) -> None:
    ended = command(
        "evaluate", detector_bundle, "--data", coco([{"faces": []}]), "--plot", tmp_path / "curve.png"
    )
    assert ended.code == 0, ended.err
    assert "curve.png is not written: no face counts, or none was found." in ended.out
    assert not (tmp_path / "curve.png").exists()


def test_heads_in_a_dictionary_are_read_by_their_names(coco: Coco, keras_detector: Path) -> None:
    """Whatever order they come in; such a model is exported too."""
    listed = load_keras(keras_detector)
    named = dict(zip(listed.output_names, listed.outputs, strict=True))
    model = keras.Model(listed.input, dict(reversed(named.items())))
    images, spec = load_boxed(coco(rows()), "test"), InputSpec(height=64, width=64, resize="letterbox")
    wanted = keras_detections(listed, images, spec)
    assert sum(len(faces.boxes) for faces in wanted) == 3
    for faces, expected in zip(keras_detections(model, images, spec), wanted, strict=True):
        np.testing.assert_array_equal(faces.boxes, expected.boxes)


def test_limit_takes_pictures_spread_over_the_split(
    coco: Coco, command: Callable[..., Any], detector_bundle: Path, tmp_path: Path
) -> None:
    options = ("--limit", 2, "--json", tmp_path / "r.json")
    assert command("evaluate", detector_bundle, "--data", coco(rows()), *options).code == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["n"], result["faces"], result["data"]) == (2, 2, "coco/test 2 of 3")


def test_another_input_size(
    coco: Coco, command: Callable[..., Any], keras_detector: Path, tmp_path: Path
) -> None:
    """At 128x128 each face of 8 pixels is 16: four white cells, of which none overlaps it by half."""
    folder = coco(rows())
    options = ("--size", "128", "--json", tmp_path / "r.json")
    assert command("evaluate", keras_detector, "--data", folder, *options).code == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["input"], result["value"]) == ([128, 128], 0.0)
    assert result["by_size"]["medium"]["faces"] == 3
    model = resized(load_keras(keras_detector), 32, 96)
    assert model.input_shape == (None, 32, 96, 3)
    assert model.get_layer("score_8").get_weights()[1] == pytest.approx(0.0)
    spec = InputSpec(height=32, width=96, resize="letterbox")
    assert len(keras_detections(model, load_boxed(folder, "test"), spec)) == 3


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "keras_detector",
            ("--size", "big"),
            "--size is WIDTHxHEIGHT in pixels, as 320x192, or one number; got 'big'",
        ),
        ("keras_detector", ("--size", "100x64"), "100x64 is no multiple of 32 pixels"),
        ("detector_bundle", ("--size", "128x128"), "is bound to 64x64"),
        ("detector_bundle", ("--plot", "curve.bmp"), "ends in .png, .svg, .pdf"),
        ("detector_bundle", ("--plot", "/proc/nowhere/x.png"), "Cannot write"),
        ("detector_bundle", ("--split", "val"), "no images of the split 'val'; it has: test 3"),
        ("detector_bundle", ("--backend", "tflite"), "holds no tflite"),
        ("keras_detector", ("--precision", "int8"), "runs on the backend keras in fp32"),
    ],
)
def test_wrong_options_end_with_2(
    kind: str,
    options: tuple[str, ...],
    words: str,
    coco: Coco,
    command: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> None:
    ended = command("evaluate", request.getfixturevalue(kind), "--data", coco(rows()), *options)
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_a_bad_data_set_ends_with_2(coco: Coco, command: Callable[..., Any], detector_bundle: Path) -> None:
    folder = coco(rows())
    (folder / "images/2.png").write_bytes(b"no picture")
    ended = command("evaluate", detector_bundle, "--data", folder)
    assert (ended.code, "2.png is not an image" in ended.err) == (2, True)
    (folder / "images/2.png").unlink()
    ended = command("evaluate", detector_bundle, "--data", folder)
    assert (ended.code, "2.png, but" in ended.err) == (2, True)
    ended = command("evaluate", detector_bundle, "--data", folder / "images")
    assert (ended.code, "No annotations at" in ended.err) == (2, True)


def test_options_of_detectors_are_refused_for_classifiers(command: Callable[..., Any]) -> None:
    options = ("--data", "digits", "--size", "64x64", "--plot", "x.png")
    ended = command("evaluate", "cifar10-convnetjs", *options)
    assert ended.code == 2
    assert "--size and --plot: for face detectors only; cifar10-convnetjs is a classifier" in ended.err


def test_other_heads_are_refused(coco: Coco) -> None:
    import keras

    pixels = keras.Input((64, 64, 3))
    model = keras.Model(pixels, keras.layers.Conv2D(1, 8, 8, name="score_8")(pixels))
    spec = InputSpec(height=64, width=64, resize="letterbox")
    with pytest.raises(InputError, match="is no face detector: expected the heads score_8, box_8"):
        keras_detections(model, load_boxed(coco(rows()), "test"), spec)


def test_a_bundle_is_evaluated_without_tensorflow(coco: Coco, detector_bundle: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'onnx', 'matplotlib')))\n"
        f"sys.argv = ['sightline', 'evaluate', {str(detector_bundle)!r}, '--data', {str(coco(rows()))!r}]\n"
        "import sightline; sightline.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "onnx fp32" in done.stdout
