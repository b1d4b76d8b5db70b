"""Dense layers as convolutions: the per-channel rounding of matrix products does not convert to TFLite."""

from __future__ import annotations

from dataclasses import replace

from calibration.graph import FLOAT_ALONE, Graph, Node, Weights
from calibration.kinds import ACTIVATIONS, GLOBAL_POOLS, MERGES
from calibration.reading import free_name
from edge.errors import InputError

_ON_MAPS_TOO = ACTIVATIONS | MERGES | {"DepthwiseConv2D"}
"""Layers that do to a (1, 1, C) map what they do to a vector; a depthwise one is a norm that did not fold."""


def dense_as_convolutions(graph: Graph) -> Graph:
    """Write dense layers as convolutions: over the whole map after Flatten, 1x1 elsewhere.

    Their outputs are then (1, 1, units) maps; a Reshape brings (units,) back where it is wanted. A map that is
    flattened for other layers becomes one of a single place.
    """
    lifted: dict[str, Node] = {}  # (C,) in the old graph, (1, 1, C) in the new one
    flats: dict[str, Node] = {}  # of those that somebody wants as (C,) again, by the name in the old graph
    nodes: list[Node] = []

    def flat(name: str) -> str:
        if name not in flats:
            flats[name] = _flat(lifted[name], {node.name for node in (*graph.nodes, *flats.values())})
            nodes.append(flats[name])
        return flats[name].name

    for node in graph.nodes:
        maps = bool(node.inputs) and all(name in lifted for name in node.inputs)
        if node.kind == "Dense":
            nodes.append(_dense(node, graph, graph[node.inputs[0]], lifted))
        elif _flattens_for_others(graph, node):
            shape = (1, 1, *node.shape)
            config = {"name": node.name, "target_shape": shape}
            nodes.append(replace(node, kind="Reshape", config=config, shape=shape))
        elif node.kind in GLOBAL_POOLS and not node.config["keepdims"]:
            nodes.append(replace(node, config={**node.config, "keepdims": True}, shape=(1, 1, *node.shape)))
        elif maps and node.kind in _ON_MAPS_TOO:
            nodes.append(_on_map(node))
        elif node.kind in ("Add", "Multiply") and len(node.shape) == 3:
            nodes.append(node)  # of a map and, maybe, a vector that is (1, 1, C) now: it broadcasts
        else:
            nodes.append(replace(node, inputs=tuple(flat(n) if n in lifted else n for n in node.inputs)))
            continue
        if len(node.shape) == 1:
            lifted[node.name] = nodes[-1]
    outputs = {head: flat(name) if name in lifted else name for head, name in graph.outputs.items()}
    return Graph(tuple(nodes), outputs)


def _on_map(node: Node) -> Node:
    config = {**node.config, "axis": -1} if node.kind == "Concatenate" else node.config
    return replace(node, config=config, shape=(1, 1, *node.shape))


def _flattens(node: Node) -> bool:
    return node.kind in ("Flatten", "Reshape") and len(node.shape) == 1


def _flattens_for_others(graph: Graph, node: Node) -> bool:
    """Whether others read its vector than dense layers, which read the map before it as a whole."""
    if not _flattens(node):
        return False
    whole = len(graph[node.inputs[0]].shape) == 3
    kinds = {reader.kind for reader in graph.consumers(node.name)}
    return bool(kinds & _ON_MAPS_TOO) or ("Dense" in kinds and not whole)


def _dense(node: Node, graph: Graph, source: Node, lifted: dict[str, Node]) -> Node:
    kernel, *bias = node.weights
    size: tuple[int, ...] = (1, 1)
    reads = source.name
    if _flattens(source) and len(graph[source.inputs[0]].shape) == 3:
        reads = source.inputs[0]
        size = graph[reads].shape[:2]
    elif len(source.shape) not in (1, 3) or (len(source.shape) == 1 and source.name not in lifted):
        raise InputError(
            f"Dense layer '{node.name}' reads {source.shape} of '{source.name}': int8 knows dense layers on maps "
            f"(height, width, channels) and on vectors. {FLOAT_ALONE}"
        )
    kept = {key: node.config[key] for key in ("name", "use_bias", "activation")}
    weights: Weights = (kernel.reshape(*size, -1, kernel.shape[1]), *bias)
    shape = (1, 1, *node.shape) if len(node.shape) == 1 else node.shape
    config = {**kept, "filters": kernel.shape[1], "kernel_size": size}
    return replace(node, kind="Conv2D", config=config, weights=weights, inputs=(reads,), shape=shape)


def _flat(node: Node, taken: set[str]) -> Node:
    shape, name = node.shape[-1:], free_name(f"{node.name}_flat", taken)
    return Node(name, "Reshape", {"name": name, "target_shape": shape}, (), (node.name,), shape)
