"""Training a classifier: labelled images to logits, cross-entropy, top-1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.pixels import Image, normalise
from train import augment
from train.architecture import architecture
from train.card import data_card
from train.choices import OWN
from train.choices.initialise import initialise
from train.choices.inputs import input_layer
from train.choices.optimise import optimiser, regularised
from train.choices.structure import Structure, rebuilt
from train.data import SPLITS, LabelledImages, check_classes, load, pick
from train.distil import Teacher, soft_targets
from train.evaluate import keras_top1
from train.fit import About, Metrics
from train.recipe import Recipe
from train.speed import fast_form
from train.whiten import whiten

INITIAL_IMAGES = 128
"""So many training images show a data-dependent initialiser what its layers compute."""


ASKED = ("teacher", "shift_px", "teacher_step", "teacher_precision")
"""What decides which views a teacher is asked of, and what it says."""


class ClassifierLesson:
    """A `train.fit.Lesson`: `recipe` on `data`, validated on `held_out` where there is any."""

    def __init__(
        self,
        recipe: Recipe,
        data: LabelledImages,
        held_out: LabelledImages | None,
        test: LabelledImages | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe, self._data, self._held_out, self._test = recipe, data, held_out, test
        self.about = About(
            task="classification", labels=data.class_names, data=data_card(data), notes=data.notes
        )
        self._teacher = teacher or (Teacher(data, recipe) if recipe.teacher else None)
        self.steps = augment.steps_per_epoch(data, recipe)

    @property
    def judged(self) -> LabelledImages | None:
        """The images that a report shows the network's mistakes on: those held out, else the test split."""
        return self._test if self._held_out is None else self._held_out

    @classmethod
    def of(cls, recipe: Recipe, source: str, out: Path) -> ClassifierLesson:
        """Read the data; raises InputError where it is wrong."""
        size = (recipe.height, recipe.width, recipe.resize)
        images, test = (load(source, split, *size, skip_corrupt=recipe.skip_corrupt) for split in SPLITS)
        check_classes(images)
        return cls(recipe, *training_split(images, recipe), test)

    def again(self, recipe: Recipe) -> ClassifierLesson:
        """The same images under another recipe; where it holds out some and this one none, they are now held out.

        What a teacher has said of them is kept, where both recipes draw the same views.
        """
        if self._held_out is None and recipe.hold_out:
            return ClassifierLesson(recipe, *training_split(self._data, recipe), self._test)
        same = all(getattr(recipe, name) == getattr(self.recipe, name) for name in ASKED)
        teacher = self._teacher if same else None
        return ClassifierLesson(recipe, self._data, self._held_out, self._test, teacher)

    def compiled(self) -> keras.Model:
        """The network with its optimiser and cross-entropy."""
        recipe, images = self.recipe, self._data.images
        model = build(recipe, len(self._data.class_names), images)
        if recipe.initialiser != OWN:
            few = self._data.images[pick(self._data, INITIAL_IMAGES, recipe.seed)]
            initialise(model, recipe.initialiser, normalise(few))
        if recipe.whiten:
            whiten(model, images)
        model = fast_form(model, recipe.precision)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
        # XLA halves the speed of these networks on a CPU: 2,700 against 5,700 images/s for ConvNetJS.
        model.compile(
            optimiser(recipe, self.steps),
            loss,
            metrics=["accuracy"],
            jit_compile=keras.backend.backend() == "jax",
        )
        return model

    def batches(self, epoch: int, done: int) -> Iterator[tuple[NDArray[np.float32], Any]]:
        """Normalised images and one-hot labels, or what a teacher says mixed in; see `train.augment`."""
        for view, images in islice(augment.viewed(self._data, self.recipe, epoch), done, None):
            labels = self._data.labels[view.chosen]
            targets = view.targets(keras.utils.to_categorical(labels, len(self._data.class_names)))
            if self._teacher is not None:
                targets = soft_targets(targets, self._teacher.logits(view), self.recipe)
            yield self._inputs(view, images), targets

    def _inputs(self, view: augment.View, images: Image) -> NDArray[np.float32]:
        """What the network is given of a batch's images, uint8 (N, H, W, 3)."""
        return normalise(images)

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
        plain = replace(self.recipe, dropout=0.0, l2=0.0, weights="")
        copy = build(plain, len(self._data.class_names), self._data.images)
        copy.set_weights(model.get_weights())
        return copy


def training_split(images: LabelledImages, recipe: Recipe) -> tuple[LabelledImages, LabelledImages | None]:
    """The images to train on, and those held out for validation (None where the recipe holds none).

    Of each class as large a part is held out; raises InputError where that leaves nothing of one.
    """
    if recipe.hold_out == 0:
        return images, None
    if recipe.hold_out >= len(images):
        raise InputError(f"hold_out={recipe.hold_out} leaves nothing of {len(images)} images to train on.")
    aside = pick(images, recipe.hold_out, in_proportion=True)
    rest = images.take(np.setdiff1d(np.arange(len(images)), aside), f" without {recipe.hold_out}")
    check_classes(rest, "Lower hold_out, or add pictures")
    return rest, images.take(aside, " held out")


def build(recipe: Recipe, classes: int, images: Image) -> keras.Model:
    """The recipe's architecture with its choices, see `train.choices.structure`, and fresh weights.

    `images`, uint8 (N, H, W, 3), are those that `recipe.preprocess` is computed from.

    Raises:
        InputError: there is no such architecture, or it does not suit the input's size or the choices.
    """
    model = architecture(recipe.model, recipe.height, recipe.width, classes, weights=recipe.weights)
    structure = Structure(recipe.activation, recipe.norm, recipe.dropout, regularised(recipe))
    model = rebuilt(model, structure, input_layer(recipe.preprocess, images))
    if tuple(model.output_shape) != (None, classes):
        raise InputError(f"{recipe.model} gives {model.output_shape}, expected logits (None, {classes}).")
    return model
