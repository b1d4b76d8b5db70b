"""`sightline profile`: where the time of a frame goes, whether it may take it, and what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click

from edge.bundle import Bundle
from edge.config import StreamSettings
from edge.errors import InputError
from edge.files import check_options, write_text
from edge.profiling.compare import compare_timings, print_comparison
from edge.profiling.measure import Run, Wanted, measure, profile_in_turn, profile_one
from edge.profiling.printed import print_cold_start, print_profile, print_table
from edge.profiling.report import write_report
from edge.profiling.sweep import SweepOption, run_sweep, sweep_table
from edge.tables import resolve

__all__ = ["measure", "profile"]

COMMANDS = {
    "compare": "edge.profiling.compare:compare",
    "gate": "edge.profiling.gate:gate",
}

TRACE = "edge.profiling.trace:TraceSink"
PAGE = "edge.profiling.page:page"
LAYERS = "edge.profiling.layers:profile_layers"
ROOFLINE = "edge.profiling.roofline:measure"
PREDICT = "edge.profiling.predict:predict_command_output"
COLD_START = "edge.profiling.cold:cold_start"

FILE = click.Path(path_type=Path, dir_okay=False)

DEFAULT = ""
"""The name of the command that profiles; it stands in usage lines, where nothing is to be seen of it."""


class _Profile(click.Group):
    """Profiles, unless the first argument is one of `COMMANDS`. A bundle of such a name: `./compare`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args[:1] and args[0] in COMMANDS else [DEFAULT, *args])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return bundles if cmd_name == DEFAULT else resolve(COMMANDS[cmd_name])


# Without a help option of its own, `profile --help` is the help of the command that profiles.
@click.group(cls=_Profile, add_help_option=False)
def profile() -> None:
    """Latency by stage, its difference between two runs, and a budget for it."""


class _Unnamed(click.Context):
    """Of the command without a name, of which a usage line would show a second blank."""

    @property
    def command_path(self) -> str:
        return super().command_path.rstrip()


@click.command(
    epilog="Further: `sightline profile compare A.json B.json` says whether B is faster or slower, and "
    "`sightline profile gate RUN.json --budget BUDGET.toml` whether a run keeps its budget."
)
@click.argument("targets", metavar="[BUNDLE...|CONFIG]", nargs=-1)
@click.option(
    "--source",
    metavar="URI",
    help="demo://, a camera (rtsp://, http://, /dev/video0), a video file, an image, a folder or a glob.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many; as many as the percentiles need by default.",
)
@click.option("--backend", help="tflite, onnx, onnx-cuda, tensorrt or auto.")
@click.option("--precision", help="fp32, fp16, int8 or auto.")
@click.option("--threads", type=int, metavar="N", help="Threads of each model.")
@click.option(
    "--percentiles", metavar="LIST", default="50,90,99", show_default=True, help="Which, between 0 and 100."
)
@click.option(
    "--rate", type=float, metavar="FPS", help="Frames a second, due at fixed times: queueing shows as age."
)
@click.option(
    "--sweep",
    metavar="OPTION=VALUES",
    help="A run for each value: threads=1,2, rate=10,20,30, cameras=1,2,4 or batch=1,2,4.",
)
@click.option(
    "--interleave", type=int, metavar="N", help="Two bundles or configs in turn, N rounds, and compare."
)
@click.option("--cold-start", is_flag=True, help="Time the start too, in fresh processes.")
@click.option("--predict", metavar="DEVICE", help="Run nothing: what orin-nano, say, would take, on paper.")
@click.option("--layers", is_flag=True, help="Time the models' layers too.")
@click.option("--json", "report", type=FILE, help="Write the figures here; of two, into FILE-a and FILE-b.")
@click.option("--html", type=FILE, help="Write a page with plots here.")
@click.option("--trace", type=FILE, help="Write a trace for Perfetto here.")
def bundles(
    targets: tuple[str, ...],
    percentiles: str,
    rate: float | None,
    sweep: str | None,
    interleave: int | None,
    predict: str | None,
    frames: int | None,
    trace: Path | None,
    cold_start: bool,
    layers: bool,
    report: Path | None,
    html: Path | None,
    **options: Any,
) -> None:
    """Stream without losing a frame, and print the time by stage and what streaming costs.

    The same frames are first decoded and inferred one after the other, each part timed alone; the
    stream is then held against the most that these times allow on two threads. With --rate the frames
    are due at fixed times instead, and a frame's age counts from then. Frames before the steady state
    are found by a change-point test; they stand in the JSON and in no figure. Nothing else is left out.
    """
    plan = Wanted(parse_percentiles(percentiles), frames, rate, [resolve(TRACE)(trace)] if trace else [])
    if interleave is not None:
        if sweep or predict or cold_start or layers or html or trace:
            raise InputError(
                "--interleave compares two bundles. Of the options below it, it takes --json alone."
            )
        _in_turn(_two(targets, options), plan, interleave, report)
        return
    option = SweepOption.parse(sweep, rate) if sweep else None
    settings = _of_one_source(_settings(targets).changed({}, frames=frames, **options))
    check_options(settings.source, json=report, html=html, trace=trace)
    if predict:
        if sweep or cold_start or layers or html or trace:
            raise InputError(
                "--predict runs nothing: --sweep, --cold-start, --layers, --html and --trace need a run."
            )
        _predict(settings, predict, report)
        return
    plan = replace(plan, frames=settings.frames)
    found = profile_one(settings, plan)
    print_profile(found, plan)
    more = _more(settings, found.run, cold_start, layers)
    if option:
        more["sweep"] = run_sweep(settings, replace(plan, sinks=()), option)
        print_table(sweep_table(more["sweep"]))
    _write(found.report | more, report, html)


bundles.context_class = _Unnamed


def parse_percentiles(text: str) -> tuple[float, ...]:
    """`50,90,99.9`; raises InputError for what is no number between 0 and 100."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(0 < percent < 100 for percent in found):
        raise InputError(f"--percentiles is '{text}': expected numbers between 0 and 100, as in 50,99,99.9.")
    return found


def _settings(targets: tuple[str, ...]) -> StreamSettings:
    """Of a config, of bundles, or without either the settings that `run` takes."""
    configs = [target for target in targets if target.endswith(".toml")]
    if not configs:
        return StreamSettings().changed({}, targets)
    if len(targets) > 1:
        raise InputError(f"Expected one config or some bundles, got both: {' '.join(targets)}.")
    return StreamSettings.read(Path(configs[0]))


def _of_one_source(settings: StreamSettings) -> StreamSettings:
    """The source of the only camera is the stream's."""
    if not settings.cameras:
        return settings
    if len(settings.cameras) > 1:
        names = ", ".join(camera.name for camera in settings.cameras)
        raise InputError(
            f"A profile streams one source, and the config has {len(settings.cameras)} cameras: {names}. Name "
            "one with --source; --sweep cameras=1,2,4 then plays it as several."
        )
    return settings.changed({}, source=settings.cameras[0].source)


def _two(targets: tuple[str, ...], options: Mapping[str, Any]) -> tuple[StreamSettings, StreamSettings]:
    if len(targets) != 2:
        raise InputError(
            f"--interleave compares two bundles or configs, got {len(targets)}: {' '.join(targets) or 'none'}. "
            "Expected `sightline profile A B --interleave 10`."
        )
    a, b = (_of_one_source(_settings((target,)).changed({}, **options)) for target in targets)
    return a, b


def _in_turn(
    both: tuple[StreamSettings, StreamSettings], plan: Wanted, rounds: int, report: Path | None
) -> None:
    files = [report.with_stem(f"{report.stem}-{letter}") for letter in "ab"] if report else []
    for file, settings in product(files, both):
        check_options(settings.source, json=file)
    found = profile_in_turn(both, plan, rounds)
    for file, one in zip(files, found, strict=False):
        write_report(file, one.report)
    a, b = (one.run.timings for one in found)
    print_comparison(compare_timings(a, b))


def _more(settings: StreamSettings, run: Run, cold_start: bool, layers: bool) -> dict[str, Any]:
    """What is only measured when it is asked for, after the stream."""
    more: dict[str, Any] = {}
    if cold_start:
        backends = [model["backend"] for model in run.settings["models"]]
        more["cold_start_ms"] = resolve(COLD_START)(settings, backends)
        print_cold_start(more["cold_start_ms"])
    if layers:
        more["layers"] = {}
        for name, found in layers_of(settings, run):
            more["layers"][name] = found.as_json()
            print_table(found.table())
    return more


def layers_of(settings: StreamSettings, run: Run) -> Iterator[tuple[str, Any]]:
    """By model, its `LayerReport`, on the backend and at the precision that were streamed."""
    for wanted, chosen in zip(settings.chosen(), run.settings["models"], strict=True):
        backend, precision = chosen["backend"], chosen["precision"]
        # What this processor can do says nothing of a GPU.
        bound = None if backend == "tensorrt" else resolve(ROOFLINE)(precision, wanted.threads)
        how = {"threads": wanted.threads, "roofline": bound}
        yield chosen["model"], resolve(LAYERS)(Bundle.open(wanted.bundle), backend, precision, **how)


def _predict(settings: StreamSettings, device: str, report: Path | None) -> None:
    """Print, and write if asked, what each model would take on a device that is not here."""
    found = {}
    for wanted in settings.chosen():
        bundle = Bundle.open(wanted.bundle)
        precision = "int8" if wanted.precision == "auto" else wanted.precision
        prediction, table = resolve(PREDICT)(bundle, device, precision)
        print_table(table)
        found[wanted.name or bundle.manifest.name] = prediction.as_json()
    if report:
        write_text(report, json.dumps({"predictions": found}, indent=2) + "\n")


def _write(report: dict[str, Any], path: Path | None, html: Path | None) -> None:
    if path:
        write_report(path, report)
    if html:
        # The page draws the layers of one model: those of the one that takes longest.
        of_models = (report.get("layers") or {}).values()
        layers = max(of_models, key=lambda found: found.get("whole_ms") or 0.0, default=None)
        write_text(html, resolve(PAGE)(report | {"layers": layers}))
