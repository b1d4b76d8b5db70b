"""Resident memory of this process."""

from __future__ import annotations

import re
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_mb() -> tuple[float, float] | None:
    """The peak so far and the present value, MB of 10^6 bytes; None where the system does not tell."""
    try:
        status = STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = dict(re.findall(r"^(VmHWM|VmRSS):\s*(\d+) kB", status, re.MULTILINE))
    if len(found) != 2:
        return None
    peak, present = (round(int(found[name]) * 1024 / 1e6, 1) for name in ("VmHWM", "VmRSS"))
    return peak, present
