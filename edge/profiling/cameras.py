"""Several cameras on one set of models: the daemon itself, each camera playing the source at its own speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.config import SinkSettings, StreamSettings
from edge.daemon import Daemon
from edge.profiling.measure import Wanted
from edge.profiling.rows import Rows


def cameras_point(settings: StreamSettings, cameras: int, wanted: Wanted) -> Mapping[str, Any]:
    """For `edge.profiling.report.SweepPoint`: frames a second of all cameras, the age of what was processed.

    The newest frame of each camera wins, in turn: what the models cannot keep up with is dropped, and shows as
    `dropped`, a share of the frames that were captured.
    """
    rows = Rows()
    daemon = Daemon(
        _served(settings, cameras, wanted.enough), more_sinks=[("rows", rows)], find_upgrade=lambda *_: None
    )
    counts = daemon.run()
    timings = rows.timings()
    stages = {name: spread.as_json() for name, spread in timings.spreads(wanted.percents).items()}
    at_ns = timings.columns["at"]
    fps = (len(at_ns) - 1) / max(1e-9, (at_ns.max() - at_ns.min()) / 1e9)
    dropped = counts.dropped / counts.captured
    return {"n": timings.n, "fps": round(fps, 3), "stages_ms": stages, "dropped": round(dropped, 4)}


def _served(settings: StreamSettings, cameras: int, frames: int) -> StreamSettings:
    """The same source so many times, each beginning again at its end; no sink of the settings, and no page."""
    first = settings.all_cameras()[0]
    alike = tuple(
        first.model_copy(update={"name": f"camera-{number}", "reopen": True}) for number in range(cameras)
    )
    nowhere = {"sinks": SinkSettings(terminal=False), "web": None, "seconds": None}
    return settings.model_copy(update={"cameras": alike, "frames": frames, "build_plans": False, **nowhere})
