"""Ours beside the pipelines that users come from: the same clip, one face model each, in turn.

    python bench/pipelines.py [--peers DIR] [--environments build/peers] [--frames 300] [--rounds 3] [--json FILE]

The clip is the demo's, 1280x720 H.264. DIR holds YuNet (`yunet_s_dynamic.onnx`, which OpenCV ships as
face_detection_yunet_2023mar). Each peer gets an environment of its own, made on first use; what cannot be
installed or run is said and left out. A tracker's or a vendor's predict loop (Ultralytics, supervision, Roboflow's
inference) wraps one of these decoders and runtimes, and brings 2 GB of PyTorch or a server: not measured here.

Figures: frames a second as fast as it goes and processor time a frame meanwhile, p99 of the age where frames are
due 30 times a second, and the peak of resident memory. Ends with 1 unless ours is first on all four.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table
from streaming import make_clip

ROOT = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).parent / "peers" / "pipelines.py"
OURS = "Sightline"
YUNET = "yunet_s_dynamic.onnx"
ENVIRONMENTS = {
    "FaceDetectorYN": ("opencv", ("opencv-python-headless>=4.10,<5", "onnxruntime>=1.20,<2")),
    "ONNX Runtime": ("opencv", ("opencv-python-headless>=4.10,<5", "onnxruntime>=1.20,<2")),
    "MediaPipe": ("mediapipe", ("mediapipe==0.10.21",)),
}
"""By entrant, its environment and what is installed there. Later wheels of MediaPipe hold no model."""

MORE_IS_BETTER = {
    "frames a second": True,
    "p99 age, ms": False,
    "memory, MB": False,
    "processor, ms a frame": False,
}
Figures = dict[str, float]


class CannotRun(Exception):
    """Why an entrant is left out."""


def with_fixed_size(model: Path, folder: Path) -> Path:
    """A copy of YuNet for pictures of 320x192, which is what OpenCV 4 pads 320x180 to: it refuses free sizes."""
    import onnx

    network = onnx.load(model)
    for dimension, size in zip(
        network.graph.input[0].type.tensor_type.shape.dim, (1, 3, 192, 320), strict=True
    ):
        dimension.dim_value = size
    for output in network.graph.output:
        del output.type.tensor_type.shape.dim[:]
    onnx.save(network, folder / "yunet_320x192.onnx")
    return folder / "yunet_320x192.onnx"


def model_of(entrant: str, bundle: str, peers: Path, folder: Path) -> str:
    """What an entrant loads; raises CannotRun where it is not there."""
    if entrant in (OURS, "MediaPipe"):
        return bundle
    if not (peers / YUNET).is_file():
        raise CannotRun(f"there is no {YUNET}; name its folder with --peers")
    return str(with_fixed_size(peers / YUNET, folder) if entrant == "FaceDetectorYN" else peers / YUNET)


def interpreter(entrant: str, folder: Path) -> str:
    """Of the entrant's environment, which is made unless it is there; raises CannotRun."""
    if entrant == OURS:
        return sys.executable
    name, packages = ENVIRONMENTS[entrant]
    python = folder / name / "bin" / "python"
    if not python.is_file():
        for command in (
            [sys.executable, "-m", "venv", str(folder / name)],
            [str(python), "-m", "pip", "install", "--quiet", *packages],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise CannotRun(
                    f"cannot be installed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
                )
    return str(python)


def measured(entrant: str, python: str, clip: Path, model: str, frames: int) -> Figures:
    """One round, in a process of its own; raises CannotRun."""
    command = [python, str(CHILD), entrant, str(clip), model, str(frames)]
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    if entrant == OURS:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise CannotRun(f"does not run: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def table_of(found: dict[str, Figures], rounds: int, frames: int) -> Table:
    """A line for each entrant."""
    table = Table(title=f"Medians of {rounds} rounds of {frames} frames", title_justify="left")
    for name in ("", *MORE_IS_BETTER):
        table.add_column(name, justify="right" if name else "left")
    for entrant, figures in found.items():
        table.add_row(entrant, *(f"{figures[name]:.3g}" for name in MORE_IS_BETTER))
    return table


def lost(found: dict[str, Figures]) -> list[str]:
    """The figures on which another one is ahead."""
    ours = found[OURS]
    return [
        f"{name}: {entrant} has {theirs[name]:.3g}, ours is {ours[name]:.3g}"
        for entrant, theirs in found.items()
        for name, more in MORE_IS_BETTER.items()
        if entrant != OURS and (theirs[name] > ours[name] if more else theirs[name] < ours[name])
    ]


@click.command()
@click.option("--peers", type=click.Path(path_type=Path), help=f"The folder of {YUNET}.")
@click.option("--environments", type=click.Path(path_type=Path), default=ROOT / "build" / "peers")
@click.option("--bundle", default="face-320x192", show_default=True)
@click.option("--frames", default=300, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "report", type=click.Path(path_type=Path))
def main(
    peers: Path | None, environments: Path, bundle: str, frames: int, rounds: int, report: Path | None
) -> None:
    """Measure in turn, print, and say where ours is not first."""
    console = Console()
    runs: dict[str, list[Figures]] = {OURS: []} | {name: [] for name in ENVIRONMENTS}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 300)
        for number in range(rounds):
            for entrant in runs if number % 2 == 0 else reversed(runs):
                if entrant in skipped:
                    continue
                try:
                    model = model_of(entrant, bundle, peers or Path(), Path(folder))
                    python = interpreter(entrant, environments)
                    runs[entrant].append(measured(entrant, python, clip, model, frames))
                except CannotRun as error:
                    skipped[entrant] = str(error)
    for entrant, reason in skipped.items():
        console.print(f"left out: {entrant} {reason}", highlight=False)
    found = {
        entrant: {
            name: median(one[name] for one in of_one) for name in (*MORE_IS_BETTER, "frames with a face")
        }
        for entrant, of_one in runs.items()
        if of_one
    }
    if OURS not in found:
        sys.exit(1)
    console.print(table_of(found, rounds, frames))
    if report:
        report.write_text(json.dumps({"runs": runs, "skipped": skipped}, indent=1))
    blind = [name for name, figures in found.items() if figures["frames with a face"] == 0]
    for line in [*lost(found), *(f"{name} found no face at all" for name in blind)]:
        console.print(line, highlight=False)
    sys.exit(1 if lost(found) else 0)


if __name__ == "__main__":
    main()
