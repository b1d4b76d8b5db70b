"""Plans beside a bundle: whose they are, and why one is not loaded. No GPU is needed to tell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_machine
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError, MissingPackageError
from edge.machine import parse_jetson
from edge.runners import cuda, plans
from edge.runners import tensorrt as runner_module
from edge.runners.plans import Identity, NoPlan, PlanHeader, PlanUnusable, Toolkit, find_toolkit, packed

trt, fake_gpu, ORIN = fake_machine.trt, fake_machine.fake_gpu, fake_machine.ORIN


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = fake_machine.Machine(tmp_path / "tiny")
    monkeypatch.setattr(cuda, "runtime", lambda: made.cuda)
    monkeypatch.setattr(runner_module, "find_toolkit", lambda: made.toolkit)
    yield made
    assert made.left_over() == []
    assert made.cuda.last_error == fake_gpu.OK


def test_a_plan_that_cannot_be_opened_is_said(machine: Any) -> None:
    machine.path.unlink()
    machine.path.mkdir()
    with pytest.raises(NoPlan, match="cannot be read: Is a directory"):
        machine.runner()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"content": b"a changed plan"}, "its bytes are not those that were built"),
        ({"onnx_sha256": "0" * 64}, "the ONNX file 000000000000, not "),
        ({"precision": "fp16"}, "precision fp16, not int8"),
        ({"version": "10.3.1"}, "TensorRT 10.3.1, not 10.3.0"),
        ({"flavour": "tensorrt_rtx"}, "the edition tensorrt_rtx, not tensorrt"),
        ({"gpu": "Xavier"}, "the GPU Xavier, not Orin"),
        ({"compute_capability": "7.2"}, "compute capability 7.2, not 8.7"),
        ({"jetpack": "6.2 (L4T 36.4.3)"}, "JetPack 6.2 (L4T 36.4.3), not none"),
        ({"gpu": "Xavier", "compute_capability": "7.2"}, "the GPU Xavier, not Orin; compute capability 7.2,"),
    ],
)
def test_a_changed_or_swapped_plan_is_not_loaded_and_the_difference_named(
    machine: Any, changes: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_gpu.FakeRuntime, "deserialize_cuda_engine", lambda *_: pytest.fail("loaded"))
    machine.write_plan(**changes)
    with pytest.raises(PlanUnusable, match=r"changed or swapped.*Nothing was loaded\. Build it") as error:
        machine.runner()
    assert named in str(error.value)
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a plan of an older Sightline",
        plans.MAGIC,
        plans.MAGIC + b"{}\na plan",
        plans.MAGIC + b" " * (plans.HEADER_BYTES + 1) + b"\n",
        b"sightline plan 2\n{}\na plan",
    ],
)
def test_a_file_without_our_header_is_not_loaded(machine: Any, content: bytes) -> None:
    machine.path.write_bytes(content)
    with pytest.raises(PlanUnusable, match="its header cannot be read"):
        machine.runner()


def test_a_damaged_plan_of_another_machine_is_passed_over(machine: Any) -> None:
    machine.path.rename(machine.path.with_name("model.int8.0.plan"))
    machine.path.with_name("model.int8.1.plan").write_bytes(plans.MAGIC + b"{")
    machine.toolkit = Toolkit(machine.trt, "tensorrt", "10.16.1")
    with pytest.raises(NoPlan, match=r"There is one for TensorRT 10.3.0, not 10.16.1"):
        machine.runner()


def test_a_plan_is_usable_where_its_header_fits(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "find_toolkit", lambda: machine.toolkit)
    assert plans.usable_plan(machine.bundle)
    machine.write_plan(version="10.3.1")
    assert not plans.usable_plan(machine.bundle)
    machine.path.write_bytes(b"damaged")
    assert not plans.usable_plan(machine.bundle)


def test_the_jetpack_is_a_part_of_the_identity(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jetson = parse_jetson("NVIDIA Jetson Orin Nano", "# R36 (release), REVISION: 4.3, GCID: 1")
    monkeypatch.setattr(plans, "this_machine", lambda: SimpleNamespace(jetson=jetson))
    identity = Identity.here(machine.bundle.artefact("onnx", "int8"), machine.toolkit, ORIN)
    assert identity.jetpack == "6.2 (L4T 36.4.3)"
    with pytest.raises(NoPlan, match=r"There is one for JetPack none, not 6\.2 \(L4T 36\.4\.3\)"):
        machine.runner()


@given(
    content=st.binary(max_size=200),
    version=st.text(max_size=20),
    built=st.text(max_size=20),
    seconds=st.floats(0, 1e6),
)
def test_header_and_plan_come_back_as_they_were(
    content: bytes, version: str, built: str, seconds: float
) -> None:
    header = PlanHeader(
        onnx_sha256="0" * 64,
        precision="int8",
        flavour="tensorrt",
        version=version,
        gpu="Orin",
        compute_capability="8.7",
        jetpack="",
        plan_sha256="1" * 64,
        build_seconds=seconds,
        built=built,
    )
    assert plans.unpacked(packed(header, content)) == (header, content)


def test_the_full_tensorrt_is_preferred_and_its_absence_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _ in plans.MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(plans.platform, "machine", lambda: "x86_64")
    with pytest.raises(MissingPackageError, match=r"'\.\[tensorrt-rtx\]'"):
        find_toolkit()
    monkeypatch.setattr(plans.platform, "machine", lambda: "aarch64")
    with pytest.raises(InputError, match="python3-libnvinfer"):
        find_toolkit()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", trt)
    assert find_toolkit().flavour == "tensorrt_rtx"
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert find_toolkit() == Toolkit(trt, "tensorrt", trt.__version__)
