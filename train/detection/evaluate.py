"""What a detector sees in a set of pictures: a Keras model, or a bundle as a device runs it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from edge.bundle import InputSpec, Manifest, OutputSpec
from edge.errors import InputError
from edge.pixels import Image, fit, normalise
from edge.results import Faces
from edge.tasks.faces import FacesTask
from train.data import read_image as read_picture
from train.detection.average_precision import Matched, Sizes, match
from train.detection.data import BoxedImages, pictures

if TYPE_CHECKING:
    import keras

    from edge.model import Model

__all__ = ["SCORE_FLOOR", "bundle_detections", "keras_detections", "matches", "read_picture", "resized"]

SCORE_FLOOR = 0.02
"""Detections below do not enter a precision-recall curve. A higher floor cuts its tail: 0.3 cost YuNet_s
1.8 points of WIDER's hard AP."""

Advance = Callable[[int], object]
"""Told after each part how many images were done, for a progress bar."""


def keras_detections(
    model: keras.Model,
    images: BoxedImages,
    spec: InputSpec,
    score_threshold: float = SCORE_FLOOR,
    advance: Advance | None = None,
    batch_size: int = 16,
) -> list[Faces]:
    """The faces that a Keras detector sees, on any backend of Keras.

    Args:
        model: float32 (N, H, W, 3) in [-1, 127/128] to the heads `score_<stride>` and `box_<stride>`.
        images: whose pictures are read and brought to the input by `edge.pixels.fit`.
        spec: the input's size and resize rule.

    Raises:
        InputError: the model has other heads. SourceError: a picture cannot be decoded.
    """
    import keras

    task, found = _task(model, spec, score_threshold), []
    for part in _parts(pictures(images.images), batch_size):
        pixels = np.stack([fit(picture, spec.height, spec.width, spec.resize) for picture in part])
        outputs = model(normalise(pixels), training=False)
        if not isinstance(outputs, dict):
            outputs = dict(zip(_names(model), outputs, strict=True))
        heads = {name: keras.ops.convert_to_numpy(output) for name, output in outputs.items()}
        for index, picture in enumerate(part):
            found.append(
                task.decode({name: head[index : index + 1] for name, head in heads.items()}, picture)
            )
        if advance:
            advance(len(part))
    return found


def bundle_detections(
    model: Model,
    images: BoxedImages,
    score_threshold: float = SCORE_FLOOR,
    advance: Advance | None = None,
) -> list[Faces]:
    """The faces that an opened bundle sees, picture by picture as on a device."""
    task, found = FacesTask(model.manifest, score_threshold), []
    for picture in pictures(images.images):
        found.append(task.decode(model.infer(model.prepare(picture)), picture))
        if advance:
            advance(1)
    return found


def matches(
    images: BoxedImages,
    found: Sequence[Faces],
    iou_threshold: float = 0.5,
    sizes: Sequence[Sizes | None] | None = None,
) -> list[Matched]:
    """Each picture's detections held against its faces; `sizes`, one a picture, narrow what counts."""
    wanted = sizes or [None] * len(images)
    return [
        match(image, faces, iou_threshold, size)
        for image, faces, size in zip(images.images, found, wanted, strict=True)
    ]


def size_of(text: str) -> tuple[int, int]:
    """Width and height in pixels, of `320x192` or `320`; raises InputError."""
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text, re.ASCII)
    if found is None:
        raise InputError(f"--size is WIDTHxHEIGHT in pixels, as 320x192, or one number; got '{text}'.")
    return int(found[1]), int(found[2] or found[1])


def resized(model: keras.Model, height: int, width: int) -> keras.Model:
    """The same layers and weights with an input of another size.

    Raises:
        InputError: the size is no multiple of the largest stride, or the model is bound to its own.
    """
    import keras

    if model.input_shape[1:3] == (height, width):
        return model
    stride = max(_strides(model))
    if height % stride or width % stride:
        raise InputError(
            f"The input {width}x{height} is no multiple of {stride} pixels, the largest stride of {model.name}. "
            f"Use {-(-width // stride) * stride}x{-(-height // stride) * stride}."
        )
    pixels = keras.Input((height, width, 3), name="pixels")
    try:
        copy = keras.models.clone_model(model, input_tensors=pixels)
        copy.set_weights(model.get_weights())
    except ValueError as error:
        raise InputError(f"{model.name} cannot take pictures of {width}x{height}: {error}") from error
    return copy


def _task(model: keras.Model, spec: InputSpec, score_threshold: float) -> FacesTask:
    """The edge's own decoder for a Keras model: as if a bundle had been made of it."""
    heads = tuple(
        OutputSpec(
            name=f"{role}_{stride}",
            shape=(1, math.ceil(spec.height / stride), math.ceil(spec.width / stride), depth),
            role=role,
            stride=stride,
        )
        for stride in _strides(model)
        for role, depth in (("score", 1), ("box", 4))
    )
    return FacesTask(Manifest.model_construct(input=spec, outputs=heads), score_threshold)


def _strides(model: keras.Model) -> tuple[int, ...]:
    """From the heads' names.

    Raises:
        InputError: they are not a score and a box for each stride.
    """
    names = _names(model)
    parts = [name.rpartition("_") for name in names]
    strides = sorted({int(stride) for kind, _, stride in parts if kind == "score" and stride.isdigit()})
    wanted = {f"{kind}_{stride}" for kind in ("score", "box") for stride in strides}
    if not strides or wanted != set(names):
        raise InputError(
            f"{model.name} is no face detector: expected the heads score_8, box_8, score_16, …, found "
            f"{', '.join(names)}. Train one with a recipe `face_…`."
        )
    return tuple(strides)


def _names(model: keras.Model) -> list[str]:
    """Of the heads: their keys in a dictionary, else their layers'."""
    return list(model.output) if isinstance(model.output, dict) else model.output_names


def _parts(images: Iterator[Image], size: int) -> Iterator[list[Image]]:
    while part := list(islice(images, size)):
        yield part
