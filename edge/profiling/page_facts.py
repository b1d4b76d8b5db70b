"""The page's words: what was measured beside, on which machine, and what was run."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from edge.profiling.page_plots import ms, table

SENSORS = {"clocks_mhz": "MHz", "temperatures_c": "°C"}
"""Parts of the conditions that hold figures by sensor, and their units."""

ELSEWHERE = ("machine", "versions", "notes", "throttled", "timeline", *SENSORS)
"""Parts of the conditions that are no plain facts, or stand in another section."""


def part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a report; empty where there is none, or none of its kind."""
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}


def load(report: Mapping[str, Any]) -> str:
    """Streaming against its parts, an open loop, a sweep: whatever was measured beside."""
    return _sweep(part(report, "sweep")) + "".join(
        f"<h2>{title}</h2>{_facts(part(report, name))}"
        for name, title in (
            ("open_loop", "Frames at fixed times"),
            ("streaming", "Streaming against its parts"),
        )
        if part(report, name)
    )


def _sweep(sweep: Mapping[str, Any]) -> str:
    points = sweep.get("points") or []
    stage = "age" if not points or part(part(points[0], "stages_ms"), "age") else "infer"
    rows = []
    for point in points:
        found = part(part(point, "stages_ms"), stage)
        figures = (point.get("fps"), found.get("p50"), found.get("p99"))
        dropped = point.get("dropped")
        share = [] if dropped is None else [f"{dropped:.0%}"]
        rows.append((escape(str(point.get("value"))), *(ms(figure) for figure in figures), *share))
    head = [str(sweep.get("option", "")), "frames a second", f"{stage} p50, ms", f"{stage} p99, ms"]
    head += ["dropped"] if rows and len(rows[0]) > len(head) else []
    return f"<h2>By {escape(head[0])}</h2>" + table(head, rows) if rows else ""


def conditions(report: Mapping[str, Any]) -> str:
    """The machine, what held during the run, and the sensors."""
    measured = part(report, "conditions")
    known = {name: value for name, value in measured.items() if name not in ELSEWHERE}
    facts = {**part(report, "machine"), **part(measured, "machine"), **known}
    return f"<h2>Machine and conditions</h2>{_facts(facts)}{_sensors(measured)}" if facts else ""


def _sensors(measured: Mapping[str, Any]) -> str:
    columns = ("before", "least", "mean", "most", "after")
    rows = [
        (f"{escape(str(name))}, {unit}", *(ms(part(sensors, name).get(column)) for column in columns))
        for kind, unit in SENSORS.items()
        for sensors in (part(measured, kind),)
        for name in sensors
    ]
    return table(("sensor", *columns), rows) if rows else ""


def what_was_run(report: Mapping[str, Any]) -> str:
    """Settings and versions."""
    versions = part(report, "versions") or part(part(report, "conditions"), "versions")
    facts = {**part(report, "settings"), **versions}
    return f"<h2>What was run</h2>{_facts(facts)}" if facts else ""


def _facts(facts: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(text)}</dd>"
        for name, value in facts.items()
        if (text := _in_words(value))
    )
    return f"<dl>{items}</dl>"


def _in_words(value: Any) -> str:
    """Any plain value on one line; nothing for what is empty."""
    if isinstance(value, Mapping):
        pairs = ((name, _in_words(inner)) for name, inner in value.items())
        return ", ".join(f"{name} {text}" for name, text in pairs if text)
    if isinstance(value, list | tuple):
        return "; ".join(text for text in map(_in_words, value) if text)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
