"""Training a detector: pictures with boxes to heads, SimOTA and its losses, AP50."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.pixels import Image, normalise
from train.architecture import architecture
from train.card import DataCard
from train.data import load
from train.detection.augment import Picture, Targets, crop, listed
from train.detection.average_precision import average_precision, bootstrap
from train.detection.background import TILE_PX, background_crop
from train.detection.data import SPLITS, BoxedImages, load_boxed, pictures
from train.detection.evaluate import keras_detections, matches
from train.detection.loss import FACE, IGNORED, DetectionLoss, joined_heads
from train.detection.pictures import draw_samples
from train.detection.recipe import DetectorRecipe
from train.detection.style import with_one_style
from train.detection.unlabelled import read_places, with_ignored
from train.fit import About, Metrics, cosine
from train.memory import available_bytes
from train.optimiser import KernelAdamW
from train.speed import fast_form
from train.weights import load_keras

MEMORY_BYTES = 6 << 30
"""Decoded pictures are kept up to so many bytes, or half of what is free where that is less; the others are read
again each epoch."""

LONGEST_SIDE = 640
"""Larger pictures are shrunk when they are read: they would only be shrunk in each crop."""

CLIP_NORM = 10.0


class DetectorLesson:
    """A `train.fit.Lesson`: `recipe` on the train split of `folder`, validated on its val split."""

    @classmethod
    def of(cls, recipe: DetectorRecipe, source: str, out: Path) -> DetectorLesson:
        """Read the annotations; sample detections are drawn into `out`.

        Raises:
            InputError: they or a picture of the val or test split are wrong, a training must not end at one; or a
                split has no face.
        """
        lesson = cls(recipe, source, out / f"{recipe.name}.samples.jpg")
        for split in (lesson._data, lesson._val, lesson._test):
            if not split.faces:
                what = "nothing could be learnt from it" if split is lesson._data else "it has no AP50"
                raise InputError(f"{split.source} has no face that counts: {what}.")
        for split in (lesson._val, lesson._test):
            for _ in pictures(split.images):
                pass
        return lesson

    def __init__(self, recipe: DetectorRecipe, folder: str, samples: Path | None = None) -> None:
        self.recipe, self._samples = recipe, samples
        self._data, self._val, self._test = (load_boxed(folder, split) for split in SPLITS)
        if recipe.one_style:
            self._data = with_one_style(self._data)
        if recipe.ignored_from:
            self._data = with_ignored(self._data, read_places(Path(recipe.ignored_from)))
        self._pictures = _Pictures(self._data)
        self._background, notes = _background(recipe)
        self.steps = max(1, len(self._data) // recipe.batch_size)
        self.about = About(
            task="faces",
            labels=("face",),
            data=DataCard(source=self._data.source, n=len(self._data), sha256=self._data.sha256()),
            notes=(*self._data.notes, *notes),
        )

    def again(self, recipe: DetectorRecipe) -> DetectorLesson:
        """The same pictures under another recipe that reads them alike; it draws no samples."""
        other = copy(self)
        other.recipe, other._samples = recipe, None
        other.steps = max(1, len(self._data) // recipe.batch_size)
        return other

    def compiled(self) -> keras.Model:
        """The heads joined to one output, with AdamW and the detection loss."""
        recipe = self.recipe
        heads = fast_form(architecture(recipe.model, None, None), recipe.precision)
        if recipe.grown_from:
            grow(heads, load_keras(Path(recipe.grown_from)))
        model = keras.Model(heads.input, joined_heads(heads.outputs), name=heads.name)
        optimiser = KernelAdamW(
            cosine(recipe, self.steps), weight_decay=recipe.weight_decay, global_clipnorm=CLIP_NORM
        )
        model.compile(optimiser, DetectionLoss(), jit_compile=keras.backend.backend() == "jax")
        return model

    def batches(self, epoch: int, done: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Crops float32 (N, size, size, 3) and targets (faces, 6)."""
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self._data))
        for step in range(done, self.steps):
            yield self._batch(order, epoch, step)

    def _batch(
        self, order: NDArray[np.int64], epoch: int, step: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, epoch, step))
        size, count = _form(recipe, step)
        crops: list[tuple[Image, Targets]] = []
        for index in order[step * recipe.batch_size :][:count]:
            if self._background is not None and rng.random() < recipe.background:
                crops.append(background_crop(self._background, self._pictures[index], size, recipe, rng))
                continue
            more = rng.integers(len(order), size=3) if rng.random() < recipe.mosaic else ()
            crops.append(crop([self._pictures[i] for i in (index, *more)], size, recipe, rng))
        images = normalise(np.stack([pixels for pixels, _ in crops]))
        return images, listed([targets for _, targets in crops])

    def validate(self, model: keras.Model, epoch: int) -> Metrics:
        """`validation_ap50`, 0 to 1, every `validate_every` epochs and at the end; draws samples as well."""
        if epoch % self.recipe.validate_every and epoch != self.recipe.epochs:
            return {}
        found = keras_detections(self.bare(model), self._val, self.recipe.input)
        if self._samples is not None:
            draw_samples(self._samples, self._val, found)
        return {"validation_ap50": average_precision(matches(self._val, found))}

    def test(self, model: keras.Model) -> Metrics:
        """`test_ap50`, 0 to 1, with `test_n` pictures, `test_faces` and its 95 % bootstrap interval."""
        matched = matches(self._test, keras_detections(model, self._test, self.recipe.input))
        low, high = bootstrap(matched)
        return {
            "test_ap50": average_precision(matched),
            "test_n": len(self._test),
            "test_faces": self._test.faces,
            "test_ci95_low": low,
            "test_ci95_high": high,
        }

    def bare(self, model: keras.Model) -> keras.Model:
        """The six heads at the card's input size, without optimiser and loss."""
        heads = architecture(self.recipe.model, self.recipe.height, self.recipe.width)
        heads.set_weights(model.get_weights())
        return heads


def _background(recipe: DetectorRecipe) -> tuple[Image | None, tuple[str, ...]]:
    """The pictures without faces, uint8 (N, TILE_PX, TILE_PX, 3), and a note; None and no note where it names none."""
    if not recipe.background_from:
        return None, ()
    found = load(recipe.background_from, "train", TILE_PX, TILE_PX)
    note = f"{len(found)} pictures without faces ({found.source}), for {100 * recipe.background:.0f} % of the crops"
    return found.images, (note, *found.notes)


def _form(recipe: DetectorRecipe, step: int) -> tuple[int, int]:
    """The size of a batch's crops, and how many: as many pixels in every batch."""
    if not recipe.large_every or (step + 1) % recipe.large_every:
        return recipe.size, recipe.batch_size
    return recipe.large, max(1, round(recipe.batch_size * (recipe.size / recipe.large) ** 2))


def grow(model: keras.Model, smaller: keras.Model) -> None:
    """Start the layers that `smaller` has as well with its weights; they may be wider.

    A wider network answers as the smaller one at first (Chen et al. 2016, Net2Net, arXiv 1511.05641, but with
    new channels that begin at random in place of copies): what a layer gives in its old channels hears
    nothing of the new ones until it learns to. That holds where channels keep their places, so without
    concatenations.

    Raises:
        InputError: the two share no layer, or one of `smaller` does not fit into that of its name.
    """
    known = {layer.name: layer for layer in smaller.layers if layer.weights}
    shared = [layer for layer in model.layers if layer.name in known]
    if not shared:
        raise InputError(f"grown_from: {smaller.name} and {model.name} have no layer of the same name.")
    for layer in shared:
        old, new = known[layer.name].get_weights(), layer.get_weights()
        if len(old) != len(new) or not all(map(_fits, old, new)):
            raise InputError(
                f"grown_from: layer '{layer.name}' of {smaller.name}, with weights of {_shapes(old)}, does not fit "
                f"into that of {model.name}, with {_shapes(new)}."
            )
        layer.set_weights([_widened(*pair) for pair in zip(old, new, strict=True)])


def _fits(old: NDArray[np.float32], new: NDArray[np.float32]) -> bool:
    """Whether `new` is a kernel (..., in, out) of the same size, or a vector, with as many channels or more."""
    return (
        old.ndim == new.ndim
        and old.shape[:-2] == new.shape[:-2]
        and all(few <= many for few, many in zip(old.shape, new.shape, strict=True))
    )


def _widened(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """`new` with `old` in its first channels, deaf to its further inputs there."""
    wider = new.copy()
    if old.ndim > 1:
        wider[..., : old.shape[-1]] = 0
    wider[tuple(slice(size) for size in old.shape)] = old
    return wider


def _shapes(weights: list[NDArray[np.float32]]) -> str:
    return ", ".join("x".join(map(str, weight.shape)) for weight in weights)


class _Pictures:
    """The decoded pictures of a split, kept while they fit."""

    def __init__(self, data: BoxedImages) -> None:
        self._data, self._bytes = data, 0
        free = available_bytes()
        self._most = MEMORY_BYTES if free is None else min(MEMORY_BYTES, free // 2)
        self._kept: dict[int, Picture] = {}

    def __getitem__(self, index: int) -> Picture:
        if index in self._kept:
            return self._kept[index]
        picture = self._read(index)
        if self._bytes + picture.pixels.nbytes <= self._most:
            self._kept[index] = picture
            self._bytes += picture.pixels.nbytes
        return picture

    def _read(self, index: int) -> Picture:
        image = self._data.images[index]
        pixels = image.read()
        scale = min(1.0, LONGEST_SIDE / max(pixels.shape[:2]))
        if scale < 1:
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        kind = np.where(image.ignored, IGNORED, FACE)
        return Picture(pixels, np.column_stack([image.boxes * scale, kind]).astype(np.float32))
