"""What a larger network says of the same views, for a small one to learn (Hinton et al. 2015, arXiv 1503.02531).

The teacher sees each image moved and mirrored as the pupil does, which a pupil gains from (Beyer et al. 2021,
arXiv 2106.05237), to the nearest `teacher_step` pixels, but never compressed, blurred or with noise: the pupil is to
say of a JPEG what the teacher says of the original. An image with a patch of another is never seen twice, so the
teacher is asked of it then and there; it has not learnt those by heart.

After `--resume` it is asked anew, in batches of other sizes, for which its kernels may add up in another order: answers
then differ by some 1e-6 of a logit, here and there by float16's last bit, and so does what the pupil becomes.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.pixels import Image, normalise
from train.augment import View
from train.card import card_if_any
from train.data import LabelledImages
from train.evaluate import check_labels
from train.recipe import Recipe
from train.speed import fast_form
from train.weights import load_network

MOST_VIEWS = 64
"""Of one image; each costs two bytes a class and image, and one run of the teacher."""


class Teacher:
    """A trained classifier whose logits are computed once for each view and kept, but for patched images.

    Raises:
        InputError: it cannot be read, it was trained for other classes or another size, or it would be asked of
            more views than can be kept.
    """

    def __init__(self, data: LabelledImages, recipe: Recipe) -> None:
        self._images, self._step = data.images, recipe.teacher_step
        self._most = _steps(np.array(recipe.shift_px), recipe.teacher_step)
        views = 2 * (2 * self._most + 1) ** 2
        if views > MOST_VIEWS:
            raise InputError(
                f"A teacher's answers are kept for at most {MOST_VIEWS} views of an image, shift_px="
                f"{recipe.shift_px} with teacher_step={recipe.teacher_step} makes {views}. Raise teacher_step."
            )
        if not Path(recipe.teacher).is_file():
            raise InputError(
                f"There is no teacher {recipe.teacher}, which {recipe.name} learns from. Name a trained classifier "
                "with teacher=FILE, or learn from the labels alone: teacher="
            )
        model = load_network(Path(recipe.teacher))
        _check(model, data, recipe)
        self._model = fast_form(model, recipe.teacher_precision)
        self._known = np.zeros((views, len(data)), np.bool_)
        self._logits = np.zeros((views, len(data), len(data.class_names)), np.float16)

    def logits(self, view: View) -> NDArray[np.float32]:
        """Float32 (N, classes) for the images of a batch, each shift taken to the nearest one that is asked of.

        Of images with a patch at the pupil's own shift.
        """
        patched = view.patched
        logits = np.empty((len(view.chosen), self._logits.shape[2]), np.float32)
        logits[~patched] = self._kept(view.chosen[~patched], view.mirror[~patched], view.shift[:, ~patched])
        if patched.any():
            logits[patched] = self._say(view.of(self._images)[patched])
        return logits

    def _kept(
        self, chosen: NDArray[np.int64], mirror: NDArray[np.bool_], shift: NDArray[np.int64]
    ) -> NDArray[np.float16]:
        steps = _steps(shift, self._step)
        kept = self._number(mirror, steps), chosen
        new = np.flatnonzero(~self._known[kept])
        if len(new):
            unseen = View(chosen[new], mirror[new], steps[:, new] * self._step)
            self._logits[kept[0][new], kept[1][new]] = self._say(unseen.of(self._images))
            self._known[kept[0][new], kept[1][new]] = True
        return self._logits[kept]

    def _say(self, images: Image) -> NDArray[np.float32]:
        said: NDArray[np.float32] = self._model.predict_on_batch(normalise(images))
        return said

    def _number(self, mirror: NDArray[np.bool_], steps: NDArray[np.int64]) -> NDArray[np.int64]:
        side = 2 * self._most + 1
        rows, columns = steps + self._most
        number: NDArray[np.int64] = (mirror * side + rows) * side + columns
        return number


def _steps(shift: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """The nearest whole number of steps; a half goes away from zero, so that both signs are treated alike."""
    nearest: NDArray[np.int64] = np.sign(shift) * ((2 * np.abs(shift) + step) // (2 * step))
    return nearest


def soft_targets(
    one_hot: NDArray[np.float32], logits: NDArray[np.float32], recipe: Recipe
) -> NDArray[np.float32]:
    """`teacher_share` of the teacher's probabilities at `temperature`, the rest of the label: (N, classes)."""
    said = softened(logits, recipe.temperature)
    mixed: NDArray[np.float32] = recipe.teacher_share * said + (1 - recipe.teacher_share) * one_hot
    return mixed


def softened(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """The probabilities of logits (N, classes) at a temperature, rows that add up to 1: likewise."""
    said: NDArray[np.float32] = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    said /= said.sum(axis=1, keepdims=True)
    return said


def _check(model: keras.Model, data: LabelledImages, recipe: Recipe) -> None:
    wanted = (None, recipe.height, recipe.width, 3), (None, len(data.class_names))
    found = tuple(model.input_shape), tuple(model.output_shape)
    if found != wanted:
        raise InputError(
            f"The teacher {recipe.teacher} takes {found[0]} to {found[1]}; the pupil takes {wanted[0]} to {wanted[1]}."
        )
    if card := card_if_any(Path(recipe.teacher)):
        check_labels(data, card.labels, recipe.teacher)
