"""The report on quantization: what was repaired, where it hurts, and how the ranges hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

from calibration.coverage import MOST_OUTSIDE, Coverage
from calibration.equalise import unequalised
from calibration.quantize import asymmetric, symmetric
from edge.bundle import Format
from export.evidence import Int8
from export.repair import Attempt
from export.report_html import flagged, table

TARGETS: dict[Format, str] = {"tflite": "TFLite", "onnx": "TensorRT"}
"""Whose rounding a format's int8 has."""

# -- repairs --------------------------------------------------------------------------------------


def repairs(int8: Int8) -> str:
    """Each attempt with what it gained."""
    return f"<h2>Repairs</h2>{_tried(int8)}{_equalised(int8)}"


def _tried(int8: Int8) -> str:
    record = int8.record
    if not record.attempts:
        return (
            "<p>None was tried: the plan was given, repairs were turned off, or no training image "
            f"was left to judge them on. Quantized by: {escape(int8.plan.method)}.</p>"
        )
    first = record.attempts[0]
    judged = (
        f"Drops against the float model on {first.images:,} training images that were not calibrated on; "
        f"{record.allowed:g} points are allowed there."
    )
    if not record.changed:
        drops = ", ".join(f"{TARGETS[target]} {drop:+.2f}" for target, drop in first.drop.items())
        return f"<p>None was needed: int8 as asked loses {drops} points. {judged}</p>"
    head = ("attempt", *(TARGETS[target] for target in first.drop), "gained", "in float", "")
    return (
        f"<p>{judged} Gained: of the worse target, against the best attempt before. "
        f"Went to the gate: {escape(int8.plan.method)}.</p>" + table(head, _attempts(record.attempts))
    )


def _attempts(attempts: tuple[Attempt, ...]) -> Iterator[tuple[str, ...]]:
    best: float | None = None
    for attempt in attempts:
        drops = (f"{drop:+.2f}" for drop in attempt.drop.values())
        gained = "" if best is None else f"{best - attempt.worst:+.2f}"
        enough = '<span class="good">enough</span>' if attempt.enough else ""
        yield escape(attempt.name), *drops, gained, str(len(attempt.float_layers) or ""), enough
        best = attempt.worst if best is None else min(best, attempt.worst)


def _equalised(int8: Int8) -> str:
    """Which layers' channels have another scale than in the float model, and why the others do not."""
    if not int8.plan.settings.equalise:
        return ""
    left = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in unequalised(int8.graph).items())
    return (
        f"<details><summary>Layers with equalised channels: {len(int8.plan.equalised)}. Why others were left as "
        f"they are</summary><ul>{left}</ul></details>"
    )


# -- sensitivity ----------------------------------------------------------------------------------


def sensitivity(int8: Int8) -> str:
    """A plot by layer in the network's order, and a table by harm."""
    if not int8.layers:
        return ""
    kept = set(int8.plan.float_layers)
    harm = sorted(int8.layers, key=lambda row: -row["alone_error"])
    head = ("layer", "error alone", "error of the others", "own noise, dB", "gathered, dB", "changed, points")
    return (
        f"<h2>Where int8 hurts</h2><p>Each layer alone in int8, all others in float, {TARGETS[int8.target]}'s "
        f"rounding, on {int8.watched} calibration images: the squared error of the heads as a share of their "
        "square. The table adds the error of all other layers without this one; the layer's signal over its own "
        "noise, and over all noise that has gathered there; and how many images in a hundred change their first "
        "answer by this layer alone, which on so few images moves by chance.</p>"
        + _plot(int8, kept)
        + table(head, [_layer(row, row["name"] in kept) for row in harm])
    )


def _layer(row: dict[str, Any], kept: bool) -> tuple[str, ...]:
    name = escape(row["name"]) + (' <span class="soft">in float</span>' if kept else "")
    decibels = (f"{row[key]:.1f}" for key in ("own_db", "accumulated_db"))
    return name, f"{row['alone_error']:.1e}", f"{row['rest_error']:.1e}", *decibels, f"{row['drop']:.1f}"


ROW, LEFT, WIDTH, TOP = 16, 190, 900, 20
"""Of the plot, in its own units."""


def _plot(int8: Int8, kept: set[str]) -> str:
    """Stems on a logarithmic axis, from the first layer to the last."""
    order = {node.name: place for place, node in enumerate(int8.graph.nodes)}
    rows = sorted(int8.layers, key=lambda row: order[row["name"]])
    errors = [max(row["alone_error"], 1e-12) for row in rows]
    low, high = math.floor(math.log10(min(errors))), math.floor(math.log10(max(errors))) + 1

    def x(error: float) -> float:
        return LEFT + (math.log10(error) - low) / (high - low) * (WIDTH - LEFT - 60)

    height = TOP + ROW * len(rows) + 6
    grid = "".join(
        f'<line class="grid" x1="{x(10.0**power):.1f}" x2="{x(10.0**power):.1f}" y1="{TOP - 4}" y2="{height - 4}"/>'
        f'<text x="{x(10.0**power):.1f}" y="{TOP - 8}" text-anchor="middle">1e{power}</text>'
        for power in range(low, high + 1, max(1, (high - low) // 6))
    )
    stems = "".join(
        _stem(row["name"], error, (LEFT, x(error), TOP + ROW * index + 8), row["name"] in kept)
        for index, (row, error) in enumerate(zip(rows, errors, strict=True))
    )
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Error of the heads by layer">{grid}{stems}</svg>'
    )


def _stem(name: str, error: float, at: tuple[float, float, float], kept: bool) -> str:
    left, x, y = at
    label = escape(name if len(name) <= 28 else f"{name[:13]}…{name[-14:]}")
    kind = "name kept" if kept else "name"
    title = f"<title>{escape(name)}: {error:.2e}{', in float' if kept else ''}</title>"
    return (
        f'<g>{title}<text class="{kind}" x="{left - 8}" y="{y + 4}" text-anchor="end">{label}</text>'
        f'<line class="stem" x1="{left}" x2="{x:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle class="mark" cx="{x:.1f}" cy="{y}" r="4"/></g>'
    )


# -- ranges ---------------------------------------------------------------------------------------


def quantization(int8: Int8) -> str:
    """Ranges and scales by tensor, and how images fare that did not decide them."""
    held = (
        "None were held out."
        if not int8.covered
        else (
            "Of training images that were not watched: filled, how far their values span the range; below and above, "
            f"the share of the values that saturates on either side, marked where both are over {MOST_OUTSIDE:.0%}."
        )
    )
    head = (
        "tensor",
        "shape",
        "low",
        "high",
        "TFLite scale",
        "zero point",
        "TensorRT scale",
        "filled",
        "below",
        "above",
    )
    return (
        "<h2>Ranges, coverage and saturation</h2><p>One set of ranges for both targets: asymmetric int8 for TFLite, "
        f"symmetric for TensorRT. Kernels are symmetric by output channel. {held}</p>"
        + "".join(f'<p class="bad">Doubt: {escape(doubt)}</p>' for doubt in int8.doubts)
        + table(head, _tensors(int8))
    )


def _tensors(int8: Int8) -> Iterator[tuple[str, ...]]:
    for name, (low, high) in int8.plan.ranges.items():
        tflite, tensorrt = asymmetric(low, high), symmetric(low, high)
        yield (
            escape(name),
            " × ".join(map(str, int8.graph[name].shape)),
            f"{low:.3f}",
            f"{high:.3f}",
            f"{tflite.scale:.5f}",
            str(tflite.zero_point),
            f"{tensorrt.scale:.5f}",
            *_covered(int8.covered.get(name)),
        )


def _covered(found: Coverage | None) -> tuple[str, str, str]:
    if found is None:
        return "–", "–", "–"
    below, above = (
        flagged(f"{100 * share:.3f} %", found.outside > MOST_OUTSIDE) for share in (found.below, found.above)
    )
    return f"{found.filled:.0%}", below, above
