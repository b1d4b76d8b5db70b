"""Golden vectors: does this runner, on this machine, compute what was proven at export?"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from edge.bundle import MANIFEST, Bundle, Golden, Precision
from edge.errors import BundleError, CheckFailed
from edge.protocols import Runner
from edge.runners import ARTEFACT_OF, open_runner

Array = NDArray[np.generic]

BEYOND = 4
"""Times the tolerance: what the few values may differ that need not keep it."""


def check(bundle: Bundle, backend: str, precision: Precision) -> float:
    """Run the golden inputs through a backend; the largest difference of any output, in int8 output steps.

    Raises:
        CheckFailed: an output differs by more than the tolerance, or another class wins by more
            than the margin. BundleError: the file holds no vectors for this artefact.
    """
    with closing(open_runner(bundle, backend, precision)) as runner:
        return replay(bundle, runner, backend, precision)


def replay(bundle: Bundle, runner: Runner, backend: str, precision: Precision) -> float:
    """As `check`, with a runner that is open already, and stays so."""
    roles = {output.name: output.role for output in bundle.manifest.outputs}
    largest, who = 0.0, f"{backend} {precision}"
    for head, expected, found in _compared(bundle, runner, backend, precision):
        largest = max(largest, _difference(bundle.manifest.golden, head, expected, found, who))
        if roles[head] == "logits":
            _same_class(bundle.manifest.golden, head, expected, found, who)
    return largest


def tolerance_needed(bundle: Bundle, runner: Runner, backend: str, precision: Precision) -> float:
    """The smallest `Golden.tolerance_steps` that this runner keeps, in steps; infinite where it gives NaN."""
    golden, needed = bundle.manifest.golden, 0.0
    for head, expected, found in _compared(bundle, runner, backend, precision):
        steps = np.sort(_steps(golden, head, expected, found), axis=None)
        if not np.isfinite(steps[-1]):
            return np.inf
        needed = max(
            needed, float(steps[-1]) / BEYOND, float(steps[math.ceil(golden.share * len(steps)) - 1])
        )
    return needed


def _compared(
    bundle: Bundle, runner: Runner, backend: str, precision: Precision
) -> Iterator[tuple[str, Array, NDArray[np.float32]]]:
    """By input and head: its name, what is expected and what the runner gives."""
    inputs, expected = _vectors(bundle, f"{ARTEFACT_OF[backend]}.{precision}")
    for index, pixels in enumerate(inputs):
        for head, found in runner.infer(pixels[None]).items():
            yield head, expected[head][index], found[0]


def _vectors(bundle: Bundle, artefact: str) -> tuple[Array, dict[str, Array]]:
    """The inputs, uint8 (n, H, W, 3), and by head what an artefact must make of them, float32 (n, ...).

    Raises:
        BundleError: they are not there, or not as the manifest states them.
    """
    arrays, spec = _read(bundle), bundle.manifest.input
    inputs = _fitting(bundle, arrays, "inputs", "uint8", (spec.height, spec.width, 3))
    expected = {}
    for output in bundle.manifest.outputs:
        if output.name not in bundle.manifest.golden.step:
            raise BundleError(
                f"{bundle.folder / MANIFEST}: golden.step lacks '{output.name}'. Export the bundle anew."
            )
        key = f"{artefact}.{output.name}"
        expected[output.name] = _fitting(bundle, arrays, key, "float32", output.shape[1:], len(inputs))
    return inputs, expected


def _fitting(
    bundle: Bundle, arrays: dict[str, Array], key: str, dtype: str, shape: tuple[int, ...], count: int = 0
) -> Array:
    """An array of `count` such shapes, by default of one or more; raises BundleError where it is another."""
    if key not in arrays:
        raise BundleError(f"{bundle.folder} has no golden vectors for {key}. Export the bundle anew.")
    found = arrays[key]
    wanted = (count or max((1, *found.shape[:1])), *shape)
    if (str(found.dtype), found.shape) != (dtype, wanted):
        raise BundleError(
            f"{bundle.folder}: the golden vectors for {key} are {found.dtype} {found.shape}; expected {dtype} "
            f"{wanted}. Export the bundle anew."
        )
    return found


def _read(bundle: Bundle) -> dict[str, Array]:
    """The arrays of the file; raises BundleError where it holds none."""
    content = bundle.content(bundle.manifest.golden)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    # A TypeError: it is a single array, which is no context manager.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{bundle.folder / bundle.manifest.golden.file} holds no golden vectors. Export the bundle anew."
        ) from error


def _steps(golden: Golden, head: str, expected: Array, found: NDArray[np.float32]) -> NDArray[np.float64]:
    steps: NDArray[np.float64] = np.abs(expected.astype(np.float64) - found) / golden.step[head]
    return steps


def _difference(golden: Golden, head: str, expected: Array, found: NDArray[np.float32], who: str) -> float:
    """The largest difference in steps."""
    steps = _steps(golden, head, expected, found)
    largest, kept = float(steps.max()), float((steps <= golden.tolerance_steps).mean())
    most = golden.tolerance_steps * BEYOND
    if kept < golden.share or not largest <= most:
        beyond = (
            "" if golden.share == 1 else f" for {golden.share:.0%} of the values, {most:g} for the others"
        )
        raise CheckFailed(
            f"Golden vectors: {who} differs by {largest:.1f} output steps from what was exported, in {head} "
            f"({1 - kept:.1%} by more than {golden.tolerance_steps:g}); up to {golden.tolerance_steps:g} are "
            f"allowed{beyond}. The runtime computes something else: do not use it."
        )
    return largest


def _same_class(golden: Golden, head: str, expected: Array, found: NDArray[np.float32], who: str) -> None:
    wanted = expected.astype(np.float64).ravel()
    second, first = np.sort(wanted)[-2:]
    if (first - second) / golden.step[head] > golden.margin_steps and found.argmax() != wanted.argmax():
        raise CheckFailed(f"Golden vectors: {who} names another class than was exported. Do not use it.")
