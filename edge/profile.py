"""`sightline profile`: where the time of a frame goes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.errors import InputError
from edge.pipeline import Limits, Pipeline
from edge.profiler import (
    StageRecorder,
    StreamingCost,
    measure_alone,
    stage_table,
    streaming_table,
    write_report,
)
from edge.run import described
from edge.sources import open_source

DEFAULT_FRAMES = 300


@click.command()
@click.argument("targets", metavar="[BUNDLE...|CONFIG]", nargs=-1)
@click.option("--source", help="demo://, a video file, an image, a folder or a glob of images.")
@click.option("--frames", type=int, help=f"How many frames; {DEFAULT_FRAMES} by default.")
@click.option("--backend", help="tflite, onnx, tensorrt or auto.")
@click.option("--precision", help="fp32, fp16, int8 or auto.")
@click.option("--threads", type=int, help="Threads of each model.")
@click.option(
    "--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here."
)
def profile(targets: tuple[str, ...], report: Path | None, **options: Any) -> None:
    """Stream without losing a frame, and print the time by stage and what streaming costs.

    The same frames are first decoded and inferred one after the other, each part timed alone; the
    stream is then held against the most that these times allow on two threads.
    """
    settings = _settings(targets).changed({}, **options)
    recorder, cost = measure(settings)
    if report:
        write_report(report, {**recorder.report(), "streaming": cost.as_json()})
    _print(recorder, cost)


def measure(settings: StreamSettings) -> tuple[StageRecorder, StreamingCost]:
    """Time the parts alone, then the stream, over the same frames and without any sink."""
    frames = settings.frames or DEFAULT_FRAMES
    with closing(Cascade.open(settings.chosen(), settings.score_threshold)) as models:
        alone = measure_alone(open_source(settings.source, settings.decode_threads), models, frames)
        recorder = StageRecorder(settings=described(settings, models) | {"lossless": True, "frames": frames})
        source = open_source(settings.source, settings.decode_threads)
        pipeline = Pipeline(source, models, [recorder], Limits(frames=frames), lossless=True)
        summary = pipeline.run()
    return recorder, StreamingCost(alone, summary.fps)


def _settings(targets: tuple[str, ...]) -> StreamSettings:
    """Of a config, of bundles, or without either the settings that `run` takes."""
    configs = [target for target in targets if target.endswith(".toml")]
    if not configs:
        return StreamSettings().changed({}, targets)
    if len(targets) > 1:
        raise InputError(f"Expected one config or some bundles, got both: {' '.join(targets)}.")
    return StreamSettings.read(Path(configs[0]))


def _print(recorder: StageRecorder, cost: StreamingCost) -> None:
    from rich.console import Console

    console = Console()
    console.print(stage_table(recorder.spreads(), recorder.n, recorder.model_spreads()))
    console.print(streaming_table(cost))
