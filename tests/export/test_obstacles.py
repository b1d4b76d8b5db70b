"""Models that converters refuse: each ends in one message that names the reason, or is exported all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers
from plans import make_plan

import sightline
from calibration.fold import fold
from calibration.graph import build, infer, read
from calibration.simulate import simulate
from edge.bundle import Bundle, Format
from edge.errors import InputError
from edge.files import whole_folder
from export.obstacles import explained

Told = tuple[int, str]
Command = Callable[..., Told]


def _network(name: str = "middle", body: Any = None, classes: int = 10, **model: Any) -> keras.Model:
    keras.utils.set_random_seed(0)  # by chance, one that was drawn knows two classes on other pixels
    pixels = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name=name)(pixels)
    x = layers.GlobalAveragePooling2D()(body(x) if body else x)
    return keras.Model(pixels, layers.Dense(classes)(x), **model)


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Exports a model on a few digits in this process: the exit code and all that was said."""

    def run(model: keras.Model, *options: str, out: str = "out", data: str = "digits") -> Told:
        model.save(tmp_path / "model.keras")
        call = ["export", str(tmp_path / "model.keras"), "--out", str(tmp_path / out), "--data", data]
        monkeypatch.setattr("sys.argv", ["sightline", *call, "--samples", "16", "--limit", "10", *options])
        code = 0
        try:
            sightline.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capfd.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


@pytest.mark.parametrize("odd", ["_first", "a b", "é"])
def test_names_that_tensorflow_does_not_take_are_named_and_int8_renames_them(
    export: Command, tmp_path: Path, odd: str
) -> None:
    code, said = export(_network(odd), "--precisions", "fp32", "--formats", "tflite")
    assert (code, f"do not take the names {odd!r}:" in said) == (2, True), said
    code, said = export(_network(odd), "--precisions", "int8", "--max-drop", "100")
    assert code == 0, said
    assert {a.format for a in Bundle.open(tmp_path / "out").manifest.artefacts} == {"tflite", "onnx"}


def test_a_models_own_name_is_one_of_them(export: Command) -> None:
    code, said = export(_network(name="middle"), "--precisions", "fp32", "--formats", "tflite")
    assert code == 0, said
    odd = keras.Model(*(lambda m: (m.input, m.output))(_network()), name="my net")
    code, said = export(odd, "--precisions", "fp32", "--formats", "tflite")
    assert (code, "do not take the names 'my net'" in said) == (2, True), said


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_layers_may_have_the_names_that_roundings_have(target: Format) -> None:
    pixels = keras.Input((16, 16, 3), name="picture")
    x = layers.Conv2D(4, 3, activation="relu", name="input")(pixels)
    x = layers.Conv2D(4, 3, activation="relu", name="x")(x)
    x = layers.Conv2D(4, 3, activation="relu", name="x_round")(x)
    model = keras.Model(pixels, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    graph = fold(read(model))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    data = np.random.default_rng(1).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(infer(build(graph), data)["logits"], model(data), rtol=1e-4, atol=1e-5)
    rounded = infer(simulate(graph, make_plan(graph, images, "noise"), target), data)["logits"]
    assert 0 < np.abs(rounded - model(data)).max() < 0.1


def test_a_full_folder_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        with explained(_network()):
            raise TypeError("'NoneType' object is not callable")

    with pytest.raises(TypeError, match="NoneType"):
        fail()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="temporary files, is full"):
        fail()


def test_what_float16_has_no_form_of_is_told(export: Command) -> None:
    model = _network(body=layers.Softmax(axis=[1, 2]))
    code, said = export(model, "--precisions", "fp16", "--formats", "onnx")
    assert (code, "ONNX has no such form of a layer" in said) == (2, True), said


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_training_that_diverged_is_told(export: Command, precision: str) -> None:
    model = _network()
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([kernel, bias + np.nan])
    code, said = export(model, "--precisions", precision, "--formats", "tflite")
    assert (code, "Likely a training that diverged" in said) == (2, True), said


def test_weights_that_float16_cannot_hold_cost_the_files_in_float16_alone(
    export: Command, tmp_path: Path
) -> None:
    model = _network()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([1e6 * kernel / np.abs(kernel).max(), bias])
    code, said = export(model, "--precisions", "fp32,fp16", "--max-drop", "100")
    assert (code, "tflite fp16 failed its gate: Golden vectors: tflite fp16 differs by" in said) == (
        1,
        True,
    ), said
    manifest = Bundle.open(tmp_path / "out").manifest
    assert {a.precision for a in manifest.artefacts} == {"fp32"}
    assert {(a.format, a.precision) for a in manifest.absent} == {("tflite", "fp16"), ("onnx", "fp16")}
    assert not list((tmp_path / "out").glob("model.fp16.*"))


def test_one_output_in_a_dictionary_is_the_logits(export: Command, tmp_path: Path) -> None:
    model = _network()
    model = keras.Model(model.input, {"scores": model.output})
    code, said = export(model, "--precisions", "fp32")
    assert code == 0, said
    assert [head.name for head in Bundle.open(tmp_path / "out").manifest.outputs] == ["logits"]


def test_a_vision_transformer_is_told_which_layer_int8_does_not_know(export: Command) -> None:
    code, said = export(_network(body=_tokens), "--precisions", "int8")
    assert code == 2
    assert "Layer 'shifted' works on (196, 4); int8 knows maps" in said
    assert "--precisions fp32,fp16" in said


def _tokens(x: Any) -> Any:
    x = layers.Rescaling(1.0, offset=0.1, name="shifted")(layers.Reshape((196, 4))(x))
    return layers.Reshape((14, 14, 4))(x)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--max-drop", "nan"), "expected a number of points"),
        (("--max-drop", "inf"), "expected a number of points"),
        (("--precisions", "fp32", "--plan", "plan.json"), "--plan says how int8 is made, which --precisions"),
    ],
)
def test_a_wrong_call_is_told_before_the_work(export: Command, options: tuple[str, ...], told: str) -> None:
    code, said = export(_network(), *options)
    assert (code, told in said) == (2, True), said


def test_broken_pictures_are_left_out_where_that_is_asked_for_and_told(
    export: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    for index, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            picture = np.full((16, 16, 3), 200 * index + number, np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
        (folder / name / "broken.png").write_bytes(b"no picture")
    call = ("--precisions", "int8", "--formats", "tflite", "--max-drop", "100")
    code, said = export(_network(classes=2), *call, data=str(folder))
    assert (code, "broken.png" in said, "--skip-corrupt" in said) == (2, True, True), said
    code, said = export(_network(classes=2), *call, "--skip-corrupt", data=str(folder))
    assert code == 0, said
    for split in ("train", "test"):
        assert f"pictures/{split}: left out 1 of " in said
    (folder / "none").mkdir()
    code, said = export(_network(classes=3), *call, "--skip-corrupt", data=str(folder))
    assert code == 0, said
    for split in ("train", "test"):
        assert f"pictures/{split}: no image of none, 1 of 3 classes" in said


def test_brackets_in_a_folders_name_are_printed_as_they_are(export: Command, tmp_path: Path) -> None:
    code, said = export(_network(), "--precisions", "fp32", "--formats", "tflite", out="a [v2]")
    assert code == 0, said
    assert str(tmp_path / "a [v2]" / "report.html") in said


def test_an_export_tells_of_its_own_bundle_though_another_takes_its_place(
    export: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def overtaken(path: Path) -> Iterator[Path]:
        with whole_folder(path) as folder:
            yield folder
        (path / "manifest.json").write_text("another's")

    monkeypatch.setattr("export.pack.whole_folder", overtaken)
    code, said = export(_network(), "--precisions", "fp32", "--formats", "tflite")
    assert (code, "model against Keras, 10 images" in said) == (0, True), said


def test_a_layer_that_no_image_wakes_stays_loadable(command: Callable[..., Any], tmp_path: Path) -> None:
    """Its range is empty; XNNPACK takes no step that is so much smaller than the sums it is made of."""
    keras.utils.set_random_seed(0)
    asleep = keras.initializers.Constant(-50.0)
    x = pixels = keras.Input((8, 8, 3))
    for filters, kept in ((4, "valid"), (6, "same")):
        x = layers.Conv2D(filters, 3, padding=kept, activation="relu", bias_initializer=asleep)(x)
    y = layers.Conv2D(6, 3, activation="relu")(pixels)
    x = layers.GlobalAveragePooling2D()(layers.Add()([layers.Multiply()([x, y]), y]))
    path = tmp_path / "asleep.keras"
    keras.Model(pixels, layers.Dense(10)(x)).save(path)
    options = ("--data", "digits", "--limit", 30, "--samples", 32, "--max-drop", 100, "--no-repair")
    made = command("export", path, "--out", tmp_path / "asleep", *options, "--precisions", "int8")
    assert made.code == 0, made.err
    assert {(a.format, a.precision) for a in Bundle.open(tmp_path / "asleep").manifest.artefacts} == {
        ("tflite", "int8"), ("onnx", "int8"),
    }  # fmt: skip
