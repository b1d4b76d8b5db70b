"""Each artefact against the Keras model, on the same real images, through the runner of the edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Artefact, Bundle, Metrics
from edge.pixels import Image
from edge.runners import open_runner

Logits = NDArray[np.float32]
Progress = Callable[[int], None]

RESAMPLES = 10_000


def artefact_logits(
    bundle: Bundle,
    artefact: Artefact,
    images: Image,
    threads: int = 2,
    progress: Progress = lambda done: None,
) -> Logits:
    """The artefact's outputs as a device gets them: one image at a time, dequantised."""
    head = bundle.manifest.outputs[0].name
    runner = open_runner(bundle, artefact.format, artefact.precision, threads)
    rows = []
    try:
        for image in images:
            rows.append(runner.infer(image[None])[head][0].copy())
            progress(1)
    finally:
        runner.close()
    return np.stack(rows)


def compare(reference: Logits, found: Logits, labels: NDArray[np.int64]) -> Metrics:
    """The figures of the parity table.

    Args:
        reference, found: float32 (N, classes), Keras's and the artefact's outputs.
        labels: int64 (N,), the true classes.
    """
    right, still_right = reference.argmax(1) == labels, found.argmax(1) == labels
    errors = np.abs(reference - found)
    n = len(labels)
    return Metrics(
        metric="top1",
        value=100 * float(still_right.mean()),
        reference=100 * float(right.mean()),
        n=n,
        drop=100 * int(right.sum() - still_right.sum()) / n,
        drop_ci95=paired_interval(right, still_right),
        agreement=100 * float((reference.argmax(1) == found.argmax(1)).mean()),
        max_error=float(errors.max()),
        mean_error=float(errors.mean()),
    )


def paired_interval(right: NDArray[np.bool_], still_right: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the drop, in points, over images (Efron 1979).

    An image's difference is -1, 0 or 1, so a resample is a draw of three counts: the same
    distribution as drawing images, at no cost.
    """
    n = len(right)
    difference = right.astype(int) - still_right.astype(int)
    shares = [float((difference == value).mean()) for value in (-1, 0, 1)]
    counts = np.random.default_rng(0).multinomial(n, shares, RESAMPLES)
    low, high = np.percentile(100 * (counts[:, 2] - counts[:, 0]) / n, [2.5, 97.5])
    return float(low), float(high)
