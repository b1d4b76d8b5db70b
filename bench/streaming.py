"""What streaming costs over its parts: a 1280x720 H.264 clip through the shipped int8 models, one thread each.

    python bench/streaming.py [--bundle face-320x192 --bundle cifar10-base] [--frames 600] [--rounds 3] \\
        [--against CHECKOUT] [--json FILE]

Makes the clip from the demo source. Then, each time in a process of its own: times decoding (colour conversion
included) and inference (resizing and decoding of the heads included) alone; streams the clip losslessly, and
prints the frames per second beside the bound min(1/t_decode, 1/t_infer, cores/(cpu_decode + cpu_infer)); and
plays it at 30 frames a second. Glue is all of a frame's age but decoding and inference proper: preprocess,
postprocess and publish, and at 30 a second the waiting for its turn too.

With --against the same is done by another checkout's `edge`, in turn with this one: before and after in one run.
The bound assumes that the cores are free. Ends with 1 when the best round misses a goal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import av
import click
import numpy as np
from rich.console import Console
from rich.table import Table

from edge.cascade import Cascade
from edge.config import DEFAULT_MODELS, StreamSettings
from edge.frame import Frame
from edge.profiling.measure import Wanted, measure, stream
from edge.sources import open_source

HERE = Path(__file__).resolve().parents[1]
RATE = 30.0
GOALS = {"ratio": 0.95, "glue p50": 0.8, "glue p99": 2.0}
"""The ratio is a least, milliseconds are a most."""


def make_clip(path: Path, frames: int) -> Path:
    """The demo source as H.264, 1280x720 at 30 frames a second."""
    source, frame = open_source(f"demo://?frames={frames}"), Frame()
    info = source.open()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
        while source.read(frame):
            picture = av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")
            picture.pts = frame.index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    source.close()
    return path


def measured(clip: str, bundles: tuple[str, ...], frames: int) -> dict[str, float]:
    """One round in this process; milliseconds, and frames a second."""
    settings = StreamSettings(source=clip, frames=frames).changed({}, bundles)
    timings, cost = measure(settings)
    pre, infer, post, publish = (timings.stages_ms[row] for row in (2, 3, 4, 5))
    models = Cascade.open(settings.chosen())
    paced = stream(settings, models, Wanted(frames=int(10 * RATE), rate=RATE)).timings.stages_ms
    models.close()
    found = {"decode": cost.alone.decode_ms, "infer alone": cost.alone.infer_ms}
    found |= {"bound, fps": cost.alone.bound_fps, "streamed, fps": cost.fps, "ratio": cost.ratio}
    found |= {"preprocess p50": float(np.median(pre)), "infer p50": float(np.median(infer))}
    found |= {"postprocess p50": float(np.median(post)), "publish p50": float(np.median(publish))}
    for name, glue in (("glue", pre + post + publish), ("glue at 30/s", paced[-1] - paced[0] - paced[3])):
        found |= {f"{name} p{percent}": float(np.percentile(glue, percent)) for percent in (50, 99)}
    return found


def in_child(checkout: Path, clip: Path, bundles: tuple[str, ...], frames: int) -> dict[str, float]:
    """One round by a checkout's `edge`."""
    command = [sys.executable, __file__, "--child", str(clip), "--frames", str(frames)]
    command += [word for bundle in bundles for word in ("--bundle", bundle)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table_of(rounds: dict[str, list[dict[str, float]]]) -> Table:
    """A line a figure: medians over the rounds, and of the rounds' ratios."""
    table = Table(title="Streaming, ms unless said; medians over the rounds", title_justify="left")
    for name in ("", *rounds):
        table.add_column(name, justify="right" if name else "left")
    if len(rounds) > 1:
        table.add_column("ratio", justify="right")
    for figure in next(iter(rounds.values()))[0]:
        values = [[found[figure] for found in of_one] for of_one in rounds.values()]
        cells = [f"{median(of_one):.3g}" for of_one in values]
        if len(rounds) > 1:
            cells.append(f"{median(a / b for a, b in zip(*values, strict=True)):.2f}")
        table.add_row(figure, *cells)
    return table


def missed(rounds: list[dict[str, float]]) -> list[str]:
    """The goals that not even the best round reached."""
    found = []
    for figure, goal in GOALS.items():
        values = [one[figure] for one in rounds]
        if max(values) < goal if figure == "ratio" else min(values) > goal:
            found.append(
                f"{figure}: goal {goal:g}, best {max(values) if figure == 'ratio' else min(values):.3g}"
            )
    return found


@click.command()
@click.option("--bundle", "bundles", multiple=True, default=DEFAULT_MODELS, show_default=True)
@click.option("--frames", default=600, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Another checkout.")
@click.option("--json", "report", type=click.Path(path_type=Path))
@click.option("--child", hidden=True)
def main(
    bundles: tuple[str, ...], frames: int, rounds: int, against: Path | None, report: Path | None, child: str
) -> None:
    """Measure, print, and hold the best round against the goals."""
    if child:
        print(json.dumps(measured(child, bundles, frames)))
        return
    found: dict[str, list[Any]] = {"here": []} | ({"against": []} if against else {})
    checkouts = {"here": HERE, "against": against}
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 300)
        for number in range(rounds):
            for name in list(found) if number % 2 == 0 else reversed(list(found)):
                found[name].append(in_child(checkouts[name] or HERE, clip, bundles, frames))
    console = Console()
    console.print(table_of(found))
    if report:
        report.write_text(json.dumps(found, indent=1))
    for line in missed(found["here"]):
        console.print(f"missed: {line}", highlight=False)
    sys.exit(1 if missed(found["here"]) else 0)


if __name__ == "__main__":
    main()
