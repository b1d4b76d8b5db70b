"""Our face detector beside YuNet and RFB-320: AP50 on the same pictures, milliseconds in one run.

    python bench/faces.py --data DIR --peers DIR [--bundle face-320]... [--against face-320] [--split test]
                          [--long-side 320]...
    make bench DATA=DIR PEERS=DIR

DATA is a COCO folder (annotations.json, images/), PEERS holds yunet_s_dynamic.onnx, yunet_n_dynamic.onnx
and version-RFB-320.onnx; where either is absent it says so and ends with 0. Every face counts, IoU 0.5,
the whole area under the precision-recall curve, scores from 0.02. Milliseconds are the model's alone,
from pixels of its input to its raw heads, on one thread, the models in turn within one loop.

YuNet was trained on WIDER FACE and never saw the distribution of our training split.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from peers.faces import Rfb320, YuNet, open_session
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge.bundle import Bundle
from edge.errors import BundleError, InputError
from edge.machine import this_machine
from edge.model import Model
from edge.pixels import Image
from edge.results import Faces
from edge.tasks.faces import FacesTask
from train.detection.average_precision import Matched, average_precision, match, paired_bootstrap
from train.detection.data import ANNOTATIONS, BoxedImages, load_boxed, pictures
from train.detection.evaluate import SCORE_FLOOR

YUNETS = {"YuNet_s": "yunet_s_dynamic.onnx", "YuNet_n": "yunet_n_dynamic.onnx"}
RFB = "version-RFB-320.onnx"
YARDSTICK = "YuNet_s"
WARM_UP = 20
QUIET = 1.25
"""Where the upper quartile is further above the lower one, something else was running."""


@dataclass(frozen=True)
class Entrant:
    """A detector: `detect` takes a picture, `infer` runs the model alone on pixels that are ready."""

    name: str
    ours: bool
    detect: Callable[[Image], Faces]
    infer: Callable[[], object]


def our_entrants(bundles: tuple[str, ...], console: Console) -> list[Entrant]:
    """Each artefact of our bundles that runs here."""
    found = []
    for name in bundles:
        try:
            bundle = Bundle.open(name)
        except BundleError as error:
            console.print(f"left out: {error}", highlight=False)
            continue
        for artefact in bundle.manifest.artefacts:
            try:
                model = Model.open(bundle, artefact.format, artefact.precision, threads=1)
                found.append(_our_entrant(model))
            except InputError as error:
                console.print(f"left out: {error}", highlight=False)
    return found


def earlier(bundle: str | None, console: Console) -> list[Entrant]:
    """The artefacts of a bundle that ours are held against; its name may well be that of ours."""
    bundles = () if bundle is None else (bundle,)
    return [replace(one, name=f"earlier {one.name}", ours=False) for one in our_entrants(bundles, console)]


def _our_entrant(model: Model) -> Entrant:
    task, spec = FacesTask(model.manifest, SCORE_FLOOR), model.manifest.input
    pixels = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)
    return Entrant(
        f"{model.name} {model.backend} {model.precision}",
        True,
        lambda picture: task.decode(model.infer(model.prepare(picture)), picture),
        lambda: model.infer(pixels),
    )


def peers(folder: Path, long_sides: tuple[int, ...]) -> list[Entrant]:
    """The others' detectors, float32 in ONNX Runtime."""
    found = [
        _yunet(name, YuNet(open_session(folder / file), side))
        for side in long_sides
        for name, file in YUNETS.items()
    ]
    rfb = Rfb320(open_session(folder / RFB))
    pixels = _noise(240, 320)
    return [*found, Entrant("RFB-320 @320x240", False, rfb.detect, lambda: rfb.infer(pixels))]


def int8_and_yunets(
    bundles: tuple[str, ...], folder: Path, long_side: int, console: Console
) -> list[Entrant]:
    """The int8 TFLite files of our bundles, then YuNet_s and YuNet_n at one size."""
    ours = [one for one in our_entrants(bundles, console) if one.name.endswith("tflite int8")]
    return [*ours, *(one for one in peers(folder, (long_side,)) if one.name.startswith("YuNet"))]


def _yunet(name: str, yunet: YuNet) -> Entrant:
    pixels = 255 * _noise(yunet.long_side, yunet.long_side)
    return Entrant(f"{name} @{yunet.long_side}", False, yunet.detect, lambda: yunet.infer(pixels))


def _noise(height: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((1, 3, height, width), np.float32)


# -- accuracy -------------------------------------------------------------------------------------


def all_matched(entrants: list[Entrant], images: BoxedImages) -> dict[str, list[Matched]]:
    """What each detector finds in each picture, held against the truth."""
    matched: dict[str, list[Matched]] = {entrant.name: [] for entrant in entrants}
    both = zip(images.images, pictures(images.images), strict=True)
    for image, picture in track(both, "detecting", total=len(images), console=Console(stderr=True)):
        for entrant in entrants:
            matched[entrant.name].append(match(image, entrant.detect(picture)))
    return matched


def accuracy_table(matched: dict[str, list[Matched]], images: BoxedImages) -> Table:
    """AP50 of all and by source."""
    sources = sorted({image.source for image in images.images} - {""})
    table = markdown_table("AP50", "all", *sources)
    for name, found in matched.items():
        parts = [
            [one for one, image in zip(found, images.images, strict=True) if image.source == source]
            for source in sources
        ]
        table.add_row(name, *(f"{average_precision(part):.3f}" for part in (found, *parts)))
    return table


def difference_table(entrants: list[Entrant], matched: dict[str, list[Matched]]) -> Table | None:
    """AP50 of ours minus that of each of the others, with its paired interval: pictures drawn together, 1000 times."""
    ours = [entrant.name for entrant in entrants if entrant.ours]
    table = markdown_table("difference in points of AP50", *ours)
    for peer in (entrant.name for entrant in entrants if not entrant.ours):
        table.add_row(f"minus {peer}", *(_difference(matched[our], matched[peer]) for our in ours))
    return table if ours else None


def _difference(a: list[Matched], b: list[Matched]) -> str:
    low, high = paired_bootstrap(a, b)
    points = 100 * (average_precision(a) - average_precision(b))
    return f"{points:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


# -- speed ----------------------------------------------------------------------------------------


def interleaved(entrants: list[Entrant], repetitions: int) -> NDArray[np.float64]:
    """Milliseconds float64 (repetitions, entrants); all in turn, so that a busy moment meets all."""
    times = np.zeros((repetitions + WARM_UP, len(entrants)))
    for row in times:
        for column, entrant in enumerate(entrants):
            begin = time.perf_counter_ns()
            entrant.infer()
            row[column] = (time.perf_counter_ns() - begin) / 1e6
    return times[WARM_UP:]


def speed_table(entrants: list[Entrant], times: NDArray[np.float64], yardstick: str) -> Table:
    """Medians, with the middle half, and the ratio of medians to the yardstick's."""
    medians = dict(zip((entrant.name for entrant in entrants), np.median(times, axis=0), strict=True))
    table = markdown_table("ms, one thread", "median", "middle half", f"ratio to {yardstick}")
    for entrant, column in zip(entrants, times.T, strict=True):
        low, high = np.quantile(column, [0.25, 0.75])
        ratio = medians[entrant.name] / medians[yardstick]
        table.add_row(
            entrant.name, f"{medians[entrant.name]:.2f}", f"{low:.2f} to {high:.2f}", f"{ratio:.2f}"
        )
    return table


def busy(times: NDArray[np.float64]) -> bool:
    """Whether the machine was too busy for these times to be trusted."""
    low, high = np.quantile(times, [0.25, 0.75], axis=0)
    return bool((high > QUIET * low).any())


# -- the command ----------------------------------------------------------------------------------


def markdown_table(*headings: str) -> Table:
    """An empty table: the first column to the left, figures to the right."""
    table = Table(box=box.MARKDOWN)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def conditions(images: BoxedImages) -> str:
    """The machine, the versions and the pictures, for a table's foot."""
    machine = this_machine()
    packages = ("ai-edge-litert", "onnxruntime", "opencv-python-headless", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{machine.cpu}, {machine.cores} cores; Python {platform.python_version()}, {versions}; "
        f"{images.source}: {len(images)} pictures, {images.faces} faces"
    )


def measurable(
    data: Path | None, folder: Path | None, split: str, console: Console
) -> tuple[BoxedImages, Path] | None:
    """The pictures and the folder of the others' models, OpenCV on one thread; None, and why, where they are absent."""
    missing = _missing(data, folder)
    if missing or data is None or folder is None:
        console.print(f"skipped: {missing}", highlight=False)
        return None
    cv2.setNumThreads(1)
    return load_boxed(data, split), folder


def _missing(data: Path | None, folder: Path | None) -> str | None:
    if data is None or folder is None:
        return "give --data DIR and --peers DIR (or DATA= and PEERS=)"
    wanted = [data / ANNOTATIONS, *(folder / file for file in (*YUNETS.values(), RFB))]
    absent = [str(path) for path in wanted if not path.is_file()]
    return f"there is no {', '.join(absent)}" if absent else None


@click.command()
@click.option("--data", type=click.Path(path_type=Path), envvar="DATA", help="A COCO folder of faces.")
@click.option("--peers", "folder", type=click.Path(path_type=Path), envvar="PEERS", help="Their models.")
@click.option("--bundle", "bundles", multiple=True, default=("face-320",), show_default=True)
@click.option("--against", metavar="BUNDLE", help="An earlier one of ours, to be compared like a peer.")
@click.option("--split", default="test", show_default=True)
@click.option("--long-side", "long_sides", multiple=True, type=int, default=(320, 512), show_default=True)
@click.option("--repetitions", default=300, show_default=True, type=click.IntRange(min=1))
def main(
    data: Path | None,
    folder: Path | None,
    bundles: tuple[str, ...],
    against: str | None,
    split: str,
    long_sides: tuple[int, ...],
    repetitions: int,
) -> None:
    """Measure ours and theirs, and print tables in Markdown."""
    console = Console(width=200)
    found = measurable(data, folder, split, console)
    if found is None:
        return
    images, theirs = found
    entrants = [*our_entrants(bundles, console), *earlier(against, console), *peers(theirs, long_sides)]
    times = interleaved(entrants, repetitions)
    matched = all_matched(entrants, images)
    console.print(f"{conditions(images)}; speed: {repetitions} runs each, in turn", highlight=False)
    tables = (
        accuracy_table(matched, images),
        difference_table(entrants, matched),
        speed_table(entrants, times, f"{YARDSTICK} @{long_sides[0]}"),
    )
    for table in filter(None, tables):
        console.print(table)
    if busy(times):
        console.print("The times spread widely: the machine was busy. Trust none of them, run it again idle.")


if __name__ == "__main__":
    main()
