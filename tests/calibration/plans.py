"""A plan by a range method alone, as most tests want one."""

from __future__ import annotations

from calibration.graph import Graph
from calibration.plan import Plan, range_plan
from calibration.samples import Pictures, Samples
from calibration.settings import DEFAULT_METHOD, Settings


def make_plan(graph: Graph, images: Pictures, source: str, method: str = DEFAULT_METHOD) -> Plan:
    """Of a folded graph, from images uint8 (N, H, W, 3) RGB."""
    return range_plan(graph, Samples(images, source), Settings(method=method))
