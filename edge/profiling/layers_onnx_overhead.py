"""What ONNX Runtime's profiler itself adds to the time of a node.

It writes down shapes and sizes before it looks at the clock again. On a network of small layers that is
a quarter of the sum; so it is measured, on a chain of nodes that do nothing else, and taken away.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import MissingPackageError
from edge.profiling.layers_report import middle_mean

NODES = 100
RUNS = 30
WARM_UP_RUNS = 5


def overhead_ms() -> float:
    """By node; never below zero.

    A chain of sines of one number runs without the profiler, which gives what a node costs with all
    that surrounds it, and with it, which gives what the profiler says of a node. The difference is
    rather too small than too large: the first includes the step from node to node, the second does not.

    Raises:
        MissingPackageError: no package onnx, which makes the chain.
    """
    content = _chain()
    with tempfile.TemporaryDirectory() as folder:
        plain, profiled = _session(content), _session(content, f"{folder}/ort")
        value = {"x0": np.ones(1, np.float32)}
        whole_ms = []
        for _ in range(WARM_UP_RUNS + RUNS):
            begin_ns = time.perf_counter_ns()
            plain.run(None, value)
            whole_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
            profiled.run(None, value)
        events = json.loads(Path(profiled.end_profiling()).read_bytes())
    told = [event["dur"] / 1e3 for event in events if event.get("cat") == "Node"]
    return max(0.0, middle_mean(told) - middle_mean(whole_ms[WARM_UP_RUNS:]) / NODES)


def _chain() -> bytes:
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingPackageError("onnx", "export", "Measuring ONNX Runtime's profiler") from error
    nodes = [helper.make_node("Sin", [f"x{i}"], [f"x{i + 1}"], f"sin{i}") for i in range(NODES)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x0", f"x{NODES}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _session(content: bytes, profile_prefix: str = "") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if profile_prefix:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
