"""A machine with a GPU in host memory (`fake_gpu.py`), TensorRT 10.3 and a bundle with a plan."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import fake_gpu

from edge.bundle import Bundle
from edge.runners import cuda
from edge.runners.plans import Identity, PlanHeader, Toolkit, packed, plan_path
from edge.runners.tensorrt import TensorrtRunner

trt = fake_gpu.trt
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
        artefact = self.bundle.artefact("onnx", "int8")
        fields = {
            **Identity.here(artefact, self.toolkit, ORIN).model_dump(),
            "plan_sha256": hashlib.sha256(b"a plan").hexdigest(),
            "build_seconds": 1.0,
            "built": "2026-01-01T00:00:00+00:00",
        }
        header = PlanHeader.model_validate({**fields, **changes})
        self.path.write_bytes(packed(header, content))

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
