"""The page's section on layers: where one inference spends its time, and how far from the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edge.profiling.page_plots import Plot, Scale, bar_row, log_scale, ms

SHOWN = 30
"""Bars; the other layers are summed up in one."""

LARGEST_DOT_PX = 26.0

NAMED = 6
"""Dots with a name; the others tell theirs on pointing."""


def layers(report: Mapping[str, Any]) -> str:
    """Of the section `layers` of a profile; empty without one."""
    rows = [row for row in report.get("layers") or () if isinstance(row, Mapping) and row.get("ms")]
    if not rows:
        return ""
    notes = "".join(f'<p class="soft">{escape(str(note))}</p>' for note in report.get("notes") or ())
    about = f"<h2>Layers of one inference</h2><p>{escape(_about(report))}</p>"
    return about + _bars(rows) + notes + _roofline(rows, report)


def _about(report: Mapping[str, Any]) -> str:
    what = " ".join(str(report[key]) for key in ("backend", "precision") if report.get(key))
    said = [f"{what}, by {report.get('method', 'its profiler')}, {report.get('runs', '?')} runs."]
    if whole := report.get("whole_ms"):
        said.append(
            f"The layers' sum is {ms(report.get('sum_ms'))} ms of {ms(whole)} ms without the profiler; "
            f"{ms(report.get('rest_ms'))} ms are in no layer."
        )
    return " ".join(said)


def _bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """In the order of execution; a line marks what the device could do."""
    longest = max(row["ms"] for row in rows)
    least = sorted((row["ms"] for row in rows), reverse=True)[:SHOWN][-1]
    shown = [row for row in rows if row["ms"] >= least][:SHOWN]
    bars = [_bar(row, longest) for row in shown]
    if others := len(rows) - len(shown):
        left = sum(row["ms"] for row in rows) - sum(row["ms"] for row in shown)
        bars.append(
            bar_row(f"{others} others", f"{ms(left)} ms", [(0, min(left / longest, 1), "faint s-infer")])
        )
    bound = any(row.get("bound_ms") for row in rows)
    told = "<p>The upright line: what this device's roofline allows.</p>" if bound else ""
    return told + f'<div class="wide">{"".join(bars)}</div>'


def _bar(row: Mapping[str, Any], longest: float) -> str:
    over = row.get("over_bound")
    value = f"{ms(row['ms'])} ms" + (f" · {over:.1f}×" if over else "")
    name = f'<span title="{escape(str(row.get("kernel", "")))}">{escape(_name(row))}</span>'
    bound = row.get("bound_ms")
    mark = bound / longest if bound else None
    return bar_row(name, value, [(0, row["ms"] / longest, _style(row))], mark)


def _roofline(rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> str:
    """Layers with multiplications: how many a byte, how many a second; and the roof above them."""
    dots = [row for row in rows if row.get("macs") and row.get("bytes")]
    if len(dots) < 2:
        return ""
    speeds = [row["macs"] / row["ms"] * 1e3 for row in dots]
    x = log_scale([_intensity(row) for row in dots])
    roof = _roof(report.get("roofline"), x)
    plot = Plot(x, log_scale([*speeds, *(speed for _, speed in roof)]), "MACs a byte", "MACs a second")
    whole = sum(row["ms"] for row in rows)
    named = _apart(plot, sorted(zip(dots, speeds, strict=True), key=lambda pair: -pair[0]["ms"]))
    drawn = "".join(
        _dot(plot, row, speed, row["ms"] / whole, id(row) in named)
        for row, speed in zip(dots, speeds, strict=True)
    )
    roof_said = " The line is the roofline of this device." if roof else ""
    return (
        "<h3>Roofline</h3><p>Each dot is a layer that multiplies, as large as its share of the time: the "
        f"large ones far below the roof are worth a change.{roof_said}</p>"
        + plot.html(plot.curve(roof, "roof"), drawn, "speed of each layer over its multiplications a byte")
    )


def _roof(roofline: Any, x: Scale) -> list[tuple[float, float]]:
    """Memory's slope up to arithmetic's plateau, over the whole width."""
    if not isinstance(roofline, Mapping):
        return []
    macs_per_s, bytes_per_s = float(roofline["macs_per_s"]), float(roofline["bytes_per_s"])
    corners = (x.low, min(max(macs_per_s / bytes_per_s, x.low), x.high), x.high)
    return [(at, min(macs_per_s, at * bytes_per_s)) for at in corners]


def _apart(plot: Plot, ordered: Sequence[tuple[Mapping[str, Any], float]]) -> set[int]:
    """The largest dots whose names do not lie on each other: at most `NAMED`, each on a height of its own."""
    named: set[int] = set()
    heights: list[float] = []
    for row, speed in ordered:
        height = plot.y.at(speed)
        if len(named) < NAMED and all(abs(height - other) > 0.07 for other in heights):
            named.add(id(row))
            heights.append(height)
    return named


def _dot(plot: Plot, row: Mapping[str, Any], speed: float, share: float, named: bool) -> str:
    text = f"{_name(row)}: {ms(row['ms'])} ms, {speed / 1e9:.1f} GMAC/s, {_intensity(row):.1f} MACs a byte"
    size, word = max(5.0, LARGEST_DOT_PX * share**0.5), _name(row) if named else ""
    return plot.dot(_intensity(row), speed, text, style=_style(row), size_px=size, word=word)


def _intensity(row: Mapping[str, Any]) -> float:
    return float(row["macs"] / row["bytes"])


def _name(row: Mapping[str, Any]) -> str:
    return " + ".join(map(str, row.get("keras") or ())) or str(row.get("name", "?"))


def _style(row: Mapping[str, Any]) -> str:
    return "s-infer" if row.get("macs") else "s-preprocess"
