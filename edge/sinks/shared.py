"""The sinks that serve one source or all cameras alike, made from the settings; and how any sink is."""

from __future__ import annotations

from typing import NamedTuple

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


class SinkHealth(NamedTuple):
    """How a sink is.

    Attributes:
        lost: results or events that it did not take.
        trouble: what is wrong with it now; empty when all is well.
        damage: what was found damaged at its place and set aside, since the start; it works all the same.
    """

    lost: int
    trouble: str
    damage: str


def health_of(sink: Sink) -> SinkHealth:
    """How a sink is; all is well with one that says nothing of that."""
    return SinkHealth(getattr(sink, "lost", 0), getattr(sink, "trouble", ""), getattr(sink, "damage", ""))
