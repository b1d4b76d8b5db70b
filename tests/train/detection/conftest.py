"""Small detection data sets, and detectors whose answers are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.files import sha256
from train.card import card_path

SIZE = 64
STRIDES = (8, 16, 32)
CELL = 8
GAIN = 12.0


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO folder: rows, each with `faces` as x, y, width, height, and a black picture each."""

    def write(rows: list[dict[str, Any]], **changes: Any) -> Path:
        folder = tmp_path / "coco"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number, row in enumerate(rows, start=1):
            faces = row.pop("faces", [])
            about = {
                "id": number,
                "file_name": f"{number}.png",
                "width": SIZE,
                "height": SIZE,
                "split": "test",
            }
            about |= row
            images.append(about)
            for face in faces:
                annotations.append({"id": len(annotations) + 1, "image_id": about["id"], "bbox": face})
            picture = np.zeros((SIZE, SIZE, 3), np.uint8)
            for x, y, width, height in faces:
                picture[max(0, int(y)) : int(y + height), max(0, int(x)) : int(x + width)] = 255
            cv2.imwrite(str(folder / "images" / about["file_name"]), picture)
        content = {"images": images, "annotations": annotations} | changes
        (folder / "annotations.json").write_text(json.dumps(content))
        return folder

    return write


def head_weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernels (H, W, in, out) and biases of a detector that finds white cells of 8x8 pixels, and no others.

    A cell's logit is GAIN where it is white and -GAIN where it is black; its box is the cell itself.
    """
    weights = {}
    for stride in STRIDES:
        shown = GAIN if stride == CELL else 0.0
        kernel = np.full((stride, stride, 3, 1), shown / (stride * stride * 3), np.float32)
        weights[f"score_{stride}"] = kernel, np.full(1, shown - GAIN, np.float32)
        weights[f"box_{stride}"] = np.zeros((stride, stride, 3, 4), np.float32), np.zeros(4, np.float32)
    return weights


@pytest.fixture(scope="session")
def keras_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector of `head_weights` as a `.keras` file with its card."""
    import keras

    path = tmp_path_factory.mktemp("keras") / "squares.keras"
    pixels = keras.Input((SIZE, SIZE, 3))
    heads = {
        name: keras.layers.Conv2D(kernel.shape[3], kernel.shape[0], kernel.shape[0], name=name)
        for name, (kernel, _) in head_weights().items()
    }
    model = keras.Model(pixels, [layer(pixels) for layer in heads.values()], name="squares")
    for name, (kernel, bias) in head_weights().items():
        heads[name].set_weights([kernel, bias])
    model.save(path)
    spec = {"height": SIZE, "width": SIZE, "resize": "letterbox"}
    card_path(path).write_text(
        json.dumps({"name": "squares", "task": "faces", "labels": ["face"], "input": spec})
    )
    return path


@pytest.fixture(scope="session")
def detector_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same detector as an ONNX bundle."""
    import onnx

    folder = tmp_path_factory.mktemp("bundle")
    onnx.save(_onnx_detector(), folder / "model.fp32.onnx")
    np.savez(folder / "golden.npz", inputs=np.zeros((1, SIZE, SIZE, 3), np.uint8))
    artefact = folder / "model.fp32.onnx"
    manifest = {
        "schema_version": 1,
        "name": "squares",
        "task": "faces",
        "sightline": "0.1.0",
        "input": {"height": SIZE, "width": SIZE, "resize": "letterbox"},
        "outputs": [
            {
                "name": name,
                "shape": [1, SIZE // kernel.shape[0], SIZE // kernel.shape[0], kernel.shape[3]],
                "role": name.partition("_")[0],
                "stride": kernel.shape[0],
            }
            for name, (kernel, _) in head_weights().items()
        ],
        "labels": ["face"],
        "artefacts": [
            {
                "format": "onnx",
                "precision": "fp32",
                "file": artefact.name,
                "sha256": sha256(artefact),
                "size_bytes": artefact.stat().st_size,
            }
        ],
        "golden": {
            "file": "golden.npz",
            "sha256": sha256(folder / "golden.npz"),
            "step": dict.fromkeys(head_weights(), 0.1),
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _onnx_detector() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["numbers", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    tensors = [
        numpy_helper.from_array(np.float32(128), "middle"),
        numpy_helper.from_array(np.float32(1 / 128), "scale"),
    ]
    outputs = []
    for name, (kernel, bias) in head_weights().items():
        stride, depth = kernel.shape[0], kernel.shape[3]
        inputs = ["planes", f"{name}_kernel", f"{name}_bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}_planes"], strides=[stride, stride]))
        nodes.append(helper.make_node("Transpose", [f"{name}_planes"], [name], perm=[0, 2, 3, 1]))
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), inputs[1]))
        tensors.append(numpy_helper.from_array(bias, inputs[2]))
        shape = (1, SIZE // stride, SIZE // stride, depth)
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, (1, SIZE, SIZE, 3))
    graph = helper.make_graph(nodes, "squares", [pixels], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
