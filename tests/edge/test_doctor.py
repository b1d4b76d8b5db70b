"""What `sightline doctor` says of whole, bare and broken machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge import doctor as doctor_module
from edge.bundle import MANIFEST
from edge.doctor import (
    LITERT,
    Package,
    Report,
    doctor,
    examine,
    judge,
    look_at,
    look_at_bundles,
    look_at_jetson,
    tensorrt_package,
)
from edge.errors import CheckFailed
from edge.finding import Finding
from edge.machine import Jetson, Machine

DESKTOP = Machine("Debian", "x86_64", "3.11.2", "a CPU", 2, 8.0, None)
OLD = Jetson("NVIDIA Jetson AGX Xavier", "35.4.1", "5.1.2")


def test_a_development_machine_has_both_cpu_backends() -> None:
    report = examine()
    assert {"tflite", "onnx"} <= set(report.backends)
    judge(report)


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    done = CliRunner().invoke(doctor, ["--json", str(tmp_path / "report.json")], catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema_version"] == 1
    assert set(report["backends"]) >= {"tflite", "onnx"}
    for finding in report["findings"]:
        assert set(finding) == {"part", "state", "found", "fix"}
        assert finding["part"] in done.output


def test_the_table_shows_an_extra_in_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    doctor_module._print(Report((), (Finding("X", "absent", "not installed", "pip install '.[onnx]'"),)))
    assert "pip install '.[onnx]'" in capsys.readouterr().out


def test_without_a_backend_the_check_fails_and_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert.interpreter", "ai_edge_litert", "tflite_runtime", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # what Python itself does to block an import
    monkeypatch.setattr(doctor_module, "shipped", lambda: ())
    report = examine()
    assert report.backends == ()
    with pytest.raises(CheckFailed, match="onnx") as caught:
        judge(report)
    assert caught.value.exit_code == 1


def test_an_absent_package_is_named_with_its_fix() -> None:
    finding = look_at(Package("Nothing", ("no_such_package_here",), "do this"))
    assert finding == Finding("Nothing", "absent", "not installed", "do this")


def test_a_package_that_cannot_be_imported_is_a_problem_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_wheel.py").write_text("raise AttributeError('_ARRAY_API not found')")
    (tmp_path / "half_wheel.py").write_text("import its_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    for name, said in (("broken_wheel", "_ARRAY_API"), ("half_wheel", "its_missing_dependency")):
        finding = look_at(Package("Broken", (name,), "again"))
        assert finding.state == "problem"
        assert said in finding.found


def test_the_second_module_is_taken_where_the_first_is_absent() -> None:
    finding = look_at(dataclasses.replace(LITERT, modules=("no_such_package_here", *LITERT.modules)))
    assert finding.state == "ok"
    assert finding.found.startswith("ai_edge_litert ")


def test_jetpack_before_the_floor_is_a_problem() -> None:
    finding = look_at_jetson(OLD)
    assert finding.state == "problem"
    assert "5.1.2" in finding.found
    assert "6.1" in finding.fix


def test_tensorrt_comes_from_where_the_machine_gets_it() -> None:
    assert "python3-libnvinfer" in tensorrt_package(dataclasses.replace(DESKTOP, jetson=OLD)).fix
    assert "tensorrt-rtx" in tensorrt_package(DESKTOP).fix


def test_a_changed_bundle_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pack(tmp_path / "cats", b"as it was packed")
    (tmp_path / "cats/model.int8.tflite").write_bytes(b"as it is now")
    monkeypatch.setattr("edge.bundle.SHIPPED", tmp_path)
    with pytest.raises(CheckFailed, match="bundle cats"):
        judge(examine())


def test_an_unchanged_bundle_is_found_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pack(tmp_path / "cats", b"as it was packed")
    monkeypatch.setattr("edge.bundle.SHIPPED", tmp_path)
    (finding,) = look_at_bundles(backends=())
    assert (finding.part, finding.state) == ("bundle cats", "ok")


def test_a_detector_is_found_unchanged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pack(tmp_path / "faces", b"as it was packed")
    manifest = json.loads((tmp_path / "faces" / MANIFEST).read_text())
    heads = [
        {"name": f"{role}_8", "shape": [1, 1, 1, size], "role": role, "stride": 8}
        for role, size in (("score", 1), ("box", 4))
    ]
    changed = manifest | {"task": "faces", "outputs": heads, "labels": ["face"]}
    (tmp_path / "faces" / MANIFEST).write_text(json.dumps(changed))
    monkeypatch.setattr("edge.bundle.SHIPPED", tmp_path)
    (finding,) = look_at_bundles(backends=())
    assert (finding.part, finding.state) == ("bundle faces", "ok")


def _pack(folder: Path, content: bytes) -> None:
    """A bundle whose files no backend is asked to parse."""
    folder.mkdir()
    for name in ("model.int8.tflite", "golden.npz"):
        (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    manifest = {
        "name": "cats",
        "task": "classification",
        "sightline": "0.1.0",
        "input": {"height": 8, "width": 8, "resize": "crop"},
        "outputs": [{"name": "logits", "shape": [1, 2], "role": "logits"}],
        "labels": ["cat", "dog"],
        "artefacts": [
            {
                "format": "tflite",
                "precision": "int8",
                "file": "model.int8.tflite",
                "sha256": digest,
                "size_bytes": len(content),
            }
        ],
        "golden": {"file": "golden.npz", "sha256": digest, "step": {"logits": 0.1}},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
