"""An ONNX file as the lint reads it: who makes a tensor, who reads it, its type and its constant."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that only move values: rounding before or after them is the same, and TensorRT exchanges them."""

OPSET_OF_TYPES = 19
"""Before it ONNX takes every dequantized tensor for float32, whatever its scale is."""


@dataclass(frozen=True)
class OnnxView:
    """One graph; nodes are ONNX's NodeProto, types NumPy's.

    Attributes:
        opset: of ONNX's own operators.
        inputs, outputs: by name, (type, sizes); a size that is not fixed is 0.
        constants: initializers and Constant nodes.
        maker: by tensor, the node that makes it.
        readers: by tensor, the nodes that read it.
        dtypes: by tensor, as far as ONNX's inference knows it.
    """

    opset: int
    nodes: tuple[Any, ...]
    inputs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
    outputs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
    constants: dict[str, NDArray[Any]]
    maker: dict[str, Any]
    readers: dict[str, list[Any]]
    dtypes: dict[str, np.dtype[Any]]

    @classmethod
    def read(cls, content: bytes) -> OnnxView:
        """Parse, and infer the tensors' types."""
        import onnx

        model = onnx.load_from_string(content)
        own = next(entry for entry in model.opset_import if not entry.domain)
        opset, own.version = own.version, max(own.version, OPSET_OF_TYPES)
        # Types that the file states may be stale; without them the inference states its own.
        del model.graph.value_info[:]
        graph = onnx.shape_inference.infer_shapes(model).graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                readers[name].append(node)
        inputs, outputs = ({v.name: _described(v) for v in values} for values in (graph.input, graph.output))
        inferred = {value.name: _described(value)[0] for value in graph.value_info}
        ends = {name: dtype for name, (dtype, _) in (inputs | outputs).items()}
        return cls(
            opset=opset,
            nodes=tuple(graph.node),
            inputs=inputs,
            outputs=outputs,
            constants=constants,
            maker={name: node for node in graph.node for name in node.output},
            readers=readers,
            dtypes=inferred | ends | {name: value.dtype for name, value in constants.items()},
        )

    def of_type(self, *operators: str) -> list[Any]:
        """The nodes of these operators, in the file's order."""
        return [node for node in self.nodes if node.op_type in operators]

    def made_by(self, tensor: str, *operators: str) -> Any:
        """The node that makes a tensor where it is of one of these operators; else None."""
        node = self.maker.get(tensor)
        return node if node is not None and node.op_type in operators else None

    def origin(self, tensor: str) -> str:
        """The tensor that one is, but for its shape."""
        while (mover := self.made_by(tensor, *MOVING)) is not None:
            tensor = mover.input[0]
        return tensor

    def users(self, tensor: str) -> list[Any]:
        """The nodes that read a tensor in any shape."""
        found = []
        for reader in self.readers.get(tensor, []):
            found += self.users(reader.output[0]) if reader.op_type in MOVING else [reader]
        return found

    def rounding(self, tensor: str) -> Any:
        """The QuantizeLinear that a tensor went through, where it is the output of a Q/DQ pair; else None."""
        dequantize = self.made_by(self.origin(tensor), DEQUANTIZE)
        return self.made_by(self.origin(dequantize.input[0]), QUANTIZE) if dequantize is not None else None

    def quantized(self, tensor: str) -> bool:
        """Whether a tensor comes out of a DequantizeLinear."""
        return self.made_by(self.origin(tensor), DEQUANTIZE) is not None

    def floats(self, *tensors: str) -> set[np.dtype[Any]]:
        """The float types among the tensors, as far as they are known."""
        known = (self.dtypes[name] for name in tensors if name in self.dtypes)
        return {dtype for dtype in known if dtype.kind == "f"}

    @cached_property
    def body(self) -> np.dtype[Any]:
        """The network's own float type: float16 where any tensor between nodes has it, else float32."""
        half = np.dtype(np.float16)
        inner = (self.dtypes.get(name) for node in self.nodes for name in node.output)
        return half if half in inner else np.dtype(np.float32)


def attribute(node: Any, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _described(value: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    from onnx import helper

    tensor = value.type.tensor_type
    return helper.tensor_dtype_to_np_dtype(tensor.elem_type), tuple(d.dim_value for d in tensor.shape.dim)
