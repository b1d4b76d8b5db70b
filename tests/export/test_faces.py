"""A detector through `sightline export`: several heads, its own metric, other input sizes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, numpy_helper

from edge.bundle import PRECISIONS, Bundle, Manifest
from edge.errors import BundleError
from edge.golden import check
from edge.results import Faces
from edge.runners import open_runner
from edge.runners.plans import Toolkit
from export.faces import agreement, compare
from export.golden import made_inputs, photographs
from export.pack import ship
from export.tensorrt import Tensor, build_plan
from train.detection.average_precision import average_precision
from train.detection.data import BoxedImage, BoxedImages, load_boxed
from train.detection.evaluate import keras_detections, matches, resized
from train.weights import load_keras

Command = Callable[..., Any]

HEADS = {
    "score_8": (1, 8, 12, 1),
    "box_8": (1, 8, 12, 4),
    "score_16": (1, 4, 6, 1),
    "box_16": (1, 4, 6, 4),
    "score_32": (1, 2, 3, 1),
    "box_32": (1, 2, 3, 4),
}
"""At 96x64, in the model's order."""


@pytest.fixture(scope="session")
def bundle(detector_bundle: Path) -> Bundle:
    return Bundle.open(detector_bundle)


@pytest.fixture(scope="session")
def graph(bundle: Bundle) -> Any:
    return onnx.load(bundle.folder / "model.int8.onnx").graph


# -- the manifest, the golden vectors, the report --------------------------------------------------


def test_the_manifest_describes_every_head(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.task, manifest.labels, manifest.name) == ("faces", ("face",), "tiny-96x64")
    assert (manifest.input.width, manifest.input.height, manifest.input.resize) == (96, 64, "letterbox")
    assert {output.name: output.shape for output in manifest.outputs} == HEADS
    assert [output.name for output in manifest.outputs] == list(HEADS)
    assert [(o.role, o.stride) for o in manifest.outputs[:3]] == [("score", 8), ("box", 8), ("score", 16)]


def test_all_six_artefacts_are_there_and_measured(bundle: Bundle) -> None:
    bundle.verify()
    assert len(bundle.manifest.artefacts) == 6
    for artefact in bundle.manifest.artefacts:
        metrics = artefact.metrics
        assert metrics is not None
        assert (metrics.metric, metrics.n) == ("ap50", 8)
        assert metrics.drop == pytest.approx(metrics.reference - metrics.value)
        assert metrics.drop_ci95[0] <= metrics.drop_ci95[1]
        assert 0 <= metrics.mean_error <= metrics.max_error
        if artefact.precision == "fp32":
            assert metrics.max_error < 1e-4
            assert metrics.agreement == 100


def test_the_reference_is_what_the_evaluation_finds(
    bundle: Bundle, detector: Path, boxed_pictures: Path
) -> None:
    test = load_boxed(boxed_pictures, "test")
    model = resized(load_keras(detector), 64, 96)
    found = keras_detections(model, test, bundle.manifest.input)
    ap50 = 100 * average_precision(matches(test, found))
    for artefact in bundle.manifest.artefacts:
        assert artefact.metrics is not None
        assert artefact.metrics.reference == pytest.approx(ap50, abs=1e-6)


def test_the_golden_vectors_hold_every_head_of_every_artefact(bundle: Bundle) -> None:
    golden = bundle.manifest.golden
    with np.load(io.BytesIO(bundle.content(golden))) as vectors:
        shapes = {key: vectors[key].shape for key in vectors}
    assert shapes.pop("inputs") == (2, 64, 96, 3)
    assert shapes == {
        f"{a.format}.{a.precision}.{head}": (2, *shape[1:])
        for a in bundle.manifest.artefacts
        for head, shape in HEADS.items()
    }
    assert golden.step.keys() == HEADS.keys()
    assert len(set(golden.step.values())) == 6  # each head has a scale of its own


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_every_artefact_computes_what_was_simulated(bundle: Bundle, backend: str, precision: Any) -> None:
    result = check(bundle, backend, precision)
    assert result <= (3.0 if precision == "int8" else 0.5)


def test_the_report_names_the_detectors_figures(bundle: Bundle) -> None:
    text = (bundle.folder / "report.html").read_text(encoding="utf-8")
    for said in ("face detection from 96×64", "AP50", "same faces", "score_32"):
        assert said in text
    assert "top-1" not in text


def test_the_photographs_are_there_and_made_ones_take_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    real = photographs(64, 96)
    assert real.shape == (2, 64, 96, 3)
    assert (real[0][:, :16] == 128).all()  # the square astronaut, letterboxed
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    np.testing.assert_array_equal(photographs(64, 96), made_inputs(64, 96, 2))


def test_a_shipped_bundle_holds_the_vectors_of_its_own_artefacts(bundle: Bundle, tmp_path: Path) -> None:
    small = ship(bundle, tmp_path / "small")
    small.verify()
    golden = small.manifest.golden
    assert golden.model_copy(update={"sha256": bundle.manifest.golden.sha256}) == bundle.manifest.golden
    with np.load(io.BytesIO(small.content(golden))) as vectors:
        kept = {key.rpartition(".")[0] for key in vectors if key != "inputs"}
    assert kept == {"tflite.int8", "onnx.int8", "onnx.fp16"}
    for artefact in small.manifest.artefacts:
        check(small, artefact.format, artefact.precision)


# -- what is in the files --------------------------------------------------------------------------


def test_tflite_int8_holds_integers_only_and_rounds_nothing_twice(bundle: Bundle) -> None:
    interpreter = Interpreter(model_content=bundle.content(bundle.artefact("tflite", "int8")))
    interpreter.allocate_tensors()
    types = {np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    assert types <= {"int8", "int32"}
    operators = [op["op_name"] for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    assert set(operators) == {"CONV_2D", "ADD", "RESIZE_NEAREST_NEIGHBOR"}
    assert (operators.count("ADD"), operators.count("RESIZE_NEAREST_NEIGHBOR")) == (5, 2)
    scales = {d["quantization"] for d in interpreter.get_signature_runner().get_output_details().values()}
    assert len(scales) == 6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_gives_the_heads_in_order_as_float32_nhwc(bundle: Bundle, precision: Any) -> None:
    outputs = onnx.load(bundle.folder / f"model.{precision}.onnx").graph.output
    shapes = {o.name: tuple(dim.dim_value for dim in o.type.tensor_type.shape.dim) for o in outputs}
    assert list(shapes.items()) == list(HEADS.items())
    assert {o.type.tensor_type.elem_type for o in outputs} == {TensorProto.FLOAT}


def test_onnx_int8_stays_in_one_layout_and_copies_int8(graph: Any) -> None:
    made = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    assert [node.op_type for node in graph.node[:4]] == ["Cast", "Transpose", "Sub", "Mul"]
    for node in graph.node[4:]:
        if node.op_type in ("Transpose", "Reshape"):  # to NHWC, and out
            assert readers[node.output[0]].op_type == "Cast"
    resizes = [node for node in graph.node if node.op_type == "Resize"]
    assert len(resizes) == 2
    for resize in resizes:
        how = {attribute.name: attribute.s for attribute in resize.attribute}
        assert (how["mode"], how["nearest_mode"]) == (b"nearest", b"floor")
        assert how["coordinate_transformation_mode"] == b"asymmetric"
        before, after = made[resize.input[0]], readers[resize.output[0]]
        assert (before.op_type, after.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert made[before.input[0]].input[1] == after.input[1] or _scale(graph, before) == _scale(
            graph, after
        )
    for relu in (node for node in graph.node if node.op_type == "Relu"):
        assert made[relu.input[0]].op_type in ("Conv", "Add")


def test_onnx_int8_has_no_zero_points_and_float16_scales(graph: Any) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rounding = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert rounding
    for node in rounding:
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert (scale.dtype, zero.dtype, zero.any()) == (np.float16, np.int8, False)


def _scale(graph: Any, node: Any) -> float:
    return float(next(numpy_helper.to_array(t) for t in graph.initializer if t.name == node.input[1]))


@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_heads_are_found_by_name(bundle: Bundle, backend: str, tmp_path: Path) -> None:
    runner = open_runner(bundle, backend, "int8")
    heads = runner.infer(made_inputs(64, 96, 1))
    assert {name: values.shape for name, values in heads.items()} == HEADS
    copy = tmp_path / "other"
    shutil.copytree(bundle.folder, copy)
    text = (copy / "manifest.json").read_text().replace('"name": "score_16"', '"name": "score_x"')
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"score_x.*score_16.*Export the bundle anew"):
        open_runner(Bundle.open(copy), backend, "int8")


# -- input sizes and other choices -----------------------------------------------------------------


QUICK = ("--formats", "tflite", "--precisions", "int8", "--limit", "3", "--max-drop", "100")


def test_without_a_size_name_and_input_are_the_cards(
    detector: Path, boxed_pictures: Path, command: Command, tmp_path: Path
) -> None:
    ended = command("export", detector, "--out", tmp_path / "b", "--data", boxed_pictures, *QUICK)
    assert ended.code == 0, ended.err
    assert "tiny against Keras, 3 images, AP50" in ended.out
    manifest = Bundle.open(tmp_path / "b").manifest
    assert (manifest.name, manifest.input.width, manifest.input.height) == ("tiny", 64, 64)
    assert manifest.calibration is not None
    assert manifest.calibration.samples == 12
    assert manifest.calibration.method == "minmax"  # a detector's, where the call names none


def test_one_number_is_a_square_and_a_card_is_not_needed(
    detector: Path, boxed_pictures: Path, command: Command, tmp_path: Path
) -> None:
    shutil.copy(detector, tmp_path / "own.keras")
    args = ("--out", tmp_path / "own-96", "--data", boxed_pictures, "--size", "96", *QUICK)
    assert command("export", tmp_path / "own.keras", *args).code == 0
    manifest = Bundle.open(tmp_path / "own-96").manifest
    assert (manifest.task, manifest.name) == ("faces", "own-96")
    assert (manifest.input.width, manifest.input.height, manifest.input.resize) == (96, 96, "letterbox")


def test_float_files_alone_have_named_heads_too(
    detector: Path, boxed_pictures: Path, command: Command, tmp_path: Path
) -> None:
    args = ("--formats", "tflite,onnx", "--precisions", "fp32", "--limit", "3", "--max-drop", "100")
    ended = command("export", detector, "--out", tmp_path / "b", "--data", boxed_pictures, *args)
    assert ended.code == 0, ended.err
    for artefact in Bundle.open(tmp_path / "b").manifest.artefacts:
        assert artefact.metrics is not None
        assert artefact.metrics.max_error < 1e-4


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("320x200", "320x200 is no multiple of 32"),
        ("33", "33x33 is no multiple of 32"),
        ("320x", "WIDTHxHEIGHT"),
        ("large", "WIDTHxHEIGHT"),
        ("0x64", "WIDTHxHEIGHT"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(
    detector: Path, boxed_pictures: Path, command: Command, tmp_path: Path, size: str, said: str
) -> None:
    args = ("--out", tmp_path / "b", "--data", boxed_pictures, "--size", size)
    ended = command("export", detector, *args)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "b").exists()


def test_a_classifier_keeps_its_size(lenet: Path, command: Command, tmp_path: Path) -> None:
    ended = command("export", lenet, "--out", tmp_path / "b", "--data", "digits", "--size", "64")
    assert ended.code == 2
    assert "is a classifier" in ended.err


def test_a_detector_and_a_classifier_want_their_own_data(
    detector: Path, lenet: Path, boxed_pictures: Path, command: Command, tmp_path: Path
) -> None:
    assert command("export", detector, "--out", tmp_path / "b", "--data", tmp_path).code == 2
    assert command("export", lenet, "--out", tmp_path / "b", "--data", boxed_pictures).code == 2


def test_a_test_split_without_faces_proves_nothing(
    detector: Path, boxed_pictures: Path, command: Command, tmp_path: Path
) -> None:
    data = tmp_path / "faceless"
    shutil.copytree(boxed_pictures, data)
    content = json.loads((data / "annotations.json").read_text())
    (data / "annotations.json").write_text(json.dumps({**content, "annotations": []}))
    ended = command("export", detector, "--out", tmp_path / "b", "--data", data)
    assert ended.code == 2
    assert "no face that counts" in ended.err


@pytest.mark.parametrize("name", ["score_x", "class_8", "score_16"])
def test_heads_of_another_kind_are_named(
    boxed_pictures: Path, command: Command, tmp_path: Path, name: str
) -> None:
    import keras

    pixels = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(4, 3, strides=8, padding="same")(pixels)
    heads = [keras.layers.Conv2D(1, 1, name=name)(x), keras.layers.Conv2D(4, 1, name="box_8")(x)]
    keras.Model(pixels, heads).save(tmp_path / "odd.keras")
    ended = command("export", tmp_path / "odd.keras", "--out", tmp_path / "b", "--data", boxed_pictures)
    assert ended.code == 2
    assert name in ended.err
    assert not (tmp_path / "b").exists()


# -- the figures -----------------------------------------------------------------------------------


def _faces(*rows: tuple[float, ...]) -> Faces:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Faces(table[:, :4], table[:, 4])


def test_agreement_by_hand() -> None:
    wanted = [_faces((0, 0, 10, 10, 0.9), (20, 0, 30, 10, 0.6), (50, 0, 60, 10, 0.4)), _faces()]
    found = [_faces((1, 0, 11, 10, 0.8), (20, 0, 30, 10, 0.45)), _faces((0, 0, 9, 9, 0.9))]
    assert agreement(wanted, found) == 50  # the second scores too low, the third did not count
    assert agreement(wanted, [_faces(), _faces()]) == 0
    assert agreement([_faces(), _faces()], found) == 100


def test_compare_by_hand() -> None:
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    image = BoxedImage(Path("a.png"), 0, 64, 64, truth, np.zeros(2, np.bool_), "")
    both = _faces((0, 0, 10, 10, 0.9), (20, 0, 30, 10, 0.8))
    metrics = compare(
        BoxedImages((image,) * 4, "made"), [both] * 4, [_faces((0, 0, 10, 10, 0.9))] * 4, 2.0, 0.5
    )
    assert (metrics.metric, metrics.n, metrics.reference, metrics.value) == ("ap50", 4, 100, 50)
    assert (metrics.drop, metrics.drop_ci95, metrics.agreement) == (50, (50, 50), 50)
    assert (metrics.max_error, metrics.mean_error) == (2.0, 0.5)


# -- NVIDIA ----------------------------------------------------------------------------------------


def test_nvidias_builder_takes_every_onnx_file_with_all_heads(bundle: Bundle) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
    toolkit = Toolkit(trt, "tensorrt_rtx", trt.__version__)
    for precision in PRECISIONS:
        plan = build_plan(bundle.content(bundle.artefact("onnx", precision)), toolkit)
        assert plan.inputs == (Tensor("pixels", "uint8", (1, 64, 96, 3)),)
        assert plan.outputs == tuple(Tensor(name, "float32", shape) for name, shape in HEADS.items())


def test_a_manifest_without_a_share_asks_for_all_values(bundle: Bundle) -> None:
    content = json.loads(bundle.manifest.model_dump_json())
    assert content["golden"].pop("share") == 0.99
    assert Manifest.model_validate(content).golden.share == 1.0
