"""The sinks that serve one source or all cameras alike, made from the settings; and what any sink has lost."""

from __future__ import annotations

from edge.config import SinkSettings
from edge.protocols import Sink
from edge.tables import SINKS, resolve


def shared_sinks(settings: SinkSettings) -> list[tuple[str, Sink]]:
    """Those that are asked for, each with its name; only their modules are loaded."""
    sinks: list[tuple[str, Sink]] = []
    if settings.jsonl:
        jsonl = resolve(SINKS["jsonl"])(settings.jsonl, settings.jsonl_max_bytes, settings.jsonl_keep)
        sinks.append(("jsonl", jsonl))
    for name in ("events", "mqtt", "snapshots"):
        wanted = getattr(settings, name)
        if wanted:
            sinks.append((name, resolve(SINKS[name])(wanted)))
    return sinks


def losses(sink: Sink) -> tuple[int, str]:
    """How much a sink has lost, and what is wrong with it now; 0 and empty of one that says nothing of that."""
    return getattr(sink, "lost", 0), getattr(sink, "trouble", "")
