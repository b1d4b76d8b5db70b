"""Inference of several pictures at once: what a batch gains a frame, and what it costs in latency.

A stream infers each frame by itself, since the first of a batch would wait for its last. So a batch is
measured on the models alone, with pictures that are prepared already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.config import ModelSettings, StreamSettings
from edge.errors import InputError
from edge.frame import Frame
from edge.pixels import Image, fit
from edge.profiler import WARM_UP_S
from edge.profiling.measure import Wanted
from edge.profiling.sources import Repeated
from edge.profiling.spread import Spread
from edge.runners import choose
from edge.sources import source_of


def batch_point(settings: StreamSettings, batch: int, wanted: Wanted) -> Mapping[str, Any]:
    """For `edge.profiling.report.SweepPoint`: the stage `infer` is that of a whole batch, through all models.

    Raises:
        InputError: a model whose artefact has a fixed batch.
    """
    pictures = _pictures(settings, batch)
    taken = sum(_infer_ms(model, pictures, wanted.enough) for model in settings.chosen())
    spread = Spread.of(np.asarray(taken), wanted.percents)
    fps = batch * 1e3 / spread.mean
    return {"n": wanted.enough, "fps": round(fps, 3), "stages_ms": {"infer": spread.as_json()}}


def _pictures(settings: StreamSettings, count: int) -> list[Image]:
    """The first so many of the source, which begins again at its end."""
    source = Repeated(source_of(settings))
    found: list[Image] = []
    try:
        source.open()
        while len(found) < count and source.read(frame := Frame()):
            found.append(frame.pixels)
    finally:
        source.close()
    if len(found) < count:
        raise InputError("The source ended at once: there is no picture to infer. Give another --source.")
    return found


def _infer_ms(settings: ModelSettings, pictures: list[Image], times: int) -> NDArray[np.float64]:
    """Milliseconds (times,) of one model, after its warm-up."""
    bundle = Bundle.open(settings.bundle)
    backend, precision = choose(bundle, settings.backend, settings.precision)
    if backend != "tflite":
        raise InputError(
            f"--sweep batch: {bundle.manifest.name} runs on {backend}, whose artefacts take one picture at a "
            "time. LiteRT's can be resized: add --backend tflite."
        )
    from edge.runners.tflite import TfliteRunner

    spec = bundle.manifest.input
    pixels = np.stack([fit(picture, spec.height, spec.width, spec.resize) for picture in pictures])
    with closing(TfliteRunner(bundle, precision, settings.threads, len(pictures))) as runner:
        until_s = time.monotonic() + WARM_UP_S
        while time.monotonic() < until_s:
            runner.infer(pixels)
        taken = np.empty(times)
        for number in range(times):
            begin_ns = time.monotonic_ns()
            runner.infer(pixels)
            taken[number] = (time.monotonic_ns() - begin_ns) / 1e6
    return taken
