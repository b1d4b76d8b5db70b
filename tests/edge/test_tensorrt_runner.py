"""The TensorRT runner as far as it goes without a GPU.

The probe is the real one; behind it stands a GPU in host memory (`fake_gpu.py`), whose names a
test compares with NVIDIA's installed bindings.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_machine
import numpy as np
import pytest

from edge.errors import BundleError, InputError, MissingPackageError, SightlineError
from edge.runners import cuda
from edge.runners import tensorrt as runner_module
from edge.runners.plans import Toolkit

fake_gpu, Machine, make_bundle = fake_machine.fake_gpu, fake_machine.Machine, fake_machine.make_bundle
trt, real_cuda = fake_gpu.trt, fake_gpu.real

ROOT = Path(__file__).parents[2]
IN, OUT, PIXELS, LOGITS = fake_machine.IN, fake_machine.OUT, fake_machine.PIXELS, fake_machine.LOGITS
ORIN = fake_machine.ORIN


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
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
def test_pixels_go_up_and_float32_heads_come_down(machine: Any, dtype: Any) -> None:
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


def test_an_output_that_is_no_head_gets_a_buffer_but_no_copy(machine: Any) -> None:
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
def test_without_a_graph_it_enqueues_each_run(machine: Any, failing: str) -> None:
    machine.cuda.failing[failing] = 0
    machine.trt.refusing.add(failing)
    runner = machine.runner()
    np.testing.assert_array_equal(runner.infer(picture(1))["logits"], expected(1))
    np.testing.assert_array_equal(runner.infer(picture(9))["logits"], expected(9))
    runner.close()
    assert machine.cuda.launches == 0


def test_pixels_of_another_shape_or_type_are_refused(machine: Any) -> None:
    runner = machine.runner()
    with pytest.raises(InputError, match=r"Expected uint8 pixels \(1, 4, 4, 3\), got uint8 \(1, 5, 4, 3\)"):
        runner.infer(np.zeros((1, 5, 4, 3), np.uint8))
    with pytest.raises(InputError, match="got float32"):
        runner.infer(np.zeros((1, 4, 4, 3), np.float32))  # type: ignore[arg-type]
    runner.close()


def test_a_failing_gpu_is_named(machine: Any) -> None:
    runner = machine.runner()
    machine.cuda.failing["cudaStreamSynchronize"] = 0
    with pytest.raises(
        cuda.CudaError, match="cudaStreamSynchronize failed: cudaErrorStreamCaptureUnsupported"
    ):
        runner.infer(picture(1))
    machine.cuda.failing.clear()
    machine.cuda.cudaGetLastError()
    runner.close()


@pytest.mark.parametrize("failing", ["cudaGraphLaunch", "cudaMemcpyAsync"])
def test_a_run_that_fails_is_named_and_the_next_one_goes_well(machine: Any, failing: str) -> None:
    if failing == "cudaMemcpyAsync":
        machine.cuda.failing["cudaGraphInstantiate"] = 0  # without a graph each run copies by itself
    runner = machine.runner()
    machine.cuda.failing[failing] = 0
    with pytest.raises(cuda.CudaError, match=f"CUDA's {failing} failed: cudaErrorInvalidValue"):
        runner.infer(picture(1))
    del machine.cuda.failing[failing]
    machine.cuda.cudaGetLastError()
    np.testing.assert_array_equal(runner.infer(picture(2))["logits"], expected(2))
    runner.close()


def test_heads_that_were_told_stay_when_the_runner_is_closed(machine: Any) -> None:
    runner = machine.runner()
    first = runner.infer(picture(1))["logits"]
    runner.infer(picture(2))
    runner.close()
    np.testing.assert_array_equal(first, expected(1))


def test_closing_gives_everything_back_in_order_and_only_once(machine: Any) -> None:
    runner = machine.runner()
    runner.infer(picture(1))
    machine.trt.died.clear()
    runner.close()
    assert machine.trt.died == ["FakeContext", "FakeEngine", "FakeRuntime"]
    assert machine.left_over() == []
    runner.close()


def test_closing_after_an_interrupted_run_waits_for_the_gpu(
    machine: Any, monkeypatch: pytest.MonkeyPatch
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
def test_what_tensorrt_refuses_is_said(machine: Any, refusing: str, message: str) -> None:
    machine.trt.refusing.add(refusing)
    with pytest.raises(SightlineError, match=message):
        machine.runner()


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("failing", ["cudaMalloc", "cudaHostAlloc"])
def test_a_full_gpu_is_said(machine: Any, failing: str, after: int) -> None:
    machine.cuda.failing[failing] = after
    with pytest.raises(cuda.CudaError, match=f"{failing} failed: cudaErrorMemoryAllocation"):
        machine.runner()
    machine.cuda.cudaGetLastError()


@pytest.mark.parametrize(
    ("failing", "after"),
    [("cudaStreamCreateWithFlags", 0), ("cudaMemcpyAsync", 0), ("cudaMemcpyAsync", 1)],
)
def test_a_gpu_that_fails_at_the_start_is_named(machine: Any, failing: str, after: int) -> None:
    machine.cuda.failing[failing] = after
    with pytest.raises(cuda.CudaError, match=f"CUDA's {failing} failed"):
        machine.runner()
    machine.cuda.failing.clear()
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
    machine: Any, tensors: dict[str, Any]
) -> None:
    machine.trt.tensors = tensors
    with pytest.raises(BundleError, match=r"tensors are .*the manifest states others") as error:
        machine.runner()
    assert all(f"{name} {shape}" in str(error.value) for name, (_, shape, _) in tensors.items())


def test_the_probe_comes_before_all_else(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.cuda.gpus = 0
    monkeypatch.setattr(runner_module, "find_toolkit", lambda: pytest.fail("TensorRT was touched"))
    with pytest.raises(cuda.NoGpu):
        machine.runner()


def test_a_plan_of_another_tensorrt_is_not_loaded(machine: Any) -> None:
    machine.toolkit = Toolkit(machine.trt, "tensorrt", "10.16.1")
    with pytest.raises(
        InputError,
        match=r"no int8 plan for TensorRT 10.16.1 on Orin.*one for TensorRT 10.3.0, not 10.16.1\. .*sightline build",
    ):
        machine.runner()


def test_without_a_plan_it_says_how_to_build_one(machine: Any) -> None:
    machine.path.unlink()
    with pytest.raises(InputError, match=r"sightline build \S+tiny --precision int8") as error:
        machine.runner()
    assert "There is one" not in str(error.value)


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
    assert "pip install '.[jetpack6]'" in message


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
    with pytest.raises(MissingPackageError, match=r"'\.\[jetpack"):
        cuda.probe()


# --- names: what the stand-ins answer to exists in NVIDIA's bindings (our own calls: test_tensorrt_contract.py)


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
