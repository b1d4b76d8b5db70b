"""Two tiny real ONNX models in bundles of their own: one names colours, one finds red markers."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Artefact, Bundle, Golden, InputSpec, Manifest, OutputSpec

LABELS = ("red", "green", "blue")
COLOUR_SIZE, MARKER_SIZE, STRIDE = 8, 64, 8
MARKER_FACE = 24
"""The side of the box that the detector draws around a marker, in pixels of its input."""


def _onnx(nodes: list[Any], constants: dict[str, Any], size: int, outputs: dict[str, list[int]]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, size, size, 3])
    heads = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [pixels], heads, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def _colour_onnx() -> bytes:
    """Logits: the mean red, green and blue of the uint8 (1, 8, 8, 3) input."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["logits"]),
    ]
    constants = {"axes": np.array([1, 2], np.int64), "scale": np.array(1 / 16, np.float32)}
    return _onnx(nodes, constants, COLOUR_SIZE, {"logits": [1, 3]})


def _marker_onnx() -> bytes:
    """A face wherever a cell of 8x8 pixels is pure red: of 24x24 pixels, centred on the cell."""
    from onnx import TensorProto, helper

    redness = np.ones((1, 3, STRIDE, STRIDE), np.float32) / STRIDE**2 / 8
    redness[:, 1:] *= -1
    sizes = np.array([0, 0, math.log(MARKER_FACE / STRIDE), math.log(MARKER_FACE / STRIDE)], np.float32)
    constants = {
        "redness": redness,
        "limit": np.array([-16], np.float32),
        "nothing": np.zeros((4, 3, STRIDE, STRIDE), np.float32),
        "sizes": sizes,
    }
    strides = [STRIDE, STRIDE]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "redness", "limit"], ["score"], strides=strides),
        helper.make_node("Conv", ["planes", "nothing", "sizes"], ["box"], strides=strides),
        helper.make_node("Transpose", ["score"], ["score_8"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["box"], ["box_8"], perm=[0, 2, 3, 1]),
    ]
    cells = MARKER_SIZE // STRIDE
    return _onnx(
        nodes, constants, MARKER_SIZE, {"score_8": [1, cells, cells, 1], "box_8": [1, cells, cells, 4]}
    )


def _pack(folder: Path, content: bytes, **manifest: Any) -> Path:
    folder.mkdir()
    (folder / "model.fp32.onnx").write_bytes(content)
    (folder / "golden.npz").write_bytes(b"")
    artefact = Artefact(
        format="onnx",
        precision="fp32",
        file="model.fp32.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )
    golden = Golden(file="golden.npz", sha256=hashlib.sha256(b"").hexdigest(), step={})
    made = Manifest(name=folder.name, sightline="0.1.0", artefacts=(artefact,), golden=golden, **manifest)
    (folder / "manifest.json").write_text(made.model_dump_json())
    Bundle.open(folder).verify()
    return folder


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier `mean-colour`: red, green or blue."""
    return _pack(
        tmp_path_factory.mktemp("bundles") / "mean-colour",
        _colour_onnx(),
        task="classification",
        input=InputSpec(height=COLOUR_SIZE, width=COLOUR_SIZE, resize="crop"),
        outputs=(OutputSpec(name="logits", shape=(1, 3), role="logits"),),
        labels=LABELS,
    )


@pytest.fixture(scope="session")
def faces_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector `markers`, letterbox 64x64: a face is where a cell is pure red."""
    cells = MARKER_SIZE // STRIDE
    return _pack(
        tmp_path_factory.mktemp("bundles") / "markers",
        _marker_onnx(),
        task="faces",
        input=InputSpec(height=MARKER_SIZE, width=MARKER_SIZE, resize="letterbox"),
        outputs=(
            OutputSpec(name="score_8", shape=(1, cells, cells, 1), role="score", stride=STRIDE),
            OutputSpec(name="box_8", shape=(1, cells, cells, 4), role="box", stride=STRIDE),
        ),
        labels=("face",),
    )
