"""Five kinds of classifier on the same images: what a network's features are worth, against raw pixels.

Each kind answers another question about a picture: which examples it is like (exemplar), which class's mean
(prototype), on which side of planes it lies (linear) or of curved borders (non-linear), which class would
most likely have made it (generative). Their knobs are set on a fifth of the training images; the chosen one
learns from all of them and sees the test split once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, MissingPackageError
from edge.pixels import normalise
from train.data import LabelledImages, pick
from train.describe import nodes
from train.evaluate import Top1, keras_outputs

if TYPE_CHECKING:
    import keras

Rows = NDArray[np.float32]
"""One image a row: (N, D)."""

HELD_OUT = 5
"""One image of so many decides about the knobs."""
LEAST_PER_CLASS = 10
"""Training images; with fewer, the images held out would decide by chance."""
CURVED_DIMENSIONS, GAUSSIAN_DIMENSIONS = 256, 32
"""Principal components that the kinds with cost or weights beyond linear see of a longer row."""

FLAT = 1e-6
"""Less of the first direction's variance is rounding: float32 has seven digits."""


@dataclass(frozen=True)
class Size:
    """Of what is learnt from: `rows` in all, the `smallest` class's, and `dimensions` of each."""

    rows: int
    smallest: int
    dimensions: int


@dataclass(frozen=True)
class Kind:
    """A kind of classifier.

    Attributes:
        words: what it is; knob: what is chosen, and among which values; empty where there is none.
        make: from a value of the knob, and what is to be learnt from, to an unfitted scikit-learn model.
    """

    words: str
    knob: str
    values: tuple[float, ...]
    make: Callable[[float, Size], Any]


def _exemplar(neighbours: float, _: Size) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(int(neighbours))


def _prototype(_: float, __: Size) -> Any:
    from sklearn.neighbors import NearestCentroid

    return NearestCentroid()


def _linear(strength: float, _: Size) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=300)


def _non_linear(strength: float, size: Size) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    components = min(CURVED_DIMENSIONS, size.rows, size.dimensions)
    return make_pipeline(PCA(components, random_state=0), SVC(C=strength))


def _whitened(components: int) -> Any:
    from sklearn.decomposition import PCA

    class Whitened(PCA):  # type: ignore[misc]  # Scikit-learn has no types.
        """Without the directions in which the rows do not differ: whitened, their rounding errors would count."""

        def fit(self, rows: Rows, labels: Any = None) -> Any:
            super().fit(rows)
            variances = self.explained_variance_
            kept = max(1, int((variances > FLAT * variances[0]).sum()))
            self.components_, self.explained_variance_ = self.components_[:kept], variances[:kept]
            return self

        def fit_transform(self, rows: Rows, labels: Any = None) -> Any:
            return self.fit(rows).transform(rows)

    return Whitened(components, whiten=True, random_state=0)


def _generative(shrinkage: float, size: Size) -> Any:
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    # n images span n - 1 directions around their mean: with more, a class's Gaussian would be flat in some.
    components = min(GAUSSIAN_DIMENSIONS, size.smallest - 1, size.dimensions)
    # Whitened, the identity that a class's covariance is drawn to is the covariance of all images.
    return make_pipeline(_whitened(components), QuadraticDiscriminantAnalysis(reg_param=shrinkage))


KINDS: Mapping[str, Kind] = {
    "exemplar": Kind("k nearest neighbours", "k", (1, 3, 5, 9, 17), _exemplar),
    "prototype": Kind("nearest centroid", "", (0,), _prototype),
    "linear": Kind("logistic regression", "C", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1), _linear),
    "non-linear": Kind("SVM, RBF kernel", "C", (0.3, 1, 3, 10), _non_linear),
    "generative": Kind("a Gaussian a class", "shrinkage", (0.01, 0.1, 0.3, 0.6), _generative),
}


@dataclass(frozen=True)
class Result:
    """What one kind achieved.

    Attributes:
        kind: its name; chosen: knob and value, "" where there is none.
        edge: whether the best value was the first or last that was tried, and a better may lie beyond.
        top1: on the test split; fit_s: seconds of the last fit, on all training images, choosing apart.
        predict_s: seconds for the whole test split.
    """

    kind: str
    chosen: str
    edge: bool
    top1: Top1
    fit_s: float
    predict_s: float

    def as_json(self) -> dict[str, Any]:
        """All fields, the accuracy as `evaluate --json` writes it."""
        fields = asdict(self)
        del fields["top1"]
        return fields | self.top1.as_json()


def compare(
    name: str,
    train: tuple[Rows, NDArray[np.int64]],
    test: tuple[Rows, NDArray[np.int64]],
    chosen_on: NDArray[np.int64],
) -> Result:
    """The kind `name`, its knob chosen on the training rows at `chosen_on`, fitted on all and tested once.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    kind, (rows, labels) = KINDS[name], train
    aside = np.zeros(len(rows), np.bool_)
    aside[chosen_on] = True
    tries = (rows[~aside], labels[~aside]), (rows[aside], labels[aside])
    values = kind.values
    best = int(np.argmax([_right(kind, value, *tries) for value in values])) if len(values) > 1 else 0
    begun = time.monotonic()
    model = _fitted(kind, values[best], rows, labels)
    fitted = time.monotonic()
    right = int((model.predict(test[0]) == test[1]).sum())
    seconds = fitted - begun, time.monotonic() - fitted
    chosen = f"{kind.knob} = {values[best]:g}" if kind.knob else ""
    first = 0 if kind.knob != "k" else None  # fewer neighbours than one are none
    at_edge = len(values) > 1 and best in (first, len(values) - 1)
    return Result(name, chosen, at_edge, Top1(right, len(test[1])), *seconds)


def _right(
    kind: Kind, value: float, train: tuple[Rows, NDArray[np.int64]], test: tuple[Rows, NDArray[np.int64]]
) -> int:
    return int((_fitted(kind, value, *train).predict(test[0]) == test[1]).sum())


def _fitted(kind: Kind, value: float, rows: Rows, labels: NDArray[np.int64]) -> Any:
    """A fitted model behind the standardisation that all kinds share."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingPackageError("scikit-learn", "train", "The five kinds of classifier") from error
    size = Size(len(rows), int(np.bincount(labels).min()), rows.shape[1])
    model = make_pipeline(StandardScaler(), kind.make(value, size))
    with warnings.catch_warnings():
        # Stopped early it is a little more regularised, which its knob is there to choose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A pixel at the edge of all pictures is often the same: no fault of the data.
        warnings.filterwarnings("ignore", ".*zero standard deviation", UserWarning)
        return model.fit(rows, labels)


def held_out(data: LabelledImages) -> NDArray[np.int64]:
    """The images that decide about the knobs: a fifth, spread over the classes.

    Raises:
        InputError: a class has fewer than ten images.
    """
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    if counts.min() < LEAST_PER_CLASS:
        least = int(counts.argmin())
        raise InputError(
            f"{data.source} has {counts[least]} images of {data.class_names[least]}, and at least "
            f"{LEAST_PER_CLASS} of each class are needed to choose k or C. Raise --limit, or add pictures."
        )
    return pick(data, len(data) // HELD_OUT, in_proportion=True)


def pixel_rows(data: LabelledImages) -> Rows:
    """Every image as a row of (x - 128) / 128: float32 (N, H * W * 3)."""
    return normalise(data.images).reshape(len(data), -1)


def feature_rows(network: keras.Model, data: LabelledImages) -> Rows:
    """What the network's last layer sees of every image: float32 (N, D)."""
    return keras_outputs(network, data.images).reshape(len(data), -1)


def without_last_layer(model: keras.Model) -> keras.Model:
    """The network up to the input of its last layer with weights; a model inside it is one layer.

    Raises:
        InputError: it has no such layer, or one with several inputs.
    """
    import keras

    for call in reversed(list(nodes(model))):
        if not getattr(call.operation, "weights", ()):  # a bare operation has none at all
            continue
        if len(call.input_tensors) != 1:
            break
        return keras.Model(model.inputs[0], call.input_tensors[0])
    raise InputError(
        f"Model '{model.name}' has no last layer with weights and a single input to look before."
    )
