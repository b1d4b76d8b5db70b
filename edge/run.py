"""`sightline run`: stream a source through one or several models."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.console import leave_terminal
from edge.errors import InputError
from edge.pipeline import Limits, Pipeline, Summary
from edge.profiler import StageRecorder, stage_table
from edge.protocols import Sink
from edge.secret import masked
from edge.sinks.shared import health_of, shared_sinks
from edge.sinks.terminal import TerminalSink
from edge.sinks.video import VideoSink
from edge.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, source_of

_NOT_OF_A_STREAM = {
    *("sinks", "model", "backend", "precision", "threads"),
    *("cameras", "web", "max_age_ms", "build_plans"),
}
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("config", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--source",
    metavar="URI",
    help="demo://, a camera (rtsp://, http://, /dev/video0), a video file, an image, a folder or a glob.",
)
@click.option(
    "--model",
    "models",
    metavar="BUNDLE",
    multiple=True,
    help="A bundle's folder or a shipped one's name; repeat it for more.",
)
@click.option("--seconds", type=float, metavar="S", help="Stop after so many seconds.")
@click.option("--frames", type=int, metavar="N", help="Stop after so many results.")
@click.option("--lossless", is_flag=True, default=None, help="Every frame, in order, as fast as it goes.")
@click.option("--backend", help="tflite, onnx, onnx-cuda, tensorrt or auto.")
@click.option("--precision", help="fp32, fp16, int8 or auto.")
@click.option("--threads", type=int, metavar="N", help="Threads of each model.")
@click.option("--score-threshold", type=float, metavar="T", help="Leave out faces below this score, 0 to 1.")
@click.option("--jsonl", type=FILE, help="Write the results here, one JSON object a line.")
@click.option("--video", type=FILE, help="Write the annotated stream here (.mp4).")
@click.option("--latency", type=FILE, help="Write the latency by stage here (JSON).")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--check", is_flag=True, help="Say what would run, load the models, and stop there.")
def run(
    config: str | None,
    models: tuple[str, ...],
    jsonl: Path | None,
    video: Path | None,
    latency: Path | None,
    quiet: bool,
    check: bool,
    **options: Any,
) -> None:
    """Stream a source through models; results to the terminal and to files.

    Settings come from CONFIG (TOML) where it is given; options override them. Without any, the demo
    source goes through the shipped models. Ctrl-C, SIGTERM and SIGHUP end the stream; its files are complete.

    A CONFIG with [[cameras]] or [web] is served: cameras that fail come back, and SIGHUP reads CONFIG anew.
    """
    if config and ("://" in config or config.lower().endswith((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))):
        raise InputError(f"'{masked(config)}' is a source, and CONFIG a TOML file. Name it with --source.")
    sinks = {"jsonl": jsonl, "video": video, "latency": latency, "terminal": False if quiet else None}

    def read() -> StreamSettings:
        settings = StreamSettings.read(Path(config)) if config else StreamSettings()
        return settings.changed(sinks, models, **options)

    settings = read()
    if not (check or settings.is_daemon):
        stream(settings, quiet)
        return
    from edge import run_daemon

    if check:
        click.echo(run_daemon.check(settings))
    else:
        run_daemon.serve(settings, read, quiet)


def stream(settings: StreamSettings, quiet: bool = False) -> Summary:
    """Run one stream as the settings say; prints the summary and the latency table unless quiet.

    What sinks have lost or found damaged, and what is wrong with them at the end, goes to stderr.

    Raises:
        SightlineError: whatever the bundle, the source or a sink finds wrong. The files hold the
            results up to then.
    """
    source = source_of(settings)
    with closing(
        Cascade.open(settings.chosen(), settings.score_threshold, settings.parallel_models)
    ) as models:
        recorder = StageRecorder(settings.sinks.latency, described(settings, models))
        named = _sinks(settings, models.title)
        sinks = [*(sink for _, sink in named), recorder]
        limits = Limits(settings.seconds, settings.frames)
        pipeline = Pipeline(source, models, sinks, limits, settings.lossless)
        try:
            with ended_by_signals(pipeline.stop):
                summary = pipeline.run()
        finally:
            if recorder.n and not quiet:
                _print_latency(recorder)
            _print_losses(named)
    if not quiet:
        click.echo(_in_words(summary, sinks))
    return summary


def described(settings: StreamSettings, models: Cascade) -> dict[str, Any]:
    """What was run, with the backends and precisions that were chosen; for the reports.

    `models` holds one object a model; of a single one, name, backend and precision stand in the
    settings as well.
    """
    chosen = [
        {"model": m.name, "backend": m.model.backend, "precision": m.model.precision} for m in models.members
    ]
    wanted = [model.model_dump(mode="json", exclude={"name"}) for model in settings.chosen()]
    stream = settings.model_dump(mode="json", exclude=_NOT_OF_A_STREAM) | {"source": masked(settings.source)}
    alone = chosen[0] if len(chosen) == 1 else {}
    return stream | alone | {"models": [a | b for a, b in zip(wanted, chosen, strict=True)]}


@contextmanager
def ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP call `stop`; a second one acts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # under nohup, which is there to outlive the terminal
        del before[signal.SIGHUP]

    def on_signal(number: int, _: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        if number == signal.SIGHUP:
            leave_terminal()
        stop()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sinks(settings: StreamSettings, title: str) -> list[tuple[str, Sink]]:
    """The sinks that are asked for, each with its name, but the recorder."""
    wanted = settings.sinks
    sinks: list[tuple[str, Sink]] = []
    if wanted.terminal:
        sinks.append(("terminal", TerminalSink(title)))
    sinks += shared_sinks(wanted)
    if wanted.video:
        sinks.append(("video", VideoSink(wanted.video, title, settings.lossless)))
    return sinks


def _print_losses(sinks: Iterable[tuple[str, Sink]]) -> None:
    for name, sink in sinks:
        lost, trouble, damage = health_of(sink)
        if told := ": ".join(filter(None, [f"{lost} lost" if lost else "", trouble, damage])):
            click.echo(f"sink {name}: {told}", err=True)


def _print_latency(recorder: StageRecorder) -> None:
    from edge.console import open_console

    open_console().print(stage_table(recorder.spreads(), recorder.n, recorder.model_spreads()))


def _in_words(summary: Summary, sinks: list[Sink]) -> str:
    counts = summary.counts
    left_out = sum(sink.left_out for sink in sinks if isinstance(sink, VideoSink))
    return (
        f"{counts.processed} of {counts.captured} frames in {summary.seconds:.1f} s, "
        f"{summary.fps:.1f} a second, {counts.dropped} dropped{counts.lost_in_words}"
        + (f", {left_out} more left out of the video (the encoder was slower)" if left_out else "")
        + f". Age counts from: {summary.source.capture_clock}."
    )
