"""Proving a classifier: top-1 on the test split."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from calibration.graph import LOGITS
from calibration.samples import Samples, labelled_samples
from edge.bundle import Artefact, Bundle, InputSpec, Metrics, OutputSpec
from edge.errors import InputError
from edge.pixels import Image
from export.golden import Tolerance, made_inputs
from export.parity import Logits, artefact_logits, compare
from export.proof import Advance, Judge, Share
from train.card import Card
from train.data import SPLITS, LabelledImages, Split, open_split, pick, tell_notes
from train.evaluate import keras_outputs, keras_top1

GOLDEN_INPUTS = 8

PARALLEL = min(4, os.cpu_count() or 1)
"""Artefacts that are proven side by side, each on one thread: one image at a time keeps few cores busy."""

JUDGED = 5_000
"""Training images on which repairs are judged: where int8 changes one label in twenty, its drop on 2,000 of them varies
by half a point. 1.6 s a simulation of a network of 118 M MACs for each thousand, on two cores."""


SHOWN = 256
"""Training images by which it is seen what pixels a model was trained on."""

OTHER_PIXELS = {"0 to 255": 128.0, "0 to 1": 128 / 255}
"""What models made elsewhere are often trained on: scale, and offset, from (x - 128) / 128 to there."""


@dataclass(frozen=True)
class Classification:
    """Labelled images: `samples` to calibrate on, `held_back` to judge repairs, `test` to prove the artefacts.

    Attributes:
        trained: a few training images, whatever is calibrated on.
    """

    input: InputSpec
    samples: Samples
    trained: LabelledImages
    test: LabelledImages
    held_back: LabelledImages | None
    tolerance: ClassVar[Tolerance] = Tolerance()

    @classmethod
    def load(cls, data: str, card: Card, share: Share) -> Classification:
        """Read what is asked for, and tell what is missing; raises InputError where the classes are not the model's."""
        size = (card.input.height, card.input.width, card.input.resize)
        train, test = (open_split(data, split, *size, share.skip_corrupt) for split in SPLITS)
        if test.class_names != card.labels:
            raise InputError(
                f"{data} has the classes {', '.join(test.class_names)}; the model's are "
                f"{', '.join(card.labels)}. Pass the data it was trained for."
            )
        for images in (train, test):
            tell_notes(images.source, images.notes)
        watched = labelled_samples(train, share.samples, share.sample)
        shown = train.take(pick(train, SHOWN), "")
        note = f", {share.limit} by class" if share.limit else ""
        proving = test.take(pick(test, share.limit or len(test)), note)
        return cls(card.input, watched, shown, proving, _others(train, watched))

    def __len__(self) -> int:
        return len(self.test)

    def outputs(self, model: Any) -> tuple[OutputSpec, ...]:
        """The one head, logits (1, classes)."""
        if len(model.outputs) != 1:
            raise InputError(f"Model '{model.name}' has {len(model.outputs)} outputs; a classifier has one.")
        classes, shape = len(self.test.class_names), tuple(model.outputs[0].shape)
        if shape[1:] != (classes,):
            raise InputError(
                f"Model '{model.name}' gives {shape}; expected (None, {classes}), a score for each of the classes "
                f"{', '.join(self.test.class_names[:10])}{', ...' if classes > 10 else ''}."
            )
        return (OutputSpec(name=LOGITS, shape=(1, classes), role="logits"),)

    def check_pixels(self, model: Any) -> None:
        """Raises InputError where the model knows its training images far better on other pixels than a bundle's."""
        import keras

        def right(scale: float) -> int:
            first = keras.layers.Rescaling(scale, offset=scale)
            return keras_top1(keras.Sequential([first, model]), self.trained).right

        known = keras_top1(model, self.trained).right
        best, pixels, scale = max((right(scale), pixels, scale) for pixels, scale in OTHER_PIXELS.items())
        if best - known > 2 * len(self.trained) ** 0.5:  # four times the error of a fair coin's count
            raise InputError(
                f"Of {len(self.trained)} training images the model names {best} on pixels of {pixels}, "
                f"and {known} on (x - 128) / 128, which is what it sees in a bundle. Put "
                f"keras.layers.Rescaling({scale:.6g}, offset={scale:.6g}) before its first layer."
            )

    def golden_inputs(self) -> Image:
        """Made pictures."""
        return made_inputs(self.input.height, self.input.width, GOLDEN_INPUTS)

    @property
    def can_judge(self) -> bool:
        """Whether training images are left that were not calibrated on."""
        return self.held_back is not None

    def judge(self, model: Any) -> Judge | None:
        """By top-1."""
        if self.held_back is None:
            return None
        images, right = self.held_back, keras_top1(model, self.held_back).right

        def drop(simulation: Any) -> float:
            return 100 * (right - keras_top1(simulation, images).right) / len(images)

        return Judge(len(images), drop)

    def measure(self, model: Any, bundle: Bundle, advance: Advance) -> tuple[Metrics, ...]:
        """Top-1 of each artefact against the Keras model's."""
        images, labels = self.test.images, self.test.labels
        reference = keras_outputs(model, images, advance)

        def logits(artefact: Artefact) -> Logits:
            return artefact_logits(bundle, artefact, images, threads=1, progress=advance)

        with ThreadPoolExecutor(PARALLEL) as pool:
            found = list(pool.map(logits, bundle.manifest.artefacts))
        return tuple(compare(reference, logits, labels) for logits in found)


def _others(train: Split, watched: Samples) -> LabelledImages | None:
    """Training images by class that were not watched."""
    rest = np.setdiff1d(np.arange(len(train)), np.array(watched.ids, np.int64))
    if not len(rest):
        return None
    chosen = pick(replace(train, labels=train.labels[rest]), JUDGED)
    return train.take(rest[chosen], ", not watched")
