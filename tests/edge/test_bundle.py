"""The contract: what a bundle must be before anything of it is parsed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, SCHEMA_VERSION, SHIPPED, Bundle, shipped
from edge.errors import BundleChanged, BundleError, CheckFailed, InputError
from edge.files import replaced, sha256
from edge.golden import check
from edge.model import Model

Command = Callable[..., Any]
Arrays = dict[str, Any]
IMAGE = np.full((40, 60, 3), 90, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be spoilt."""
    return Path(shutil.copytree(SHIPPED / DEFAULT_BUNDLE, tmp_path / "bundle"))


def _edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def test_the_shipped_bundles_are_whole() -> None:
    assert DEFAULT_BUNDLE in shipped()
    for name in shipped():
        bundle = Bundle.open(name)
        bundle.verify()
        assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 10e6


def test_a_bundle_that_a_killed_export_took_away_is_told_where_it_is(folder: Path) -> None:
    former = folder.rename(replaced(folder))
    with pytest.raises(BundleError, match=f"The former one is {former}: rename it"):
        Bundle.open(folder)


@pytest.mark.parametrize(("backend", "precision"), [("tflite", "int8"), ("onnx", "int8"), ("onnx", "fp16")])
def test_the_shipped_model_computes_what_was_exported(backend: str, precision: Any) -> None:
    assert check(Bundle.open(DEFAULT_BUNDLE), backend, precision) <= 3


def test_a_changed_file_is_refused_before_it_is_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.int8.tflite"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("edge.runners.tflite._interpreter_class", lambda: pytest.fail("parsed"))
    with pytest.raises(BundleChanged, match=r"model\.int8\.tflite was changed"):
        Model.open(Bundle.open(folder))


@pytest.mark.parametrize("name", ["model.int8.tflite", "golden.npz"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(folder).verify()


def test_a_newer_schema_asks_for_an_update(folder: Path) -> None:
    _edit(folder, schema_version=SCHEMA_VERSION + 1, something_new={})
    with pytest.raises(
        BundleError, match=r"manifest schema 3, this Sightline reads up to 2.*Update Sightline"
    ):
        Bundle.open(folder)


def test_an_older_schema_is_read(folder: Path) -> None:
    """Bundles that were shipped before `undecided` and `compared_with` came."""
    _edit(folder, schema_version=1)
    assert Bundle.open(folder).manifest.schema_version == 1


@pytest.mark.parametrize("labels", [[], ["a"] * 7])
def test_a_classifier_has_a_label_for_each_logit(folder: Path, labels: list[str]) -> None:
    _edit(folder, labels=labels)
    with pytest.raises(BundleError, match=rf"manifest: {len(labels)} labels are named for 10 logits\."):
        Bundle.open(folder)


@pytest.mark.parametrize(("backend", "precision"), [("tflite", "int8"), ("onnx", "int8"), ("onnx", "fp16")])
@pytest.mark.parametrize("what", ["input", "logits"])
def test_a_manifest_that_its_files_contradict_is_refused(
    folder: Path, backend: str, precision: Any, what: str
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    if what == "input":
        _edit(folder, input=manifest["input"] | {"width": 64})
        message = r"the manifest states \(1, 32, 64, 3\) for 'input', the file has \(1, 32, 32, 3\)"
    else:
        _edit(folder, outputs=[manifest["outputs"][0] | {"shape": [1, 7]}], labels=["a"] * 7)
        message = r"the manifest states \(1, 7\) for 'logits', the file has \(1, 10\)"
    with pytest.raises(BundleError, match=message):
        Model.open(Bundle.open(folder), backend, precision)


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "", ".hidden", ".."])
def test_a_manifest_cannot_reach_outside_its_folder(folder: Path, file: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artefacts"][0]["file"] = file
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"artefacts\.0\.file"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": 1}', "null", "\x00"])
def test_what_is_no_manifest_is_said_to_be_none(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="manifest"):
        Bundle.open(folder)


def test_a_bundle_that_is_not_there_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=DEFAULT_BUNDLE):
        Bundle.open(tmp_path / "nothing")


def test_an_absent_artefact_gives_its_reason() -> None:
    with pytest.raises(InputError, match="tflite fp32: not shipped"):
        Model.open(Bundle.open(DEFAULT_BUNDLE), "tflite", "fp32")


def test_golden_vectors_catch_a_model_that_computes_something_else(folder: Path) -> None:
    # The weights of fp16 under the name of int8, hashes and all: only the outputs can tell.
    manifest = json.loads((folder / "manifest.json").read_text())
    int8, fp16 = (
        next(a for a in manifest["artefacts"] if (a["format"], a["precision"]) == ("onnx", precision))
        for precision in ("int8", "fp16")
    )
    int8.update({key: fp16[key] for key in ("file", "sha256", "size_bytes")})
    golden = dict(manifest["golden"], tolerance_steps=0.01)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"golden": golden}))
    with pytest.raises(CheckFailed, match="onnx int8 differs"):
        check(Bundle.open(folder), "onnx", "int8")


def _cut(part: Any) -> Callable[[Arrays], Any]:
    key = "tflite.int8.logits"
    return lambda arrays: arrays.update({key: arrays[key][part]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda arrays: arrays.pop("tflite.int8.logits"), "no golden vectors for tflite.int8.logits"),
        (lambda arrays: arrays.pop("inputs"), "no golden vectors for inputs"),
        (lambda arrays: arrays.update(inputs=arrays["inputs"][:0]), r"inputs are uint8 \(0, 32, 32, 3\)"),
        (lambda arrays: arrays.update(inputs=arrays["inputs"][:, :16]), r"expected uint8 \(8, 32, 32, 3\)"),
        (lambda arrays: arrays.update(inputs=arrays["inputs"] / 1.0), "inputs are float64"),
        (lambda arrays: arrays.update(inputs=np.uint8(3)), r"inputs are uint8 \(\)"),
        (_cut(np.s_[:2]), r"float32 \(2, 10\); expected float32 \(8, 10\)"),
        (_cut(np.s_[:, :5]), r"float32 \(8, 5\); expected float32 \(8, 10\)"),
    ],
)
def test_golden_vectors_that_do_not_fit_the_manifest_are_told(
    folder: Path, spoil: Callable[[Arrays], Any], said: str
) -> None:
    """Where there is no input, nothing would be compared."""
    with np.load(folder / "golden.npz") as file:
        arrays = dict(file)
    spoil(arrays)
    np.savez(folder / "golden.npz", **arrays)
    _sign(folder)
    with pytest.raises(BundleError, match=said):
        check(Bundle.open(folder), "tflite", "int8")


def test_a_single_array_holds_no_golden_vectors(folder: Path) -> None:
    with open(folder / "golden.npz", "wb") as file:
        np.save(file, np.zeros(3))
    _sign(folder)
    with pytest.raises(BundleError, match=r"golden\.npz holds no golden vectors"):
        check(Bundle.open(folder), "tflite", "int8")


def _sign(folder: Path) -> None:
    """The manifest has the hash of the golden vectors that are there."""
    golden = json.loads((folder / "manifest.json").read_text())["golden"]
    _edit(folder, golden=golden | {"sha256": sha256(folder / "golden.npz")})


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({}, r"golden\.step lacks 'logits'"),
        ({"logits": 0.0}, r"golden\.step\.logits: Input should be greater than 0"),
        ({"logits": -0.1}, r"golden\.step\.logits: Input should be greater than 0"),
        ({"logits": float("nan")}, r"golden\.step\.logits: Input should be"),
    ],
)
def test_a_step_that_measures_nothing_is_told(folder: Path, step: dict[str, float], said: str) -> None:
    """Of a negative one every difference would be within the tolerance."""
    golden = json.loads((folder / "manifest.json").read_text())["golden"]
    _edit(folder, golden=golden | {"step": step})
    with pytest.raises(BundleError, match=said):
        check(Bundle.open(folder), "tflite", "int8")


@pytest.mark.parametrize("shape", [[], [1, 24], [1, -1, 40, 1], [1, 24, 0, 1]])
def test_a_detector_whose_heads_have_no_cells_is_no_manifest(tmp_path: Path, shape: list[int]) -> None:
    folder = Path(shutil.copytree(SHIPPED / "face-320x192", tmp_path / "bundle"))
    first, *others = json.loads((folder / "manifest.json").read_text())["outputs"]
    _edit(folder, outputs=[first | {"shape": shape}, *others])
    with pytest.raises(BundleError, match=r"manifest: outputs\.0"):
        Model.open(Bundle.open(folder))


def test_a_detector_without_outputs_is_no_manifest(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED / "face-320x192", tmp_path / "faces"))
    _edit(folder, outputs=[])
    with pytest.raises(BundleError, match="outputs: Tuple should have at least 1 item"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda folder: (folder / "model.int8.tflite").write_bytes(b"TFL3"), 1, "was changed"),
        (lambda folder: (folder / "model.int8.tflite").unlink(), 2, "cannot be read"),
        (lambda folder: _edit(folder, schema_version=9), 2, "manifest schema 9"),
        (lambda folder: (folder / "manifest.json").unlink(), 2, "No bundle at"),
    ],
)
def test_the_command_ends_with_one_message(
    folder: Path, tmp_path: Path, command: Command, spoil: Callable[[Path], Any], code: int, said: str
) -> None:
    _picture(tmp_path / "a.png")
    spoil(folder)
    ended = command("predict", folder, tmp_path / "a.png", "--jsonl", tmp_path / "out.jsonl")
    assert ended.code == code
    assert said in ended.err
    assert not (tmp_path / "out.jsonl").exists()


def _picture(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), IMAGE)


def test_predict_writes_one_line_a_picture(tmp_path: Path, command: Command) -> None:
    for name in ("b.png", "a.png"):
        _picture(tmp_path / name)
    out = tmp_path / "out.jsonl"
    assert command("predict", DEFAULT_BUNDLE, tmp_path, "--jsonl", out).code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["image"] for line in lines] == ["a.png", "b.png"]
    assert set(lines[0]) == {"image", "scores"}
    assert len(lines[0]["scores"]) == 10
    assert sum(lines[0]["scores"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--backend", "openvino"), "Unknown backend 'openvino'"),
        (("--precision", "int4"), "Unknown precision 'int4'"),
        (("--backend", "tflite", "--precision", "fp32"), "not shipped"),
    ],
)
def test_an_unknown_choice_names_the_known(tmp_path: Path, command: Command, args: Any, said: str) -> None:
    _picture(tmp_path / "a.png")
    ended = command("predict", DEFAULT_BUNDLE, tmp_path / "a.png", "--jsonl", tmp_path / "o", *args)
    assert (ended.code, said in ended.err) == (2, True)


def test_what_is_not_a_picture_is_refused(tmp_path: Path, command: Command) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    ended = command("predict", DEFAULT_BUNDLE, tmp_path / "a.png", "--jsonl", tmp_path / "o")
    assert ended.code == 2
    assert "a.png" in ended.err
    assert not (tmp_path / "o").exists()
