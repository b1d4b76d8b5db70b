"""The process in which NVIDIA's builder runs, beside `sightline build`.

It may crash, run out of memory or hang without taking the caller along, and it leaves the processor
to whatever else the device does. It works in a folder that its caller made for it:

    model.onnx     to be read
    timings.cache  read if it is there, written anew
    plan           written

Its standard output is JSON, an object a line: {"step": [phase, done, of, share]}, then {"plan": {...}}
or {"refused": "why"}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.children import end_with_parent
from edge.errors import SightlineError
from edge.runners.plans import find_toolkit
from export.tensorrt import build_plan

NICENESS = 10
"""Of 19: what streams on this device goes first."""

PLAN, ONNX, TIMINGS = "plan", "model.onnx", "timings.cache"


def main(folder: Path) -> None:
    """Build the plan of one folder."""
    os.nice(NICENESS)
    # A caller that is killed would leave a builder behind that nobody waits for.
    end_with_parent(signal.SIGKILL)
    # What NVIDIA's libraries print must not come between the lines.
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**line: Any) -> bool:
        """False where nobody listens any more: then the build may stop."""
        try:
            print(json.dumps(line), file=told, flush=True)
        except OSError:
            return False
        return True

    def on_step(phase: str, done: int, of: int, share: float) -> bool:
        return tell(step=[phase, done, of, round(share, 4)])

    try:
        onnx = (folder / ONNX).read_bytes()
        plan = build_plan(onnx, find_toolkit(), timing_cache=folder / TIMINGS, on_step=on_step)
    except SightlineError as error:
        tell(refused=str(error))
        return
    (folder / PLAN).write_bytes(plan.content)
    tell(plan=asdict(plan) | {"content": ""})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
