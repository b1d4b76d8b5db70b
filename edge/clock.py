"""The wall clock, for display alone: what is measured is measured on the monotonic clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone


def wall_s(moment_ns: int) -> float:
    """A moment of the monotonic clock, as seconds since 1970 by the wall clock as it is set now."""
    return time.time() - (time.monotonic_ns() - moment_ns) / 1e9


def in_utc(at_s: float) -> str:
    """Seconds since 1970 as ISO 8601: `2026-03-01T07:30:00.250+00:00`."""
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat(timespec="milliseconds")
