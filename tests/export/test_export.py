"""`sightline export`, from the file to the bundle, and what it refuses."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.bundle import Bundle, InputSpec
from export.classification import Classification
from export.pack import SHIPPED, ship
from export.parity import compare, paired_interval
from export.proof import Share
from train.card import Card

Command = Callable[..., Any]


def test_the_bundle_is_complete_and_measured(lenet_bundle: Path) -> None:
    bundle = Bundle.open(lenet_bundle)
    bundle.verify()
    assert len(bundle.manifest.artefacts) == 6
    for artefact in bundle.manifest.artefacts:
        metrics = artefact.metrics
        assert metrics is not None
        assert metrics.n == 360
        assert metrics.drop == pytest.approx(metrics.reference - metrics.value)
        assert metrics.drop_ci95[0] <= metrics.drop <= metrics.drop_ci95[1]
        assert metrics.agreement > 97
    assert {path.name for path in lenet_bundle.iterdir()} == {
        "manifest.json",
        "golden.npz",
        "report.html",
        *(artefact.file for artefact in bundle.manifest.artefacts),
    }


def test_the_float_files_are_exact_and_the_int8_ones_small(lenet_bundle: Path) -> None:
    artefacts = {(a.format, a.precision): a for a in Bundle.open(lenet_bundle).manifest.artefacts}
    for format in ("tflite", "onnx"):
        exact, small = artefacts[format, "fp32"], artefacts[format, "int8"]
        assert exact.metrics.max_error < 1e-4
        assert exact.metrics.agreement == 100
        assert small.size_bytes < 0.35 * exact.size_bytes


def test_the_report_is_whole_and_loads_nothing_from_outside(lenet_bundle: Path) -> None:
    text = (lenet_bundle / "report.html").read_text(encoding="utf-8")
    opened: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert not {name for name, _ in attrs} & {"src", "href"}
            if tag != "meta":
                opened.append(tag)

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balanced().feed(text)
    assert not opened
    for artefact in Bundle.open(lenet_bundle).manifest.artefacts:
        assert artefact.sha256 in text
        assert f"{artefact.metrics.value:.2f} %" in text  # type: ignore[union-attr]


def test_a_shipped_bundle_carries_what_devices_run(lenet_bundle: Path, tmp_path: Path) -> None:
    small = ship(Bundle.open(lenet_bundle), tmp_path / "small")
    small.verify()
    assert {(a.format, a.precision) for a in small.manifest.artefacts} == set(SHIPPED)
    assert len(small.manifest.absent) == 3
    assert "not shipped" in small.manifest.absent[0].reason


def test_a_shipped_bundle_carries_the_record_of_its_repair(lenet_bundle: Path, tmp_path: Path) -> None:
    repaired = shutil.copytree(lenet_bundle, tmp_path / "repaired")
    for name in ("repairs.json", "plan.json"):
        (repaired / name).write_text(f"of {name}")
    small = ship(Bundle.open(repaired), tmp_path / "small").folder
    for name in ("repairs.json", "plan.json"):
        assert (small / name).read_text() == f"of {name}"


def test_an_artefact_that_loses_too_much_is_left_out(lenet: Path, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    args = (
        "--max-drop",
        "-0.5",
        "--no-repair",
        "--formats",
        "tflite",
        "--precisions",
        "int8,fp32",
        "--limit",
        "100",
    )
    ended = command("export", lenet, "--out", out, "--data", "digits", *args)
    assert ended.code == 1
    assert "failed its gate" in ended.err
    assert not list(out.glob("*.tflite"))
    assert {a.precision for a in Bundle.open(out).manifest.absent} == {"int8", "fp32"}
    assert "failed its gate" in (out / "report.html").read_text(encoding="utf-8")


def _pictures(folder: Path, names: tuple[str, ...]) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        for index in range(12):
            path = folder / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    return folder


def test_only_the_pictures_that_are_taken_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of ImageNet's size does not fit into the memory."""
    data, read = _pictures(tmp_path, ("cat", "dog")), []

    def seen(path: Path) -> np.ndarray:
        read.append(path)
        return np.zeros((20, 30, 3), np.uint8)

    monkeypatch.setattr("train.data.read_image", seen)
    monkeypatch.setattr("calibration.samples.HELD_OUT", 1)
    monkeypatch.setattr("export.classification.SHOWN", 2)
    monkeypatch.setattr("export.classification.JUDGED", 3)
    card = Card(name="pets", labels=("cat", "dog"), input=InputSpec(height=8, width=8, resize="crop"))
    proof = Classification.load(str(data), card, Share(samples=4, limit=1))
    assert len(read) == 4 + 1 + 2 + 3 + len(proof)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--formats", "tflite,coreml"), "Unknown format 'coreml'; there are tflite, onnx, tensorrt"),
        (("--precisions", "int4"), "Unknown precision 'int4'; there are fp32, fp16, int8"),
        (("--formats", "tensorrt"), "--formats onnx,tensorrt"),
        (("--ranges", "median"), "Unknown range method 'median'"),
    ],
)
def test_a_wrong_choice_is_refused(
    lenet: Path, command: Command, tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    ended = command("export", lenet, "--out", tmp_path / "b", "--data", "digits", *args)
    assert ended.code == 2
    assert said in ended.err
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_no_bundle_is_left_alone(
    lenet: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, bundle = tmp_path / "models", tmp_path / "bundle"
    for folder in (models, bundle):
        folder.mkdir()
        shutil.copy(lenet, folder / "my.keras")
    (bundle / "manifest.json").touch()
    for model, option, folder, said in (
        (lenet, "--out", models, "holds other files and no bundle"),
        (lenet, "--shipped", models, "holds other files and no bundle"),
        (bundle / "my.keras", "--out", bundle, "lies in"),
        (lenet, "--out", ".", "no name of its own"),
    ):
        out = () if option == "--out" else ("--out", tmp_path / "b")
        ended = command("export", model, *out, option, folder, "--data", "digits")
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err
    assert [path.name for path in models.iterdir()] == ["my.keras"]
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "volume")
    (tmp_path / "volume").mkdir()
    ended = command("export", lenet, "--out", tmp_path / "volume", "--data", "digits")
    assert ended.code == 2
    assert "is a mount point" in ended.err


@pytest.mark.parametrize(
    ("shape", "dtype", "units", "said"),
    [
        ((16, 16, 3), "uint8", 10, "takes uint8; expected float32"),
        ((768,), "float32", 10, r"takes (None, 768); expected (None, height, width, 3)"),
        (
            (16, 16, 3),
            "float32",
            12,
            r"gives (None, 12); expected (None, 10), a score for each of the classes 0, 1",
        ),
        ((16, 16, 3), "float32", 0, r"gives (None, 1, 1, 10); expected (None, 10)"),
    ],
    ids=["bytes", "flat", "classes", "map"],
)
def test_a_model_that_does_not_fit_is_refused_before_the_work(
    command: Command, tmp_path: Path, shape: tuple[int, ...], dtype: str, units: int, said: str
) -> None:
    import keras

    x = pixels = keras.Input(shape, dtype=dtype)
    if dtype == "uint8":
        x = keras.layers.Rescaling(1 / 128, offset=-1.0)(x)
    flat = keras.layers.Dense(units)(keras.layers.Flatten()(x)) if units else keras.layers.Conv2D(10, 16)(x)
    keras.Model(pixels, flat).save(tmp_path / "own.keras")
    ended = command("export", tmp_path / "own.keras", "--out", tmp_path / "b", "--data", "digits")
    assert ended.code == 2
    assert said in ended.err
    assert "calibrating" not in ended.out


def test_a_model_of_mixed_precision_with_a_named_output_is_exported(command: Command, tmp_path: Path) -> None:
    import keras

    half = {"dtype": "mixed_float16"}
    pixels = keras.Input((16, 16, 3))
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3, **half)], name="inner")
    x = inner(keras.layers.Conv2D(4, 3, 2, padding="same", activation="relu", **half)(pixels))
    logits = keras.layers.Dense(10, dtype="float32")(keras.layers.GlobalAveragePooling2D(**half)(x))
    keras.Model(pixels, {"probs": logits}).save(tmp_path / "own.keras")
    args = ("--data", "digits", "--limit", "50", "--samples", "64", "--max-drop", "100", "--no-repair")
    ended = command("export", tmp_path / "own.keras", "--out", tmp_path / "b", *args)
    assert ended.code == 0, ended.err
    metrics = {(a.format, a.precision): a.metrics for a in Bundle.open(tmp_path / "b").manifest.artefacts}
    assert len(metrics) == 6
    assert metrics["tflite", "fp32"].max_error < 1e-5, "it is proven against the network in float32"


def test_data_with_other_classes_are_refused(lenet: Path, command: Command, tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data", ("cat", "dog"))
    ended = command("export", lenet, "--out", tmp_path / "b", "--data", data)
    assert ended.code == 2
    assert "has the classes cat, dog" in ended.err


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    lenet: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    ended = command("export", lenet, "--out", tmp_path / "file" / "b", "--data", "digits")
    assert ended.code == 2
    assert "Cannot write" in ended.err
    assert "calibrating" not in ended.out


def test_an_unsupported_layer_ends_with_its_name(command: Command, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, activation="softsign", name="odd"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    model.save(tmp_path / "own.keras")
    data = _pictures(tmp_path / "data", ("cat", "dog"))
    args = ("export", tmp_path / "own.keras", "--out", tmp_path / "b", "--data", data, "--max-drop", "100")
    ended = command(*args)
    assert ended.code == 2
    assert "'odd'" in ended.err
    assert not (tmp_path / "b").exists()
    # The way out that the message names, for a model that was not trained here and has no card.
    assert command(*args, "--precisions", "fp32,fp16").code == 0
    assert Bundle.open(tmp_path / "b").manifest.labels == ("cat", "dog")


@pytest.mark.parametrize(("scale", "pixels"), [(1.0, "0 to 255"), (255.0, "0 to 1")])
def test_a_model_trained_on_other_pixels_is_refused_and_the_way_out_holds(
    command: Command, tmp_path: Path, scale: float, pixels: str
) -> None:
    import keras

    for name, value in (
        ("dark", 60),
        ("light", 130),
    ):  # the model tells them apart at 95, all of them above 1
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            cv2.imwrite(
                str(tmp_path / "data" / name / f"{number}.png"), np.full((32, 32, 3), value, np.uint8)
            )
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), dense])
    dense.set_weights([np.array([[-scale, scale]] * 3, np.float32), np.array([285, -285], np.float32)])
    model.save(tmp_path / "own.keras")
    args = ("--out", tmp_path / "b", "--data", tmp_path / "data", "--precisions", "fp32", "--max-drop", 100)
    ended = command("export", tmp_path / "own.keras", *args)
    assert ended.code == 2
    assert f"Of 42 training images the model names 42 on pixels of {pixels}, and 22 on (x - 128)" in ended.err
    way_out = re.search(r"Rescaling\(([\d.]+), offset=", ended.err)
    assert way_out
    first = keras.layers.Rescaling(float(way_out[1]), offset=float(way_out[1]))
    keras.Sequential([keras.Input((32, 32, 3)), first, model]).save(tmp_path / "own.keras")
    assert command("export", tmp_path / "own.keras", *args).code == 0


def test_of_other_pixels_those_are_named_on_which_the_model_knows_most(
    command: Command, tmp_path: Path
) -> None:
    """Of pixels from 0 to 1: on 0 to 255 it knows half, on (x - 128) / 128 a quarter."""
    import keras

    for name, rgb in {
        "blue dark": (100, 60, 90), "blue light": (100, 130, 90), "red dark": (200, 60, 60), "red light": (200, 130, 60)
    }.items():  # fmt: skip
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(40):
            cv2.imwrite(
                str(tmp_path / "data" / name / f"{number}.png"), np.full((32, 32, 3), rgb[::-1], np.uint8)
            )
    dense = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), dense])
    red, light = np.array([-1, -1, 1, 1]), np.array([-1, 1, -1, 1])
    dense.set_weights([255 * np.array([red, light, -2 * red], np.float32), -95 * light.astype(np.float32)])
    model.save(tmp_path / "own.keras")
    ended = command("export", tmp_path / "own.keras", "--out", tmp_path / "b", "--data", tmp_path / "data")
    assert ended.code == 2
    assert "on pixels of 0 to 1," in ended.err


def test_an_operator_without_onnx_form_is_named(command: Command, tmp_path: Path) -> None:
    import keras

    pixels = keras.Input((32, 32, 3))
    x = keras.ops.erfinv(keras.layers.Conv2D(4, 3, activation="tanh")(pixels))
    model = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "own.keras")
    data = _pictures(tmp_path / "data", ("cat", "dog"))
    args = ("--precisions", "fp32", "--formats", "onnx")
    ended = command("export", tmp_path / "own.keras", "--out", tmp_path / "b", "--data", data, *args)
    assert ended.code == 2
    assert "Erfinv" in ended.err
    assert "--formats tflite" in ended.err
    assert not (tmp_path / "b").exists()


def test_ctrl_c_leaves_no_half_bundle(lenet: Path, lenet_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(lenet_bundle, out)
    before = (out / "manifest.json").read_bytes()
    run = [sys.executable, "-c", "import sightline; sightline.main()"]
    args = ["export", str(lenet), "--out", str(out), "--data", "digits"]
    process = subprocess.Popen([*run, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".bundle.*/model.fp32.tflite")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"Stopped." in err
    assert b"Traceback" not in err
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_compare_by_hand() -> None:
    reference = np.array([[2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0]], np.float32)
    found = np.array([[2, 0, 0], [1, 0, 0], [2, 0.5, 0], [0, 2, 0], [0, 0, 2]], np.float32)
    metrics = compare(reference, found, np.array([0, 1, 1, 1, 0]))
    assert (metrics.reference, metrics.value, metrics.drop, metrics.agreement) == (60, 40, 20, 60)
    assert (metrics.max_error, metrics.mean_error) == (2, pytest.approx(7.5 / 15))


def test_the_interval_is_that_of_drawing_images() -> None:
    rng = np.random.default_rng(5)
    right = rng.random(400) < 0.9
    still = right ^ (rng.random(400) < 0.05)
    draws = rng.integers(0, 400, (4000, 400))
    drops = 100 * (right[draws].mean(1) - still[draws].mean(1))
    assert paired_interval(right, still) == pytest.approx(np.percentile(drops, [2.5, 97.5]), abs=0.3)
