"""The whole calibration: ranges, then the repairs that the settings ask for, in one plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from calibration.adaround import learn_rounding
from calibration.fold import WEIGHTED, fused_relu
from calibration.graph import Graph, Node
from calibration.observers import Progress
from calibration.plan import Plan, equalisable, packed, range_plan, with_bias
from calibration.samples import Samples
from calibration.settings import Settings
from calibration.walk import Stage, run, walk

LEARNING, CORRECTING = 64, 4
"""What a layer of each repair counts in a progress bar, in images watched."""


def calibrate(
    graph: Graph,
    samples: Samples,
    settings: Settings,
    preprocessing: str = "",
    progress: Progress = lambda done: None,
) -> Plan:
    """Decide everything, in this order: equalisation, ranges, and layer by layer AdaRound and bias correction.

    Args:
        graph: folded.
        progress: told of parts of `work(...)`.

    Raises:
        InputError: images of another size than the model's input, or values that no range can hold.
    """
    plan = range_plan(graph, samples, settings, preprocessing, progress)
    if not (settings.adaround or settings.bias_correction):
        return plan
    repairs = _Repairs(plan.prepared(graph), plan, lambda: progress(_layer_work(settings)))
    walk(graph, plan, samples.images, repairs.of)
    return plan.model_copy(update={"rounding": repairs.rounding, "bias_shifts": repairs.shifts})


def work(graph: Graph, images: int, settings: Settings) -> int:
    """The total of a progress bar for `calibrate`."""
    layers = sum(node.kind in WEIGHTED for node in equalisable(graph, settings).nodes)
    return images + layers * _layer_work(settings)


def _layer_work(settings: Settings) -> int:
    return LEARNING * settings.adaround + CORRECTING * settings.bias_correction


@dataclass
class _Repairs:
    """Made layer by layer, each on what the repaired layers before it give."""

    graph: Graph
    plan: Plan
    advance: Callable[[], None]
    rounding: dict[str, str] = field(default_factory=dict)
    shifts: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def of(self, stage: Stage) -> Node:
        """The layer as the int8 network goes on with it; one that stays in float needs no repair."""
        if stage.node.name in self.plan.float_layers:
            self.advance()
            return stage.node
        rounded = stage.rounded
        if self.plan.settings.adaround:
            rounded = self._learnt(stage)
        if self.plan.settings.bias_correction:
            rounded = self._corrected(stage, rounded)
        self.advance()
        return rounded

    def _learnt(self, stage: Stage) -> Node:
        name = stage.node.name
        scales = np.array(self.plan.kernel_scales[name], np.float32)
        up = learn_rounding(stage, _clip(self.graph, stage.node), scales)
        if up is None:
            return stage.rounded
        self.rounding[name] = packed(up)
        return self.plan.model_copy(update={"rounding": self.rounding}).with_rounded_kernel(stage.node)

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
