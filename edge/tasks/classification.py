"""Image classification: logits to probabilities."""

from __future__ import annotations

import numpy as np

from edge.bundle import Manifest
from edge.pixels import Image
from edge.protocols import Heads
from edge.results import Classification


class ClassificationTask:
    """Softmax of the one head, named by the manifest's labels."""

    def __init__(self, manifest: Manifest) -> None:
        self._head = manifest.outputs[0].name
        self._labels = manifest.labels

    def decode(self, heads: Heads, picture: Image) -> Classification:
        """Logits float32 (1, classes) to the probabilities of the first item."""
        logits = heads[self._head][0]
        # The largest logit is taken off first, so that exp cannot overflow.
        powers = np.exp(logits - logits.max())
        scores = powers / powers.sum()
        best = int(scores.argmax())
        return Classification(scores, best, self._labels[best])
