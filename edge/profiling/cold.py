"""The cold start, step by step, each time in a fresh process.

    python -m edge.profiling.cold SPAWNED_NS BACKENDS < settings.json

is the process that is measured; `cold_start` runs it. Files come from the system's page cache after
the first time: this is the start of a service, not that of a machine.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from edge.errors import InputError

if TYPE_CHECKING:
    from edge.config import StreamSettings

TIMES = 3
"""Processes started; each step's median is reported."""

LONGEST_S = 600.0
"""A TensorRT engine may be built on the way."""

LIBRARIES = {
    "tflite": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
    "onnx": ("onnxruntime",),
    "tensorrt": ("tensorrt",),
}
"""By backend; the first that there is."""


def cold_start(settings: StreamSettings, backends: Sequence[str], times: int = TIMES) -> dict[str, float]:
    """Milliseconds by step, for `edge.profiling.report.ColdStart`.

    Raises:
        InputError: the process fails; its own message is in the error's.
    """
    runs = [_one(settings, backends) for _ in range(times)]
    return {step: round(median(run[step] for run in runs), 3) for step in runs[0]}


def _one(settings: StreamSettings, backends: Sequence[str]) -> dict[str, float]:
    # The monotonic clock is the system's own: the child goes on from the parent's reading.
    command = [sys.executable, "-m", __name__, str(time.monotonic_ns()), ",".join(dict.fromkeys(backends))]
    try:
        done = subprocess.run(
            command, input=settings.model_dump_json(), capture_output=True, text=True, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"The cold start has not ended after {LONGEST_S:g} s. Build a TensorRT engine first: `sightline build`."
        ) from error
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise InputError(f"The cold start ended with {done.returncode}: {last}. Try the same with `run`.")
    steps: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return steps


def _main(spawned_ns: int, backends: Sequence[str]) -> None:
    laps = [spawned_ns, time.monotonic_ns()]
    import cv2

    from edge.cascade import Cascade
    from edge.config import StreamSettings
    from edge.frame import Frame, Stamps
    from edge.sources import source_of

    for backend in backends:
        _import_first(LIBRARIES.get(backend, ()))
    cv2.setNumThreads(1)
    laps.append(time.monotonic_ns())
    settings = StreamSettings.model_validate_json(sys.stdin.read())
    models = Cascade.open(settings.chosen(), settings.score_threshold)
    laps.append(time.monotonic_ns())
    source, frame = source_of(settings), Frame()
    models.start(source.open())
    source.read(frame)
    laps.append(time.monotonic_ns())
    for _ in range(2):
        frame.stamps = Stamps()
        models.process(frame)
        laps.append(time.monotonic_ns())
    names = ("interpreter", "imports", "load", "source", "first_inference", "second_inference")
    print(json.dumps({name: (b - a) / 1e6 for name, a, b in zip(names, laps, laps[1:], strict=False)}))


def _import_first(modules: Sequence[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
            return
        except ImportError:
            continue


if __name__ == "__main__":
    _main(int(sys.argv[1]), [name for name in sys.argv[2].split(",") if name])
