"""The whole calibration: ranges, then the repairs that the settings ask for, in one plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from calibration.adaround import learn_rounding
from calibration.fold import fused_relu
from calibration.graph import Graph, Node
from calibration.kinds import WEIGHTED
from calibration.observers import Progress
from calibration.plan import Plan, equalisable, packed, range_plan, with_bias
from calibration.samples import Samples
from calibration.settings import Settings
from calibration.walk import Stage, run, walk
from edge.bundle import FORMATS, Format

LEARNS: Format = FORMATS[0]
"""The target whose network AdaRound watches: both carry the same integers."""

LEARNING, CORRECTING = 64, 4
"""What a layer of each repair counts in a progress bar, in images watched; a correction once for each target."""


def calibrate(
    graph: Graph,
    samples: Samples,
    settings: Settings,
    preprocessing: str = "",
    progress: Progress = lambda done: None,
) -> Plan:
    """Decide everything, in this order: equalisation, ranges, and layer by layer AdaRound and bias correction.

    AdaRound learns one set of integers, on what TFLite's network gives. Biases are corrected for each target by itself.

    Args:
        graph: folded.
        progress: told of parts of `work(...)`.

    Raises:
        InputError: images of another size than the model's input, or values that no range can hold.
    """
    plan = range_plan(graph, samples, settings, preprocessing, progress)
    layers = equalisable(graph, settings)
    for target in _walks(settings):
        repairs = _Repairs(layers, plan, target, progress)
        walk(graph, plan, samples.images, target, repairs.of)
        plan = repairs.plan
    return plan


def work(graph: Graph, images: int, settings: Settings) -> int:
    """The total of a progress bar for `calibrate`."""
    layers = sum(node.kind in WEIGHTED for node in equalisable(graph, settings).nodes)
    return images * (1 + settings.equalise) + layers * sum(
        _layer_work(settings, target) for target in _walks(settings)
    )


def _walks(settings: Settings) -> tuple[Format, ...]:
    """The targets whose networks have to be walked through."""
    if settings.bias_correction:
        return FORMATS
    return (LEARNS,) if settings.adaround else ()


def _layer_work(settings: Settings, target: Format) -> int:
    return LEARNING * _learns(settings, target) + CORRECTING * settings.bias_correction


def _learns(settings: Settings, target: Format) -> bool:
    return settings.adaround and target == LEARNS


@dataclass
class _Repairs:
    """Made layer by layer, each on what the repaired layers before it give.

    Attributes:
        graph: with the layers that are repaired; before: the plan that the walk follows.
    """

    graph: Graph
    before: Plan
    target: Format
    progress: Progress
    rounding: dict[str, str] = field(default_factory=dict)
    shifts: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan with what this walk found."""
        rounding, shifts = self.before.rounding | self.rounding, dict(self.before.bias_shifts)
        if self.shifts:
            shifts[self.target] = self.shifts
        return self.before.model_copy(update={"rounding": rounding, "bias_shifts": shifts})

    def of(self, stage: Stage) -> Node:
        """The layer as the int8 network goes on with it; one that stays in float needs no repair."""
        settings, used = self.before.settings, stage.node
        if stage.node.name not in self.before.float_layers:
            used = self._learnt(stage) if _learns(settings, self.target) else stage.rounded
            used = self._corrected(stage, used) if settings.bias_correction else used
        self.progress(_layer_work(settings, self.target))
        return used

    def _learnt(self, stage: Stage) -> Node:
        name = stage.node.name
        scales = np.array(self.before.kernel_scales[name], np.float32)
        up = learn_rounding(stage, _clip(self.graph, stage.node), scales)
        if up is None:
            return stage.rounded
        self.rounding[name] = packed(up)
        return self.plan.with_rounded_kernel(stage.node)

    def _corrected(self, stage: Stage, rounded: Node) -> Node:
        """Take the mean error of each channel out of its bias (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

        Empirically, over images and places, before the activation; of int8 inputs, so that what earlier layers
        left of their errors is taken out too.
        """
        error = run(rounded, [stage.given]).mean(axis=(0, 1, 2), dtype=np.float64)
        error -= run(stage.node, [stage.exact]).mean(axis=(0, 1, 2), dtype=np.float64)
        shift = (-error).astype(np.float32)
        self.shifts[stage.node.name] = tuple(map(float, shift))
        return with_bias(rounded, shift)


def _clip(graph: Graph, node: Node) -> tuple[float, float]:
    """The limits of the ReLU that alone reads the node; none where there is no such."""
    relu = fused_relu(graph, node)
    if relu is None:
        return -math.inf, math.inf
    six = relu.config.get("max_value") is not None or relu.config.get("activation") == "relu6"
    return 0.0, 6.0 if six else math.inf
