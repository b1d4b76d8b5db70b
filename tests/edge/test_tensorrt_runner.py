"""The TensorRT runner as far as it goes without a GPU.

The probe is the real one; behind it stands a GPU in host memory (`fake_gpu.py`), whose names a
test compares with NVIDIA's bindings: the installed ones and, where they lie beside the checkout,
the lists of TensorRT 10.3, 10.16 and 11.4.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.errors import BundleChanged, BundleError, InputError, MissingPackageError
from edge.runners import cuda, plans
from edge.runners import tensorrt as runner_module
from edge.runners.plans import PlanCard, Toolkit, find_toolkit, plan_path
from edge.runners.tensorrt import TensorrtRunner

trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
real_cuda = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")

_spec = importlib.util.spec_from_file_location("fake_gpu", Path(__file__).with_name("fake_gpu.py"))
assert _spec is not None
assert _spec.loader is not None
fake_gpu = importlib.util.module_from_spec(_spec)
sys.modules["fake_gpu"] = fake_gpu
_spec.loader.exec_module(fake_gpu)

ROOT = Path(__file__).parents[2]
NAMES = ROOT.parent / "shared" / "reference" / "trt_api"
IN, OUT = trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT
PIXELS = (IN, (1, 4, 4, 3), trt.DataType.UINT8)
LOGITS = (OUT, (1, 5), trt.DataType.FLOAT)
ORIN = cuda.Device("Orin", "8.7")


class Machine:
    """A machine with a GPU, TensorRT 10.3 and a bundle with a plan."""

    def __init__(self, folder: Path) -> None:
        self.cuda = fake_gpu.FakeCuda()
        self.trt = fake_gpu.FakeTrt(self.cuda, {"pixels": PIXELS, "logits": LOGITS})
        self.toolkit = Toolkit(self.trt, "tensorrt", "10.3.0")
        self.bundle = make_bundle(folder)
        self.path = plan_path(self.bundle, self.bundle.artefact("onnx", "int8"), self.toolkit, ORIN)
        self.write_plan()

    def write_plan(self, content: bytes = b"a plan", **changes: Any) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_bytes(content)
        fields = {
            "onnx_sha256": self.bundle.artefact("onnx", "int8").sha256,
            "plan_sha256": hashlib.sha256(b"a plan").hexdigest(),
            "flavour": "tensorrt",
            "version": "10.3.0",
            "device": str(ORIN),
            "build_seconds": 1.0,
            "built": "2026-01-01T00:00:00+00:00",
        }
        card = PlanCard.model_validate({**fields, **changes})
        self.path.with_suffix(".json").write_text(card.model_dump_json())

    def runner(self) -> TensorrtRunner:
        return TensorrtRunner(self.bundle, "int8", 1)

    def left_over(self) -> list[str]:
        """What a closed runner leaves on the GPU, and the rules it broke."""
        return [*self.cuda.broken, *(name for name, _ in self.cuda.live.values())]


def make_bundle(folder: Path) -> Bundle:
    """The runner opens no ONNX file: any bytes will do."""
    folder.mkdir()
    digest = hashlib.sha256(b"onnx").hexdigest()
    artefact = {"format": "onnx", "precision": "int8", "file": "model.int8.onnx"}
    manifest = {
        "name": "tiny",
        "task": "classification",
        "sightline": "0",
        "input": {"height": 4, "width": 4, "resize": "crop"},
        "outputs": [{"name": "logits", "shape": [1, 5], "role": "logits"}],
        "labels": ["a", "b", "c", "d", "e"],
        "artefacts": [{**artefact, "sha256": digest, "size_bytes": 4}],
        "golden": {"file": "golden.npz", "sha256": digest, "step": {"logits": 0.1}},
    }
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, **manifest}))
    return Bundle.open(folder)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path / "tiny")
    monkeypatch.setattr(cuda, "runtime", lambda: made.cuda)
    monkeypatch.setattr(runner_module, "find_toolkit", lambda: made.toolkit)
    yield made
    assert made.left_over() == []
    assert made.cuda.last_error == fake_gpu.OK


def picture(value: int) -> np.ndarray:
    return np.full((1, 4, 4, 3), value, np.uint8)


def expected(value: int) -> np.ndarray:
    return (np.arange(5) + 48 * value).reshape(1, 5).astype(np.float32)


# --- running


@pytest.mark.parametrize("dtype", [trt.DataType.FLOAT, trt.DataType.HALF])
def test_pixels_go_up_and_float32_heads_come_down(machine: Machine, dtype: Any) -> None:
    machine.trt.tensors["logits"] = (OUT, (1, 5), dtype)
    runner = machine.runner()
    first = runner.infer(picture(1))
    second = runner.infer(picture(3))
    runner.close()
    assert list(first) == ["logits"]
    assert first["logits"].dtype == np.float32
    np.testing.assert_array_equal(first["logits"], expected(1))
    np.testing.assert_array_equal(second["logits"], expected(3))
    assert machine.cuda.launches == 2


def test_an_output_that_is_no_head_gets_a_buffer_but_no_copy(machine: Machine) -> None:
    machine.trt.tensors["debug"] = (OUT, (1, 9), trt.DataType.FLOAT)
    runner = machine.runner()
    heads = runner.infer(picture(2))
    # The captured run: the pixels up, the network, the one head down.
    assert (
        len(next(made for name, made in machine.cuda.live.values() if name == "cudaGraphInstantiate").work)
        == 3
    )
    runner.close()
    np.testing.assert_array_equal(heads["logits"], expected(2))
    assert list(heads) == ["logits"]


@pytest.mark.parametrize(
    "failing", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "capture"]
)
def test_without_a_graph_it_enqueues_each_run(machine: Machine, failing: str) -> None:
    machine.cuda.failing.add(failing)
    machine.trt.refusing.add(failing)
    runner = machine.runner()
    np.testing.assert_array_equal(runner.infer(picture(1))["logits"], expected(1))
    np.testing.assert_array_equal(runner.infer(picture(9))["logits"], expected(9))
    runner.close()
    assert machine.cuda.launches == 0


def test_pixels_of_another_shape_or_type_are_refused(machine: Machine) -> None:
    runner = machine.runner()
    with pytest.raises(InputError, match=r"Expected uint8 pixels \(1, 4, 4, 3\), got uint8 \(1, 5, 4, 3\)"):
        runner.infer(np.zeros((1, 5, 4, 3), np.uint8))
    with pytest.raises(InputError, match="got float32"):
        runner.infer(np.zeros((1, 4, 4, 3), np.float32))  # type: ignore[arg-type]
    runner.close()


def test_a_failing_gpu_is_named(machine: Machine) -> None:
    runner = machine.runner()
    machine.cuda.failing.add("cudaStreamSynchronize")
    with pytest.raises(
        cuda.CudaError, match="cudaStreamSynchronize failed: cudaErrorStreamCaptureUnsupported"
    ):
        runner.infer(picture(1))
    machine.cuda.failing.clear()
    machine.cuda.cudaGetLastError()
    runner.close()


def test_closing_gives_everything_back_in_order_and_only_once(machine: Machine) -> None:
    runner = machine.runner()
    runner.infer(picture(1))
    machine.trt.died.clear()
    runner.close()
    assert machine.trt.died == ["FakeContext", "FakeEngine", "FakeRuntime"]
    assert machine.left_over() == []
    runner.close()


def test_closing_after_an_interrupted_run_waits_for_the_gpu(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = machine.runner()

    def interrupted(stream: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(machine.cuda, "cudaStreamSynchronize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.infer(picture(1))
    runner.close()


# --- what stops a runner from being made; the fixture checks that nothing is left behind


@pytest.mark.parametrize(
    ("refusing", "message"),
    [
        ("deserialize_cuda_engine", "refused the plan"),
        ("create_execution_context", "make room for the plan"),
        ("execute_async_v3", "could not start the network"),
    ],
)
def test_what_tensorrt_refuses_is_said(machine: Machine, refusing: str, message: str) -> None:
    machine.trt.refusing.add(refusing)
    with pytest.raises(InputError, match=message):
        machine.runner()


@pytest.mark.parametrize("failing", ["cudaMalloc", "cudaHostAlloc"])
def test_a_full_gpu_is_said(machine: Machine, failing: str) -> None:
    machine.cuda.failing.add(failing)
    with pytest.raises(cuda.CudaError, match=f"{failing} failed: cudaErrorMemoryAllocation"):
        machine.runner()
    machine.cuda.cudaGetLastError()


@pytest.mark.parametrize(
    "tensors",
    [
        {"pixels": (IN, (1, 3, 4, 4), trt.DataType.UINT8), "logits": LOGITS},
        {"pixels": (IN, (1, 4, 4, 3), trt.DataType.FLOAT), "logits": LOGITS},
        {"pixels": PIXELS, "mask": PIXELS, "logits": LOGITS},
        {"logits": LOGITS},
        {"pixels": PIXELS, "logits": (OUT, (1, 6), trt.DataType.FLOAT)},
        {"pixels": PIXELS, "logits": (IN, (1, 5), trt.DataType.FLOAT)},
        {"pixels": PIXELS, "scores": LOGITS},
    ],
)
def test_a_plan_with_other_tensors_than_the_manifests_is_refused(
    machine: Machine, tensors: dict[str, Any]
) -> None:
    machine.trt.tensors = tensors
    with pytest.raises(BundleError, match=r"tensors are .*the manifest states others") as error:
        machine.runner()
    assert all(f"{name} {shape}" in str(error.value) for name, (_, shape, _) in tensors.items())


def test_the_probe_comes_before_all_else(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.cuda.gpus = 0
    monkeypatch.setattr(runner_module, "find_toolkit", lambda: pytest.fail("TensorRT was touched"))
    with pytest.raises(cuda.NoGpu):
        machine.runner()


def test_a_plan_of_another_tensorrt_is_not_loaded(machine: Machine) -> None:
    machine.toolkit = Toolkit(machine.trt, "tensorrt", "10.16.1")
    with pytest.raises(
        InputError, match=r"no int8 plan for TensorRT 10.16.1 on Orin.*10.3.0.*sightline build"
    ):
        machine.runner()


def test_without_a_plan_it_says_how_to_build_one(machine: Machine) -> None:
    machine.path.unlink()
    machine.path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"sightline build \S+tiny --precision int8") as error:
        machine.runner()
    assert "There are plans" not in str(error.value)


def test_a_plan_with_an_unreadable_card_is_not_loaded(machine: Machine) -> None:
    machine.path.with_suffix(".json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        machine.runner()
    machine.path.unlink()
    with pytest.raises(InputError, match="holds no int8 plan"):
        machine.runner()


@pytest.mark.parametrize(
    "changes",
    [
        {"content": b"a changed plan"},
        {"onnx_sha256": "0" * 64},
        {"version": "10.3.1"},
        {"flavour": "tensorrt_rtx"},
        {"device": "Xavier (compute capability 7.2)"},
    ],
)
def test_a_changed_or_swapped_plan_is_not_loaded(machine: Machine, changes: dict[str, Any]) -> None:
    machine.write_plan(**changes)
    with pytest.raises(BundleChanged, match="changed or swapped"):
        machine.runner()


# --- the probe


@pytest.mark.skipif(bool(cuda._device_nodes()), reason="this machine has an NVIDIA GPU")
def test_a_machine_without_a_gpu_gets_one_sentence_and_no_crash(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    script = (
        "from edge.bundle import Bundle; from edge.errors import InputError\n"
        "from edge.runners.tensorrt import TensorrtRunner\n"
        f"try: TensorrtRunner(Bundle.open({str(bundle.folder)!r}), 'int8', 1)\n"
        "except InputError as error: print(type(error).__name__, error, error.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NoGpu The tensorrt backend needs an NVIDIA GPU")
    assert done.stdout.endswith("2\n")


def probe_message(monkeypatch: pytest.MonkeyPatch, fake: Any, nodes: list[str]) -> str:
    monkeypatch.setattr(cuda, "runtime", lambda: fake)
    monkeypatch.setattr(cuda, "_device_nodes", lambda: nodes)
    with pytest.raises(cuda.NoGpu) as error:
        cuda.probe()
    return str(error.value)


def test_a_cuda_python_that_is_too_new_does_not_look_like_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    jetpack6 = fake_gpu.FakeCuda(driver=12060, made_for=13000)
    message = probe_message(monkeypatch, jetpack6, ["nvgpu"])
    assert "driver offers CUDA 12.6" in message
    assert "made for 13.0" in message
    assert "sightline[jetpack6]" in message


def test_a_gpu_without_its_driver_is_told_from_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    no_driver = fake_gpu.FakeCuda(driver=0)
    assert "libcuda.so.1" in probe_message(monkeypatch, no_driver, ["nvmap"])
    assert "neither a GPU nor its driver" in probe_message(monkeypatch, no_driver, [])


def test_a_hidden_gpu_is_told_from_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    message = probe_message(monkeypatch, fake_gpu.FakeCuda(gpus=0), ["nvidia0"])
    assert "cudaErrorNoDevice" in message
    assert "CUDA_VISIBLE_DEVICES" in message


def test_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "runtime", fake_gpu.FakeCuda)
    assert cuda.probe() == ORIN


def test_a_missing_cuda_python_is_named_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setattr(cuda, "_device_nodes", list)
    with pytest.raises(cuda.NoGpu):
        cuda.probe()
    monkeypatch.setattr(cuda, "_device_nodes", lambda: ["nvgpu"])
    with pytest.raises(MissingPackageError, match=r"sightline\[jetpack"):
        cuda.probe()


def test_the_full_tensorrt_is_preferred_and_its_absence_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _ in plans.MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(plans.platform, "machine", lambda: "x86_64")
    with pytest.raises(MissingPackageError, match=r"sightline\[tensorrt-rtx\]"):
        find_toolkit()
    monkeypatch.setattr(plans.platform, "machine", lambda: "aarch64")
    with pytest.raises(InputError, match="python3-libnvinfer"):
        find_toolkit()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", trt)
    assert find_toolkit().flavour == "tensorrt_rtx"
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert find_toolkit() == Toolkit(trt, "tensorrt", trt.__version__)


# --- names: what our files and the stand-ins call exists in NVIDIA's bindings

FEATURE_DETECTED = {"STRONGLY_TYPED"}
OURS = ("export/tensorrt.py", "edge/runners/tensorrt.py")
OBJECTS = {
    "trt": None,
    "ILogger": "ILogger",
    "Logger": "Logger",
    "MemoryPoolType": "MemoryPoolType",
    "ProfilingVerbosity": "ProfilingVerbosity",
    "NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag",
    "IProgressMonitor": "IProgressMonitor",
    "mode": "TensorIOMode",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "e": "ParserError",
    "config": "IBuilderConfig",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
"""By the name that our files give to an object, its class in TensorRT."""


def names_used(path: str) -> set[tuple[str | None, str]]:
    """(class or None for the module, attribute) of all that a file of ours takes from TensorRT."""
    used = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Attribute):
            owner = (
                node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            )
            owner = "trt" if owner == "_trt" else owner
            if owner in OBJECTS and not node.attr.startswith("__"):
                used.add((OBJECTS[owner], node.attr))
    return used


@pytest.mark.parametrize("path", OURS)
def test_every_name_exists_in_the_installed_bindings(path: str) -> None:
    used = names_used(path)
    assert len(used) >= 12
    for owner, name in used:
        assert hasattr(getattr(trt, owner) if owner else trt, name), f"{owner}.{name}"


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
@pytest.mark.parametrize("path", OURS)
def test_every_name_exists_in_the_bindings_from_jetpack_6_to_11(path: str, version: str) -> None:
    if not NAMES.is_dir():
        pytest.skip("the lists of names of other TensorRT versions are not beside this checkout")
    api = json.loads((NAMES / f"api_{version}.json").read_text())
    lacking = {
        f"{owner}.{name}"
        for owner, name in names_used(path)
        if name not in (api["members"].get(owner, ()) if owner else (*api["names"], "nptype", "volume"))
    }
    assert {name for name in lacking if name.split(".")[1] not in FEATURE_DETECTED} == set()


def public(thing: type) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("fake", "real"),
    [("FakeRuntime", "Runtime"), ("FakeEngine", "ICudaEngine"), ("FakeContext", "IExecutionContext")],
)
def test_the_stand_ins_know_no_other_names_than_tensorrt(fake: str, real: str) -> None:
    assert public(getattr(fake_gpu, fake)) <= set(dir(getattr(trt, real)))


def test_the_stand_in_takes_what_cuda_takes() -> None:
    for name in public(fake_gpu.FakeCuda) - {"submit", "memory"}:
        function = getattr(fake_gpu.FakeCuda, name)
        signature = re.match(rf"{name}\((.*?)\)\n", getattr(real_cuda, name).__doc__ or "")
        if signature:
            wanted = signature[1].split(", ") if signature[1] else []
            assert function.__code__.co_argcount - 1 == len(wanted), name


def test_every_cuda_name_exists_in_the_installed_bindings() -> None:
    text = "".join((ROOT / path).read_text() for path in ("edge/runners/cuda.py", "edge/runners/tensorrt.py"))
    used = set(re.findall(r"\bcudart\.(\w+)", text))
    assert len(used) >= 20
    assert {name for name in used if not hasattr(real_cuda, name)} == set()
