"""How to go on from a trained network, as the lecture has it: little or much data, similar or different.

The table is that of the CS231n notes on transfer learning (Karpathy; https://cs231n.github.io/transfer-learning/).
Whether pictures are similar to what the network learnt is measured: they are, where the network's last features
tell the new classes apart at least as well as those of an earlier stage do. A network's early features are
general and its last ones made for its own classes (Yosinski et al. 2014, arXiv 1411.1792).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, MissingPackageError

MUCH = 500
"""Images of the smallest class from which on data are much: between the amounts that docs/transfer.md measures."""

FOLDS = 5
"""Parts of the cross-validation; fewer where the smallest class has fewer images."""

STRATEGIES: Mapping[str, str] = {
    "linear": "a linear classifier on the last features, the network frozen",
    "earlier": "a linear classifier on an earlier stage, the network frozen",
    "finetune-few": "the layers behind an earlier stage trained on, at a low rate, those before frozen",
    "finetune-more": "all layers trained on",
}

AUTO = "auto"


@dataclass(frozen=True)
class Evidence:
    """What is known of the new images.

    Attributes:
        per_class: images of the smallest class.
        last, earlier: images named correctly by their nearest class mean on features of the last layer and of the
            earlier stage, in per cent, each image held out once.
        n: images that were looked at.
    """

    per_class: int
    last: float
    earlier: float
    n: int

    @property
    def much(self) -> bool:
        return self.per_class >= MUCH

    @property
    def similar(self) -> bool:
        return self.last >= self.earlier


@dataclass(frozen=True)
class Decision:
    """A strategy, and why it was taken, in a sentence."""

    strategy: str
    reason: str


_TABLE = {
    (False, True): "linear",
    (False, False): "earlier",
    (True, True): "finetune-few",
    (True, False): "finetune-more",
}
"""By much and similar."""


def decide(evidence: Evidence) -> Decision:
    """The lecture's two by two."""
    amount = (
        f"much ({MUCH} or more images in the smallest class: {evidence.per_class})"
        if evidence.much
        else f"little (fewer than {MUCH} images in the smallest class: {evidence.per_class})"
    )
    likeness = (
        f"{'similar' if evidence.similar else 'different'} (the nearest class mean is right for {evidence.last:.1f} % "
        f"of {evidence.n} images on the last features, for {evidence.earlier:.1f} % on an earlier stage's)"
    )
    return Decision(_TABLE[evidence.much, evidence.similar], f"Data are {amount} and {likeness}")


def separation(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Images named correctly by the nearest class mean, in per cent, by stratified cross-validation.

    `rows` (N, D) are standardised by the training folds.

    Raises:
        InputError: a class has a single image.
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.neighbors import NearestCentroid
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "train", "Comparing a network's features") from error
    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        raise InputError(
            "A class has a single image: with less than two it cannot be measured whether the images are similar. "
            "Add pictures, or choose with --strategy."
        )
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), NearestCentroid())
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # A class's spread, which the nearest mean makes no use of: silent units have none, nor has a single image.
        warnings.filterwarnings("ignore", ".*zero standard deviation", UserWarning)
        found = cross_val_predict(model, rows, labels, cv=folds)
    return 100 * float((found == labels).mean())
