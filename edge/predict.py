"""`sightline predict`: results for every picture of a source, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.progress import track

from edge.bundle import Bundle
from edge.console import open_console
from edge.errors import SourceError
from edge.files import check_options, whole_file
from edge.frame import Frame
from edge.model import Model
from edge.protocols import Source
from edge.sources import open_source


@click.command()
@click.argument("bundle")
@click.argument("source")
@click.option("--backend", default="auto", show_default=True, help="tflite, onnx or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="fp32, fp16 or int8.")
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="Of the model."
)
@click.option(
    "--score-threshold",
    type=click.FloatRange(0, 1),
    metavar="T",
    help="Leave out faces below this score, 0 to 1. [default: 0.5]",
)
@click.option(
    "--jsonl", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
def predict(
    bundle: str,
    source: str,
    backend: str,
    precision: str,
    threads: int,
    score_threshold: float | None,
    jsonl: Path,
) -> None:
    """Run BUNDLE on every picture of SOURCE (images, a video, demo://?frames=N) and write --jsonl FILE.

    A line of a classifier is {"image": NAME, "scores": [p0, p1, ...]}; of a detector {"image": NAME,
    "width": W, "height": H, "boxes": [[x0, y0, x1, y1, score], ...]}, in pixels of the upright picture.
    The file appears whole, or not at all.
    """
    check_options(source, jsonl=jsonl)
    console = open_console(stderr=True)
    opened = Model.open(Bundle.open(bundle), backend, precision, threads, score_threshold)
    with closing(opened) as model, closing(open_source(source)) as frames:
        info = frames.open()
        if info.frames is None:
            raise SourceError(
                f"{info.uri} has no end, and the file appears whole. Give the demo one: demo://?frames=300; "
                "of a camera take: sightline run --source URI --seconds 10 --jsonl FILE."
            )
        with whole_file(jsonl) as temporary:
            lines = track(_results(model, frames), "predicting", total=info.frames or None, console=console)
            count = _write(lines, temporary)
            if count == 0:
                raise SourceError(f"{info.uri} holds no picture that can be decoded; nothing was written.")
        console.print(
            f"{count} pictures, {model.name} {model.backend} {model.precision}: {jsonl}", highlight=False
        )


def _results(model: Model, source: Source) -> Iterator[dict[str, Any]]:
    frame = Frame()
    while source.read(frame):
        name = frame.name or f"frame {frame.index}"
        height, width = frame.pixels.shape[:2]
        size = {"width": width, "height": height} if model.finds_faces else {}
        yield {"image": name, **size, **model.predict(frame.pixels).as_json()}


def _write(results: Iterable[dict[str, Any]], path: Path) -> int:
    count = 0
    with open(path, "w", encoding="utf-8") as stream:
        for result in results:
            stream.write(json.dumps(result) + "\n")
            count += 1
    return count
