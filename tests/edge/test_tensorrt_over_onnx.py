"""The shipped bundles through the TensorRT path with everything real but the GPU.

NVIDIA's builder makes the plan, `sightline build` writes it, the runner reads it, checks its tensors and
moves pixels and heads through buffers, stream and graph of a GPU in host memory (`fake_gpu.py`), on which
ONNX Runtime computes what the plan was built from. No device has run these plans yet.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import pytest

from edge.bundle import Bundle, Precision, shipped
from edge.golden import check
from edge.runners import cuda, plans
from edge.runners import tensorrt as runner_module
from edge.runners.onnx import OnnxRunner
from edge.runners.plans import Toolkit, usable_plan
from edge.runners.tensorrt import TensorrtRunner
from export.build import build_into

pytest.importorskip("onnxruntime")

trt = fake_gpu.trt
ORIN = cuda.Device("Orin", "8.7")
TYPES = {"uint8": trt.DataType.UINT8, "float32": trt.DataType.FLOAT}


class Machine:
    """A machine with a GPU in host memory and one shipped bundle, whose plan was really built."""

    def __init__(self, folder: Path, name: str, precision: Precision) -> None:
        shutil.copytree(Bundle.open(name).folder, folder, ignore=shutil.ignore_patterns("plans"))
        self.bundle, self.precision = Bundle.open(folder), precision
        self.cuda = fake_gpu.FakeCuda()
        self.trt = fake_gpu.FakeTrt(self.cuda, {})
        self.toolkit = Toolkit(self.trt, "tensorrt_rtx", trt.__version__)
        _, plan = build_into(self.bundle, precision, self.toolkit, ORIN)
        sides = ((trt.TensorIOMode.INPUT, plan.inputs), (trt.TensorIOMode.OUTPUT, plan.outputs))
        self.trt.tensors = {t.name: (mode, t.shape, TYPES[t.dtype]) for mode, side in sides for t in side}
        self.trt.plan = plan.content
        self.trt.compute = fake_gpu.over_onnx_runtime(
            self.bundle.content(self.bundle.artefact("onnx", precision))
        )

    def heads(self, pixels: Any) -> dict[str, Any]:
        """What the TensorRT runner tells of one picture."""
        runner = TensorrtRunner(self.bundle, self.precision, 1)
        try:
            return dict(runner.infer(pixels))
        finally:
            runner.close()


@pytest.fixture(params=[(name, precision) for name in shipped() for precision in ("int8", "fp16")])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    made = Machine(tmp_path / "bundle", *request.param)
    monkeypatch.setattr(cuda, "runtime", lambda: made.cuda)
    for module in (runner_module, plans):
        monkeypatch.setattr(module, "find_toolkit", lambda: made.toolkit)
    yield made
    assert made.cuda.broken == []
    assert made.cuda.live == {}


def pictures(bundle: Bundle, count: int) -> Any:
    """uint8 (count, H, W, 3)."""
    spec = bundle.manifest.input
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, spec.height, spec.width, 3), dtype=np.uint8)


def test_a_built_plan_runs_its_heads_are_the_onnx_files_and_the_golden_ones(machine: Machine) -> None:
    assert usable_plan(machine.bundle)
    inputs = pictures(machine.bundle, 2)
    runner = TensorrtRunner(machine.bundle, machine.precision, 1)
    onnx = OnnxRunner(machine.bundle, machine.precision)
    for picture in inputs:
        ours, theirs = runner.infer(picture[None]), onnx.infer(picture[None])
        assert list(ours) == list(theirs)
        for name, head in ours.items():
            assert head.dtype == np.float32
            np.testing.assert_array_equal(head, theirs[name])
    runner.close()
    onnx.close()
    assert machine.cuda.launches == 2
    # The way a user takes; what is expected there are the heads of Keras, or of its int8 simulation.
    check(machine.bundle, "tensorrt", machine.precision)
    golden = np.load(machine.bundle.folder / machine.bundle.manifest.golden.file)
    assert machine.cuda.launches == 2 + len(golden["inputs"])


@pytest.mark.parametrize("machine", [("cifar10-convnetjs", "int8")], indirect=True)
def test_the_graph_and_the_way_without_it_give_the_same_heads(machine: Machine) -> None:
    (picture,) = pictures(machine.bundle, 1)[:, None]
    with_graph = machine.heads(picture)
    assert machine.cuda.launches == 1
    machine.cuda.failing["cudaGraphInstantiate"] = 0
    without = machine.heads(picture)
    assert machine.cuda.launches == 1
    np.testing.assert_array_equal(with_graph["logits"], without["logits"])
