"""A tiny ONNX file of the exporter's form, and a bundle around it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import Bundle


def make_onnx(precision: str, **changes: np.ndarray) -> bytes:
    """A graph of the exporter's form: uint8 NHWC, Cast, Transpose, normalise, convolutions, logits.

    `changes` replace constants by name.
    """
    from onnx import TensorProto, helper, numpy_helper

    dtype, element = (
        (np.float32, TensorProto.FLOAT) if precision == "fp32" else (np.float16, TensorProto.FLOAT16)
    )
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def node(op: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(name: str, value: Any, dtype: Any = dtype) -> str:
        constants[name] = changes.get(name, np.asarray(value, dtype))
        return name

    def quantized(tensor: str, name: str) -> str:
        if precision != "int8":
            return tensor
        grid = constant(f"{name}.scale", 1 / 32), constant(f"{name}.zero", 0, np.int8)
        return node("DequantizeLinear", name, node("QuantizeLinear", f"{name}.q", tensor, *grid), *grid)

    def weights(name: str, shape: tuple[int, ...]) -> str:
        if precision != "int8":
            return constant(name, rng.normal(0, 0.1, shape))
        values = constant(f"{name}.q", rng.integers(-127, 128, shape), np.int8)
        grid = (
            constant(f"{name}.scale", np.full(shape[0], 1 / 512)),
            constant(f"{name}.zero", [0] * shape[0], np.int8),
        )
        return node("DequantizeLinear", name, values, *grid, axis=0)

    tensor = node("Transpose", "nchw", node("Cast", "cast", "pixels", to=element), perm=[0, 3, 1, 2])
    tensor = node(
        "Mul", "normalised", node("Sub", "centred", tensor, constant("128", 128)), constant("1/128", 1 / 128)
    )
    for i, (inside, outside, size) in enumerate([(3, 32, 3), (32, 64, 3), (64, 10, 8)]):
        tensor = quantized(tensor, f"range{i}")
        bias = constant(f"bias{i}", rng.normal(size=outside))
        tensor = node("Conv", f"conv{i}", tensor, weights(f"weights{i}", (outside, inside, size, size)), bias)
        if size == 3:
            tensor = node(
                "MaxPool", f"pool{i}", node("Relu", f"relu{i}", tensor), kernel_shape=[2, 2], strides=[2, 2]
            )
    tensor = node("Reshape", "flat", tensor, constant("shape", [1, 10], np.int64))
    node("Cast", "logits", tensor, to=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 38, 38, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 19 if precision == "int8" else 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def make_bundle(folder: Path, content: bytes) -> Bundle:
    """A bundle with the one artefact `model.int8.onnx`."""
    folder.mkdir()
    (folder / "model.int8.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    artefact = {"format": "onnx", "precision": "int8", "file": "model.int8.onnx"}
    manifest = {
        "name": "tiny",
        "task": "classification",
        "sightline": "0",
        "input": {"height": 38, "width": 38, "resize": "crop"},
        "outputs": [{"name": "logits", "shape": [1, 10], "role": "logits"}],
        "labels": [str(i) for i in range(10)],
        "artefacts": [{**artefact, "sha256": digest, "size_bytes": len(content)}],
        "golden": {"file": "golden.npz", "sha256": digest, "step": {"logits": 0.1}},
    }
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, **manifest}))
    return Bundle.open(folder)
