"""Golden vectors: a few inputs, and what Keras, or for int8 its simulation, makes of them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Artefact, Bundle, Golden
from edge.golden import tolerance_needed
from edge.pixels import Image, fit
from edge.runners import open_runner

FILE = "golden.npz"
PHOTOGRAPHS = ("astronaut.png", "chelsea.png")
"""A face and none. NASA's and the photographer's own, both in the public domain: a bundle, which is
copied and shipped, must not carry pictures of a training set, whose people and terms are not ours."""


class Tolerance(NamedTuple):
    """How far a runtime may lie from what was exported, see `edge.bundle.Golden`.

    Roundings that fall the other way add up over the layers: 3.2 steps were seen in a residual network of ten
    layers, whose file named Keras's class for 99.1 % of 1,500 images. Where they add up to more, see `fitted`.
    """

    steps: float = 6.0
    share: float = 1.0


ROOM, LARGEST_STEPS = 2.0, 32.0
"""Times what was seen here, for runtimes that were not; beyond an eighth of the range it would tell nothing."""


def made_inputs(height: int, width: int, count: int) -> Image:
    """Pictures of soft coloured blobs with some noise: uint8 (count, height, width, 3).

    Made, not taken from a data set, so that a bundle carries nobody's pictures.
    """
    import cv2

    rng = np.random.default_rng(0)
    pictures = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        blobs = rng.integers(0, 256, (3 + index, 3 + index, 3)).astype(np.float32)
        soft = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
        pictures[index] = np.clip(soft + rng.normal(0, 8, soft.shape), 0, 255)
    return pictures


def photographs(height: int, width: int) -> Image:
    """scikit-image's `PHOTOGRAPHS`, letterboxed: uint8 (2, height, width, 3); made ones where it is absent."""
    import cv2

    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        return made_inputs(height, width, len(PHOTOGRAPHS))
    folder = Path(package.origin).parent / "data"
    read = (cv2.imdecode(np.fromfile(folder / name, np.uint8), cv2.IMREAD_COLOR_RGB) for name in PHOTOGRAPHS)
    return np.stack([fit(np.asarray(picture, np.uint8), height, width, "letterbox") for picture in read])


def write_golden(
    folder: Path, vectors: Mapping[str, NDArray[Any]], step: dict[str, float], tolerance: Tolerance
) -> Golden:
    """Write `golden.npz` and describe it.

    Args:
        vectors: `inputs` and `<format>.<precision>.<head>`, see `edge.bundle.Golden`.
        step: by head, one step of the int8 output.
    """
    digest = _write(folder, vectors)
    held_to = _held_to(tolerance.steps)
    return Golden(file=FILE, sha256=digest, step=step, share=tolerance.share, **held_to)


def _held_to(steps: float) -> dict[str, float]:
    """Each of the two best logits may lie that far off, towards the other."""
    return {"tolerance_steps": steps, "margin_steps": 2 * steps}


def _write(folder: Path, vectors: Mapping[str, NDArray[Any]]) -> str:
    """The file's hash."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **vectors)
    (folder / FILE).write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def fitted(bundle: Bundle, kept: tuple[Artefact, ...]) -> Golden:
    """The bundle's golden vectors with a tolerance that artefacts which passed their gate keep.

    Where channels lie orders of magnitude apart, one rounding that falls the other way early in the network is
    several steps of the output: 6.5 were seen in a file that lost nothing on 3,000 images. Devices round otherwise
    again, so there the tolerance is twice what was seen, and classes must be the same only beyond it.
    """
    golden = bundle.manifest.golden
    needed = max((n for artefact in kept if (n := _needed(bundle, artefact)) <= LARGEST_STEPS), default=0.0)
    if needed <= golden.tolerance_steps:
        return golden
    return golden.model_copy(update=_held_to(math.ceil(ROOM * needed)))


def _needed(bundle: Bundle, artefact: Artefact) -> float:
    with closing(open_runner(bundle, artefact.format, artefact.precision)) as runner:
        return tolerance_needed(bundle, runner, artefact.format, artefact.precision)


def write_part(folder: Path, bundle: Bundle, kept: tuple[Artefact, ...]) -> Golden:
    """Write a bundle's golden vectors of some of its artefacts alone: of a detector they are megabytes."""
    golden = bundle.manifest.golden
    wanted = tuple(f"{artefact.format}.{artefact.precision}." for artefact in kept)
    with np.load(io.BytesIO(bundle.content(golden)), allow_pickle=False) as arrays:
        vectors = {key: arrays[key] for key in arrays if key == "inputs" or key.startswith(wanted)}
    return golden.model_copy(update={"sha256": _write(folder, vectors)})
