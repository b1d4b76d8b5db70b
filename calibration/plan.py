"""The quantization plan: every decision, taken once, that both int8 exporters follow."""

from __future__ import annotations

import base64
import difflib
import math
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from calibration import observers
from calibration.equalise import LARGEST_FACTOR, equalised, equalising_factors
from calibration.gates import gates_apart
from calibration.graph import Graph, Node
from calibration.kinds import WEIGHTED
from calibration.lower import FIXED_RANGES, activation_of
from calibration.observers import KEEP_RANGE, Progress
from calibration.provenance import TOOLS, Provenance, StalePlan, graph_sha256, list_sha256
from calibration.quantize import (
    LARGEST_SCALE,
    PIXELS,
    SMALLEST_SCALE,
    TensorParams,
    Up,
    asymmetric,
    kernel_scales,
    rounded_kernel,
    symmetric,
)
from calibration.ranges import Range
from calibration.samples import Samples, pixels_sha256
from calibration.settings import Settings
from edge.bundle import Format
from edge.errors import InputError
from edge.files import write_text
from edge.machine import package_versions

Values = tuple[float, ...]

LARGEST_SPAN = 255 * LARGEST_SCALE
"""Of a range, in real units."""

MOST_STEPS = 128
"""Of a layer's output to one of its sums' own: half of what XNNPACK takes, see `wide_enough`."""


class Plan(BaseModel):
    """Ranges, scales and repairs by node name.

    Attributes:
        settings: how the ranges were chosen, which repairs were made, and what stays in float.
        ranges: of each measured node's output, in real units.
        kernel_scales: of each convolution, one an output channel, in real units a step.
        equalised: of a convolution, what each output channel was divided by, see `calibration.equalise`.
        bias_shifts: by target, of a convolution, what is added to each output channel's bias: the errors that it takes
            back are those of where that target rounds.
        rounding: of a convolution, which weights round up: bits in the kernel's order, packed, as base64.
            A convolution that is not named rounds to the nearest.
        samples: how many images were watched; sample_ids: which ones; source: where they came from.
        provenance: what all this was decided from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    ranges: dict[str, Range]
    kernel_scales: dict[str, Values]
    equalised: dict[str, Values] = {}
    bias_shifts: dict[Format, dict[str, Values]] = {}
    rounding: dict[str, str] = {}
    samples: int = Field(ge=1)
    sample_ids: tuple[str, ...] = ()
    source: str
    provenance: Provenance

    @field_validator("ranges")
    @classmethod
    def _can_be_spanned(cls, ranges: dict[str, Range]) -> dict[str, Range]:
        for name, (low, high) in ranges.items():
            if not (low <= high and _spanned((low, high)) <= LARGEST_SPAN):
                raise InputError(
                    f"The range of layer '{name}' is {low} to {high}; expected two numbers, the smaller first, no "
                    f"further apart than {LARGEST_SPAN:.3g}, which is what int8's steps can span."
                )
        return ranges

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan of a file that `write` wrote.

        Raises:
            InputError: it is missing, or is no plan.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(
                f"No plan at {path} ({error.strerror}). `python -m calibration --out` writes one."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(
                f"{path} is not a quantization plan: {where}: {first['msg']}. Calibrate anew."
            ) from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @property
    def method(self) -> str:
        """The range method, the repairs and what stays in float, in words."""
        return str(self.settings)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Convolutions that stay in float, with the activation that is fused into each."""
        return self.settings.float_layers

    def in_float(self, *layers: str) -> Plan:
        """The same plan with these layers, and no others, in float; its provenance says so."""
        settings = self.settings.model_copy(update={"float_layers": layers})
        made_from = self.provenance.model_copy(update={"method": str(settings)})
        return self.model_copy(update={"settings": settings, "provenance": made_from})

    def params(self, graph: Graph, node: Node, target: Format) -> TensorParams:
        """How the output of `node` is rounded for a target."""
        if node.kind == "InputLayer":
            return PIXELS
        if node.kind in KEEP_RANGE:
            return self.params(graph, graph[node.inputs[0]], target)
        return (asymmetric if target == "tflite" else symmetric)(*self.ranges[node.name])

    def output_steps(self, graph: Graph) -> dict[str, float]:
        """By head, one step of the TFLite output, in the head's own unit."""
        nodes = {head: graph[name] for head, name in graph.outputs.items()}
        return {head: self.params(graph, node, "tflite").scale for head, node in nodes.items()}

    def without_shifts(self, target: Format) -> Plan:
        """The same with biases corrected by nothing: `prepared` then computes what the float model computes.

        By zeros, so that each layer keeps a bias where the correction had given it one.
        """
        zeros = {name: (0.0,) * len(shift) for name, shift in self.bias_shifts.get(target, {}).items()}
        return self.model_copy(update={"bias_shifts": {**self.bias_shifts, target: zeros}})

    def prepared(self, graph: Graph, target: Format) -> Graph:
        """The folded graph with its float repairs: equalised, biases shifted. What the target rounds is this.

        A layer that stays in float keeps its bias: the shift was for the errors of its rounded kernel.

        Raises:
            StalePlan: a layer that shall stay in float is none of the graph's convolutions.
        """
        self._check_float_layers(graph)
        repaired = equalised(equalisable(graph, self.settings), self.equalised)
        shifts = {
            name: np.array(shift, np.float32)
            for name, shift in self.bias_shifts.get(target, {}).items()
            if name not in self.float_layers
        }
        nodes = (with_bias(n, shifts[n.name]) if n.name in shifts else n for n in repaired.nodes)
        return replace(repaired, nodes=tuple(nodes))

    def rounded(self, graph: Graph, target: Format) -> Graph:
        """The prepared graph with every int8 kernel at the real values that its integers stand for."""
        ready = self.prepared(graph, target)
        return replace(ready, nodes=tuple(map(self.with_rounded_kernel, ready.nodes)))

    def with_rounded_kernel(self, node: Node) -> Node:
        """A node of the prepared graph with its kernel rounded; others, and those in float, as they are."""
        if node.kind not in WEIGHTED or node.name in self.float_layers:
            return node
        scales = np.array(self.kernel_scales[node.name], np.float32)
        return replace(node, weights=(rounded_kernel(node, scales, self._up(node)), *node.weights[1:]))

    def _up(self, node: Node) -> Up | None:
        if node.name not in self.rounding:
            return None
        kernel = node.weights[0]
        packed = np.frombuffer(base64.b64decode(self.rounding[node.name]), np.uint8)
        return np.unpackbits(packed, count=kernel.size).astype(bool).reshape(kernel.shape)

    def _check_float_layers(self, graph: Graph) -> None:
        known = [node.name for node in graph.nodes if node.kind in WEIGHTED]
        for name in self.float_layers:
            if name not in known:
                near = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.0))
                raise StalePlan(
                    f"The plan leaves '{name}' in float, but the folded network has no convolution, depthwise "
                    f"or dense layer of that name. The nearest: {near or 'none, it has no such layer'}."
                )

    def check_fits(self, graph: Graph) -> None:
        """That it says of every tensor and layer of a folded graph what it must, and nothing impossible.

        Raises:
            StalePlan: it does not; the message names the layer.
        """
        ready = equalisable(graph, self.settings)
        measured = {node.name: node for node in observers.measured(ready)}
        for node in measured.values():
            _require(node.name in self.ranges, "range", node)
        weighted = {node.name: node for node in ready.nodes if node.kind in WEIGHTED}
        self._check_names(measured.keys(), weighted.keys())
        for node in weighted.values():
            if node.name not in self.float_layers:
                scales = self.kernel_scales.get(node.name, ())
                _require(_are_within(SMALLEST_SCALE, LARGEST_SCALE, scales, node), "kernel scales", node)
            factors = self.equalised.get(node.name)
            _require(_are_within(1 / LARGEST_FACTOR, LARGEST_FACTOR, factors, node), "equalisation", node)
            for shifts in self.bias_shifts.values():
                shift = shifts.get(node.name)
                _require(_are_within(-LARGEST_SPAN, LARGEST_SPAN, shift, node), "bias correction", node)
            bits, size = self.rounding.get(node.name), -(-node.weights[0].size // 8)
            _require(bits is None or _holds_bytes(bits, size), "rounding", node)
        self._check_widths(equalised(ready, self.equalised), measured)

    def _check_widths(self, ready: Graph, measured: Mapping[str, Node]) -> None:
        """Raises StalePlan for a range that LiteRT would refuse beside those of the layers before it.

        Half of what `wide_enough` asks for is still taken: training moves the kernels that a plan was made with.
        """
        wide = wide_enough(ready, self.ranges, scales_of(ready))
        for name, node in measured.items():
            _require(_spanned(wide[name]) < 2 * _spanned(self.ranges[name]), "range", node)

    def _check_names(self, measured: Set[str], weighted: Set[str]) -> None:
        """Raises StalePlan for what is said of a layer that the network does not have or measure."""
        shifted = {name for shifts in self.bias_shifts.values() for name in shifts}
        for what, named, known in (
            ("a range", self.ranges.keys(), measured),
            ("kernel scales", self.kernel_scales.keys(), weighted),
            ("an equalisation", self.equalised.keys(), weighted),
            ("a rounding", self.rounding.keys(), weighted),
            ("a bias correction", shifted, weighted),
        ):
            if unknown := sorted(named - known):
                raise StalePlan(
                    f"The plan has {what} of '{unknown[0]}', which the network does not have or measure. The plan was "
                    "damaged, or made by hand: calibrate anew."
                )

    def write(self, path: Path) -> None:
        """Write the plan as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2))


def _require(fits: bool, what: str, node: Node) -> None:
    if not fits:
        raise StalePlan(
            f"The plan's {what} of layer '{node.name}' is missing or does not fit it. The plan was damaged, made by "
            "hand or made for other weights: calibrate anew."
        )


def _are_within(low: float, high: float, values: Values | None, node: Node) -> bool:
    """One for each channel of its output, between the two; None where there need be none."""
    return values is None or (len(values) == node.shape[-1] and all(low <= value <= high for value in values))


def _holds_bytes(text: str, size: int) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == size
    except ValueError:
        return False


def packed(up: Up) -> str:
    """Which weights round up, as `Plan.rounding` holds it."""
    return base64.b64encode(np.packbits(up).tobytes()).decode()


def with_bias(node: Node, shift: NDArray[np.float32]) -> Node:
    """The convolution with something added to its bias, float32 (channels,)."""
    bias = node.weights[1] + shift if node.config["use_bias"] else shift
    return replace(node, weights=(node.weights[0], bias), config={**node.config, "use_bias": True})


def provenance(graph: Graph, samples: Samples, settings: Settings, preprocessing: str) -> Provenance:
    """What a plan for a folded graph, made now, would be decided from."""
    return Provenance(
        model_sha256=graph_sha256(graph),
        samples_sha256=pixels_sha256(samples.images),
        list_sha256=list_sha256(samples.ids),
        preprocessing=preprocessing,
        method=str(settings),
        versions=package_versions(TOOLS, absent="absent"),
    )


def range_plan(
    graph: Graph,
    samples: Samples,
    settings: Settings,
    preprocessing: str = "",
    progress: Progress = lambda done: None,
) -> Plan:
    """A plan with ranges and, where the settings ask for it, equalised channels: what needs no rounding yet.

    Args:
        graph: folded.

    Raises:
        InputError: images of another size than the model's input, or values that no range can hold.
    """
    if samples.images.shape[1:] != graph.nodes[0].shape:
        raise InputError(
            f"The model takes {graph.nodes[0].shape}, the calibration images are {samples.images.shape[1:]}."
        )
    ready = equalisable(graph, settings)
    factors: dict[str, Values] = {}
    if settings.equalise:
        factors = equalising_factors(ready, observers.reach(ready, samples.images, progress))
        ready = equalised(ready, factors)
    scales = scales_of(ready)
    ranges = observers.ranges(ready, samples.images, settings.method, progress)
    return Plan(
        settings=settings,
        ranges=wide_enough(ready, ranges, scales),
        kernel_scales=scales,
        equalised=factors,
        samples=len(samples.images),
        sample_ids=samples.ids,
        source=samples.source,
        provenance=provenance(graph, samples, settings, preprocessing),
    )


def wide_enough(graph: Graph, ranges: dict[str, Range], scales: Mapping[str, Values]) -> dict[str, Range]:
    """The ranges, those of next to nothing widened: a layer that no image woke has none at all.

    XNNPACK refuses a layer whose input's step, times the kernel's, is 256 times its output's (LiteRT 2.3).
    """
    wide = dict(ranges)
    widths = {graph.nodes[0].name: 255 * PIXELS.scale}
    for node in graph.nodes[1:]:
        given = [widths[name] for name in node.inputs]
        width = max(given)
        if node.kind in WEIGHTED:
            width *= max(scales[node.name])
        elif node.kind == "Multiply":
            width = math.prod(given) / 255 ** (len(given) - 1)
        if node.name in ranges:
            low, high = ranges[node.name]
            spanned = _spanned((low, high))
            if spanned < width / MOST_STEPS and activation_of(node) not in FIXED_RANGES:
                spanned = width / MOST_STEPS
                high = min(low, 0.0) + spanned
            wide[node.name], width = (low, high), spanned
        widths[node.name] = width
    return wide


def _spanned(limits: Range) -> float:
    """How far a range reaches with zero in it."""
    return max(limits[1], 0.0) - min(limits[0], 0.0)


def equalisable(graph: Graph, settings: Settings) -> Graph:
    """The folded graph with the layers that repairs look at: one more before each gate where the settings ask so."""
    return gates_apart(graph) if settings.through_swish else graph


def scales_of(graph: Graph) -> dict[str, Values]:
    """`Plan.kernel_scales` of a folded graph; raises InputError for weights that no range can hold."""
    return {node.name: _scales(node) for node in graph.nodes if node.kind in WEIGHTED}


def _scales(node: Node) -> Values:
    scales = kernel_scales(node)
    if not np.isfinite(scales).all():
        raise InputError(
            f"Layer '{node.name}' has weights that are infinite or not a number; no range can hold them. "
            "Likely a training that diverged: evaluate the float model."
        )
    return tuple(map(float, scales))
