"""Each int8 file against its own simulation, layer by layer: every layer of the simulation is given what the file
itself gave before it, so that no difference is counted twice."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from calibration.graph import Graph
from calibration.plan import Plan
from calibration.quantize import TensorParams
from calibration.rounding import rounded_nodes
from calibration.simulate import simulate
from edge.pixels import Image, normalise
from export import lint, onnx, tflite

Tensors = dict[str, np.ndarray]
Steps = dict[str, np.ndarray]
"""By layer, how many quantization steps each of its outputs lies from the simulation's."""


def named_plainly(graph: Graph) -> Graph:
    """The same graph, its layers named `at0x`, `at1x`, ...: TensorFlow counts the uses of a name, so that `relu_1`
    may be the second use of `relu`."""
    names = {node.name: f"at{index}x" for index, node in enumerate(graph.nodes)}
    nodes = (
        replace(
            node,
            name=names[node.name],
            config={**node.config, "name": names[node.name]},
            inputs=tuple(names[name] for name in node.inputs),
        )
        for node in graph.nodes
    )
    return Graph(tuple(nodes), {head: names[name] for head, name in graph.outputs.items()})


def tflite_steps(graph: Graph, plan: Plan, images: Image) -> Steps:
    """TensorFlow's own int8 kernels, since XNNPACK does not show what lies between its operators."""
    grids = {
        node.name: plan.params(graph, node, "tflite") for node in rounded_nodes(graph, plan.float_layers)
    }
    found = _tflite_tensors(tflite.int8(graph, plan), grids, images)
    names = {node.name: f"{node.name}_round" for node in rounded_nodes(graph, plan.float_layers)}
    values = {
        f"{name}_round": _real(plan.params(graph, graph[name], "tflite"), v) for name, v in found.items()
    }
    values["input_round"] = normalise(images)
    simulation = simulate(graph, plan, "tflite")
    return {
        name: np.abs(_given(simulation, names[name], values) - values[names[name]])
        / plan.params(graph, graph[name], "tflite").scale
        for name in found
    }


def onnx_steps(graph: Graph, plan: Plan, images: Image) -> Steps:
    """ONNX Runtime; of the float heads a step is that of their range. The file obeys TensorRT's rules too."""
    content = onnx.int8(graph, plan)
    assert lint.lint(content) == ()
    simulation = simulate(graph, plan, "onnx")
    rounds = [layer.name for layer in simulation.layers if type(layer).__name__ == "Round"]
    found, heads = _onnx_tensors(content, rounds, list(graph.outputs), images)
    scales = {name: simulation.get_layer(name).params.scale for name in rounds}
    values = {name: scales[name] * found[name].astype(np.float32) for name in rounds}
    values = {name: _like(simulation.get_layer(name).output, v) for name, v in values.items()}
    steps = {
        name: np.abs(_given(simulation, name, values) - values[name]) / scales[name]
        for name in rounds
        if _sources(simulation, name)
    }
    for head, name in graph.outputs.items():
        wanted = _given(simulation, name, values)
        scale = plan.params(graph, graph[name], "onnx").scale
        steps[head] = np.abs(heads[head].reshape(wanted.shape) - wanted) / scale
    return steps


def run_tflite(content: bytes, images: Image) -> np.ndarray:
    """The one head's real values as LiteRT computes them, an image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (pixels,), (head,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(pixels["index"], (image ^ 0x80).view(np.int8)[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(head["index"])[0].copy())
    return _real(TensorParams(*head["quantization"]), np.stack(rows))


def run_onnx(content: bytes, images: Image) -> np.ndarray:
    """The same as ONNX Runtime computes them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixels": image[None]})[0] for image in images])


def _tflite_tensors(content: bytes, grids: dict[str, TensorParams], images: Image) -> Tensors:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    made = {op["outputs"][0] for op in interpreter._get_ops_details()}
    tensors = [detail for detail in interpreter.get_tensor_details() if detail["index"] in made]
    places = {name: _place(tensors, name, params) for name, params in grids.items()}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in grids}
    for image in images:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], (image ^ 0x80).view(np.int8)[None]
        )
        interpreter.invoke()
        for name, place in places.items():
            rows[name].append(interpreter.get_tensor(place)[0].copy())
    return {name: np.stack(row) for name, row in rows.items()}


def _place(tensors: list[Any], name: str, params: TensorParams) -> int:
    """The tensor that a layer gives: the converter names it by the last of the layers that it fused.

    A tensor on another grid is a copy of it for a Concatenate. Of a layer in float it is what QUANTIZE gives.
    """
    pattern = re.compile(rf"[^/]*/{re.escape(name)}(_round)?(_\d+)?/")
    found = [
        detail["index"]
        for detail in tensors
        if pattern.match(detail["name"])
        and np.isclose(detail["quantization"][0], params.scale, rtol=1e-6)
        and detail["quantization"][1] == params.zero_point
    ]
    assert found, f"no tensor of {name} among {sorted(detail['name'] for detail in tensors)}"
    return int(found[-1])


def _onnx_tensors(
    content: bytes, rounds: list[str], heads: list[str], images: Image
) -> tuple[Tensors, Tensors]:
    import onnx as onnx_package
    import onnxruntime

    model = onnx_package.load_from_string(content)
    quantize = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    places = {name: _quantized(quantize, name) for name in rounds}
    inner = list(dict.fromkeys(places.values()))
    for place in inner:
        info = onnx_package.helper.make_tensor_value_info(place, onnx_package.TensorProto.INT8, None)
        model.graph.output.append(info)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [session.run([*inner, *heads], {"pixels": image[None]}) for image in images]
    values = dict(zip([*inner, *heads], map(np.concatenate, zip(*rows, strict=True)), strict=True))
    return {name: values[place] for name, place in places.items()}, {head: values[head] for head in heads}


def _quantized(nodes: list[Any], name: str) -> str:
    """The output of the QuantizeLinear of a rounding layer; behind a Concat or Slice it has the name of that."""
    own = re.compile(rf"/{re.escape(name)}(_\d+)?/[^/]*_quantize$")
    joined = re.compile(rf"/{re.escape(name.removesuffix('_round'))}(_\d+)?/(concat|strided_slice)_quantize$")
    for pattern in (own, joined):
        if found := [n.output[0] for n in nodes if pattern.search(n.name)]:
            return str(found[0])
    raise AssertionError(f"no QuantizeLinear of {name} among {[n.name for n in nodes]}")


def _real(params: Any, integers: np.ndarray) -> np.ndarray:
    return (params.scale * (integers.astype(np.float32) - params.zero_point)).astype(np.float32)


def _like(tensor: Any, values: np.ndarray) -> np.ndarray:
    """In the simulation's own layout: ONNX has the channels first."""
    return values.transpose(0, 2, 3, 1) if len(tensor.shape) == 4 else values


def _given(simulation: Any, name: str, values: Tensors) -> np.ndarray:
    """What the simulation makes of the real values of the rounding layers before `name`."""
    import keras

    sources = _sources(simulation, name)
    part = keras.Model(
        [simulation.get_layer(source).output for source in sources], simulation.get_layer(name).output
    )
    return np.asarray(part([values[source] for source in sources], training=False))


def _sources(simulation: Any, name: str) -> list[str]:
    """The rounding layers that `name` reads, with nothing rounded in between."""
    found: dict[str, None] = {}

    def look(tensor: Any) -> None:
        layer = tensor._keras_history.operation
        if type(layer).__name__ == "Round":
            found[layer.name] = None
        else:
            for before in layer._inbound_nodes[0].arguments.keras_tensors:
                look(before)

    for before in simulation.get_layer(name)._inbound_nodes[0].arguments.keras_tensors:
        look(before)
    return list(found)
