"""Whether frames of several cameras in one batch cost less than one by one, on the CPU.

    python bench/batches.py [--rounds 60]

The shipped artefacts at batch 1, 2, 4 and 8: LiteRT's input is resized, ONNX's first dimension is changed (and the
target shapes of its Reshape nodes with it). One thread; processor time of that thread a frame, so that other
programs count little; the batches take turns. Prints the median and how many times less a frame costs than alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from edge.bundle import Bundle
from edge.native import stderr_held_back

SIZES = (1, 2, 4, 8)
BUNDLES = ("face-320x192", "face-640", "cifar10-base", "cifar10-nano")
Run = Callable[[], Any]


def litert(bundle: Bundle, batch: int) -> Run:
    """The int8 artefact with its input resized; raises RuntimeError where LiteRT cannot."""
    with stderr_held_back():
        interpreter = Interpreter(
            model_content=bundle.content(bundle.artefact("tflite", "int8")), num_threads=1
        )
        detail = interpreter.get_input_details()[0]
        shape = [batch, *detail["shape"][1:]]
        interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()
    pixels = np.random.default_rng(0).integers(-128, 127, shape).astype(detail["dtype"])
    outputs = [output["index"] for output in interpreter.get_output_details()]

    def run() -> Any:
        interpreter.set_tensor(detail["index"], pixels)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return run


def onnx_fp16(bundle: Bundle, batch: int) -> Run:
    """The fp16 artefact, made for this batch."""
    model = onnx.load_from_string(bundle.content(bundle.artefact("onnx", "fp16")))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    targets = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for constant in model.graph.initializer:
        shape = numpy_helper.to_array(constant).copy()
        if constant.name in targets and shape.size and shape[0] == 1:
            shape[0] = batch
            constant.CopyFrom(numpy_helper.from_array(shape, constant.name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.get_inputs()
    pixels = np.random.default_rng(0).integers(0, 255, [batch, *wanted.shape[1:]]).astype(np.uint8)
    return lambda: session.run(None, {wanted.name: pixels})


BACKENDS: dict[str, Callable[[Bundle, int], Run]] = {"LiteRT int8": litert, "ONNX fp16": onnx_fp16}


def frame_ms(runs: dict[int, Run], rounds: int) -> dict[int, float]:
    """Median processor time a frame by batch, milliseconds."""
    took: dict[int, list[float]] = {batch: [] for batch in runs}
    for _ in range(rounds):
        for batch, run in runs.items():
            begin_ns = time.thread_time_ns()
            run()
            took[batch].append((time.thread_time_ns() - begin_ns) / 1e6 / batch)
    return {batch: statistics.median(ms) for batch, ms in took.items()}


@click.command()
@click.option("--rounds", default=60, show_default=True)
def main(rounds: int) -> None:
    """Measure all bundles on both backends."""
    for name in BUNDLES:
        for backend, make in BACKENDS.items():
            runs, refused = {}, ""
            for batch in SIZES:
                try:
                    runs[batch] = make(Bundle.open(name), batch)
                except RuntimeError as error:
                    refused = f"; batch {batch}: {str(error).splitlines()[0]}"
            ms = frame_ms(runs, rounds)
            words = ", ".join(f"{batch}: {one:.3f} ms ({ms[1] / one:.2f} x)" for batch, one in ms.items())
            click.echo(f"{name:13} {backend:12} {words}{refused}")


if __name__ == "__main__":
    main()
