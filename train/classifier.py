"""Training a classifier: labelled images to logits, cross-entropy, top-1."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from train import augment
from train.architecture import architecture
from train.card import data_card
from train.data import SPLITS, LabelledImages, load, pick
from train.evaluate import keras_top1
from train.fit import About, Metrics, cosine
from train.recipe import Recipe


class ClassifierLesson:
    """A `train.fit.Lesson`: `recipe` on `data`, validated on `held_out` where there is any."""

    def __init__(
        self,
        recipe: Recipe,
        data: LabelledImages,
        held_out: LabelledImages | None,
        test: LabelledImages | None = None,
    ) -> None:
        self.recipe, self._data, self._held_out, self._test = recipe, data, held_out, test
        self.about = About(task="classification", labels=data.class_names, data=data_card(data))
        self.steps = augment.steps_per_epoch(data, recipe)

    @classmethod
    def of(cls, recipe: Recipe, source: str, out: Path) -> ClassifierLesson:
        """Read the data; raises InputError where it is wrong."""
        images, test = (load(source, split, recipe.height, recipe.width, recipe.resize) for split in SPLITS)
        return cls(recipe, *training_split(images, recipe), test)

    def compiled(self) -> keras.Model:
        """The network with SGD and cross-entropy."""
        recipe, model = self.recipe, build(self.recipe, len(self._data.class_names))
        optimiser = keras.optimizers.SGD(
            cosine(recipe, self.steps),
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay or None,
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
        # XLA halves the speed of these networks on a CPU: 2,700 against 5,700 images/s for ConvNetJS.
        model.compile(optimiser, loss, metrics=["accuracy"], jit_compile=keras.backend.backend() == "jax")
        return model

    def batches(self, epoch: int, done: int) -> Iterator[tuple[NDArray[np.float32], Any]]:
        """Normalised images and one-hot labels, see `train.augment.batches`."""
        for images, labels in islice(augment.batches(self._data, self.recipe, epoch), done, None):
            yield images, keras.utils.to_categorical(labels, len(self._data.class_names))

    def validate(self, model: keras.Model, epoch: int) -> Metrics:
        """`validation_top1` in per cent, where images were held out."""
        if self._held_out is None:
            return {}
        return {"validation_top1": keras_top1(model, self._held_out).per_cent}

    def test(self, model: keras.Model) -> Metrics:
        """`test_top1` in per cent with `test_n` images and its 95 % interval."""
        if self._test is None:
            return {}
        top1 = keras_top1(model, self._test)
        low, high = top1.ci95
        return {"test_top1": top1.per_cent, "test_n": top1.n, "test_ci95_low": low, "test_ci95_high": high}

    def bare(self, model: keras.Model) -> keras.Model:
        """The same network without optimiser and loss."""
        copy = build(self.recipe, len(self._data.class_names))
        copy.set_weights(model.get_weights())
        return copy


def training_split(images: LabelledImages, recipe: Recipe) -> tuple[LabelledImages, LabelledImages | None]:
    """The images to train on, and those held out for validation (None where the recipe holds none)."""
    if recipe.hold_out == 0:
        return images, None
    if recipe.hold_out >= len(images):
        raise InputError(f"hold_out={recipe.hold_out} leaves nothing of {len(images)} images to train on.")
    aside = pick(images, recipe.hold_out)
    rest = np.setdiff1d(np.arange(len(images)), aside)
    return images.take(rest, f" without {recipe.hold_out}"), images.take(aside, " held out")


def build(recipe: Recipe, classes: int) -> keras.Model:
    """The recipe's architecture with fresh weights.

    Raises:
        InputError: there is no such architecture, or it does not suit the input's size.
    """
    model = architecture(recipe.model, recipe.height, recipe.width, classes)
    if tuple(model.output_shape) != (None, classes):
        raise InputError(f"{recipe.model} gives {model.output_shape}, expected logits (None, {classes}).")
    return model
