"""What a network learns further: a new last layer, and as much of the rest as the strategy says.

What lies before the cut stays as it is, bit for bit, and is only ever run for inference, so that its batch
normalisation keeps the statistics it was trained with; what lies behind is trained by the loop of every training, on
what the first part gives. Where the pictures are shown unchanged, the first part sees each of them once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import keras
import numpy as np
from numpy.typing import NDArray

from edge.pixels import Image, normalise
from train.augment import View
from train.card import Origin
from train.choices.optimise import optimiser, regularised
from train.classifier import ClassifierLesson
from train.data import LabelledImages, few
from train.evaluate import BATCH, Top1, keras_outputs
from train.fit import Metrics
from train.memory import available_bytes
from train.transfer.recipe import UNMOVED, TransferRecipe
from train.transfer.source import HEAD, LOOKED_AT, Parts, copied, trainable_copy

CACHE_SHARE = 4
"""The frozen part's outputs are kept where they take less than this part of the memory that is free."""

CONSTANT = 1e-5
"""Of the largest standard deviation: a feature whose own is below that is constant."""

Rows = NDArray[np.float32]


class TransferLesson(ClassifierLesson):
    """A `train.fit.Lesson` for the part of a network that is trained on.

    Its inputs are what the frozen part makes of the pictures. Before a linear classifier they are
    standardised, so that its decay treats all alike; the finished layer has that folded in.
    """

    recipe: TransferRecipe

    def __init__(
        self,
        recipe: TransferRecipe,
        parts: Parts,
        data: LabelledImages,
        held_out: LabelledImages | None,
        test: LabelledImages | None = None,
        origin: Origin | None = None,
    ) -> None:
        super().__init__(recipe, data, held_out, test)
        self.about = replace(self.about, origin=origin)
        self._parts = parts

    def compiled(self) -> keras.Model:
        """The part to train, as it was or with fresh weights in the last layer, with optimiser and loss."""
        model = trainable_copy(self._parts.trained, regularised(self.recipe))
        head = model.get_layer(HEAD)
        head.set_weights([head.kernel_initializer(head.kernel.shape), np.zeros(head.bias.shape)])
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=self.recipe.label_smoothing
        )
        jit = keras.backend.backend() == "jax"
        model.compile(optimiser(self.recipe, self.steps), loss, metrics=["accuracy"], jit_compile=jit)
        return model

    def validate(self, model: keras.Model, epoch: int) -> Metrics:
        """`validation_top1` in per cent, where images were held out."""
        if self._held_out is None or self._parts.frozen is None:
            return super().validate(model, epoch)
        rows, labels = self._held_out_rows, self._held_out.labels
        parts = [model.predict_on_batch(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
        right = int((np.concatenate(parts).argmax(axis=1) == labels).sum())
        return {"validation_top1": Top1(right, len(labels)).per_cent}

    @cached_property
    def _held_out_rows(self) -> Rows:
        assert self._held_out is not None
        return self._standardised(keras_outputs(self._parts.frozen, self._held_out.images))

    def bare(self, model: keras.Model) -> keras.Model:
        """The whole network with what was trained."""
        whole = copied(self._parts.whole)
        for layer in model.layers:
            if layer.weights:
                whole.get_layer(layer.name).set_weights(layer.get_weights())
        if self._standard is not None:
            mean, deviation = self._standard
            kernel, bias = whole.get_layer(HEAD).get_weights()
            kernel = kernel / deviation[:, None]
            whole.get_layer(HEAD).set_weights([kernel, bias - mean @ kernel])
        return whole

    def _inputs(self, view: View, images: Image) -> Rows:
        frozen = self._parts.frozen
        if frozen is None:
            return normalise(images)
        if self._kept is not None:
            return self._kept[view.chosen]
        return self._standardised(frozen.predict_on_batch(normalise(images)))

    @cached_property
    def _kept(self) -> Rows | None:
        """What the frozen part makes of every picture as it is; None where it sees them moved, or it is too much."""
        frozen, recipe = self._parts.frozen, self.recipe
        size = 4 * len(self._data) * math.prod(frozen.output_shape[1:]) if frozen is not None else 0
        moved = any(getattr(recipe, name) for name in UNMOVED)
        free = available_bytes()
        if frozen is None or moved or (free is not None and size > free // CACHE_SHARE):
            return None
        return self._standardised(keras_outputs(frozen, self._data.images))

    @cached_property
    def _standard(self) -> tuple[Rows, Rows] | None:
        """Mean and standard deviation of the features before a linear classifier, (D,) each."""
        frozen = self._parts.frozen
        if frozen is None or len(frozen.output_shape) != 2:
            return None
        rows = keras_outputs(frozen, few(self._data, LOOKED_AT).images)
        deviation = rows.std(axis=0)
        # A feature that never changes but for rounding stays as it is.
        changes = deviation > CONSTANT * deviation.max()
        return rows.mean(axis=0), np.where(changes, deviation, 1).astype(np.float32)

    def _standardised(self, rows: Rows) -> Rows:
        if self._standard is None:
            return rows
        mean, deviation = self._standard
        return (rows - mean) / deviation
