"""Layers on TensorRT, as far as it goes without a GPU: on the stand-in that the runner's tests use."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_machine
import numpy as np
import pytest

from edge.bundle import Bundle
from edge.profiling.layers import profile_layers
from edge.profiling.layers_tensorrt import NOT_RUN, inspected, layer_times
from edge.runners import cuda
from edge.runners import tensorrt as runner_module
from edge.runners.cuda import CudaError

trt, fake_gpu = fake_machine.trt, fake_machine.fake_gpu

CONV = "functional_1_1/conv1_1/convolution + functional_1_1/relu1_1/Relu"
INFORMATION = {
    "Layers": [
        {
            "Name": CONV,
            "LayerType": "CaskConvolution",
            "TacticName": "sm80_xmma_fprop",
            "Inputs": [{"Name": "x", "Dimensions": [1, 3, 4, 4], "Format/Datatype": "Row major Int8 format"}],
            "Outputs": [
                {"Name": "y", "Dimensions": [1, 2, 4, 4], "Format/Datatype": "Row major linear FP16 format"}
            ],
            "Weights": {"Type": "Int8", "Count": 54},
            "Bias": {"Type": "Float", "Count": 2},
        },
        {
            "Name": "fused_tail",
            "LayerType": "kgen",
            "Metadata": "[ONNX Layer: functional_1_1/pool_1/Mean]\x1e[ONNX Layer: head_cast]",
            "Inputs": [{"Name": "y", "Dimensions": [1, 2, 4, 4], "Format": "Linear", "Datatype": "Half"}],
            "Outputs": [{"Name": "logits", "Dimensions": [1, 5], "Format": "Linear", "Datatype": "Float"}],
        },
    ],
    "Bindings": ["pixels", "logits"],
}


class ProfiledContext(fake_gpu.FakeContext):  # type: ignore[name-defined,misc]
    """Reports the layers of a run that is over, to a profiler that was attached before it."""

    profiler: Any = None
    enqueue_emits_profile = True
    refusing = False

    def report_to_profiler(self) -> bool:
        if self._world.cuda.pending or self.enqueue_emits_profile or self.profiler is None:
            self._world.cuda.broken.append("times were asked for before the run was over")
        for name, ms in ((CONV, 0.5), ("fused_tail", 0.25), ("fused_tail", 0.125)):
            self.profiler.report_layer_time(name, ms)
        return not ProfiledContext.refusing


class Inspector:
    def get_engine_information(self, format: Any) -> str:
        assert format == trt.LayerInformationFormat.JSON
        return json.dumps(INFORMATION)


class InspectedEngine(fake_gpu.FakeEngine):  # type: ignore[name-defined,misc]
    def create_engine_inspector(self) -> Inspector:
        return Inspector()


def tiny_onnx() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["c"], "functional_1_1/conv1_1/convolution", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], "functional_1_1/relu1_1/Relu"),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 4, 4, 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def bundle_with(content: bytes, make_bundle: Any) -> Any:
    """`make_bundle` of the runner's tests, with an ONNX file that can be read."""

    def make(folder: Path) -> Bundle:
        made = make_bundle(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        digest = hashlib.sha256(content).hexdigest()
        manifest["artefacts"][0] |= {"sha256": digest, "size_bytes": len(content)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "model.int8.onnx").write_bytes(content)
        return Bundle.open(made.folder)

    return make


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(fake_machine, "make_bundle", bundle_with(tiny_onnx(), fake_machine.make_bundle))
    monkeypatch.setattr(fake_gpu, "FakeContext", ProfiledContext)
    monkeypatch.setattr(fake_gpu, "FakeEngine", InspectedEngine)
    made = fake_machine.Machine(tmp_path / "tiny")
    # The stand-in is a dataclass of the names that the runner needs; these two are the profiler's.
    made.trt.IProfiler, made.trt.LayerInformationFormat = trt.IProfiler, trt.LayerInformationFormat
    monkeypatch.setattr(cuda, "runtime", lambda: made.cuda)
    monkeypatch.setattr(runner_module, "find_toolkit", lambda: made.toolkit)
    yield made
    assert made.left_over() == []


def test_layers_have_times_names_multiplications_and_traffic(machine: Any) -> None:
    report = profile_layers(machine.bundle, "tensorrt", "int8", runs=10)
    conv, tail = report.layers
    assert (conv.name, conv.kernel, conv.keras) == (CONV, "sm80_xmma_fprop", ("conv1", "relu1"))
    assert conv.ms == 0.5
    assert conv.macs == 4 * 4 * 2 * 27
    assert conv.bytes == 48 + 2 * 32 + 54 + 4 * 2
    # Two layers of one name are one, with the sum of both; its nodes are not in the file.
    assert (tail.ms, tail.kernel, tail.keras, tail.macs) == (0.375, "kgen", ("pool",), None)
    assert tail.bytes == 2 * 32 + 4 * 5
    assert NOT_RUN in report.remarks
    assert report.method == "TensorRT's IProfiler"


def test_profiled_runs_go_without_the_graph(machine: Any) -> None:
    profile_layers(machine.bundle, "tensorrt", "int8", runs=10)
    assert machine.cuda.launches == 15  # the plain runs and their warm-up


def test_a_profiler_that_is_told_nothing_is_said(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProfiledContext, "refusing", True)
    with pytest.raises(CudaError, match="could not tell its layers' times"):
        profile_layers(machine.bundle, "tensorrt", "int8", runs=10)


def test_a_plan_without_details_has_bare_names() -> None:
    assert inspected('{"Layers": ["conv", "tail"], "Bindings": []}') == {}


def test_the_profiler_is_one_of_nvidias() -> None:
    times = layer_times(trt)
    assert isinstance(times, trt.IProfiler)
    times.report_layer_time("a", 0.5)
    assert times.ms == {"a": [0.5]}


def test_every_name_exists_in_the_installed_bindings() -> None:
    for owner, names in (
        (trt.IExecutionContext, ("profiler", "enqueue_emits_profile", "report_to_profiler")),
        (trt.ICudaEngine, ("create_engine_inspector",)),
        (trt.EngineInspector, ("get_engine_information",)),
        (trt.IProfiler, ("report_layer_time",)),
    ):
        assert all(hasattr(owner, name) for name in names)
    used = {
        n.attr
        for n in ast.walk(ast.parse(Path(runner_module.__file__).read_text()))
        if isinstance(n, ast.Attribute)
    }
    assert used >= {"profiler", "enqueue_emits_profile", "report_to_profiler", "get_engine_information"}
