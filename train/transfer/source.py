"""A trained classifier to start from, and the two parts it is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from edge.errors import InputError
from edge.pixels import Image, normalise
from train.card import Card, card_if_any
from train.data import LabelledImages, few
from train.recipe import Recipe
from train.transfer.stages import GRID, Cuts, calls_of, cuts, features
from train.transfer.strategy import FOLDS, Evidence, separation
from train.weights import load_network

HEAD = "logits"
HEAD_SPREAD = 0.01
"""Of the new layer's initial weights: it begins by guessing, so that no large gradient spoils what is behind it."""

LOOKED_AT = 1000
"""Images that the decision is made on; all of them where there are fewer."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A trained classifier.

    Attributes:
        model: functional, float32 (N, H, W, 3) in [-1, 127/128] to (N, classes).
        card: None where the file has none: its origin and terms are then unknown.
    """

    path: Path
    model: keras.Model
    card: Card | None
    cuts: Cuts

    @property
    def terms(self) -> str:
        return (self.card.terms if self.card else None) or ""


def open_source(path: Path, recipe: Recipe) -> Source:
    """Load a `.keras` classifier to start from, with its card where it has one.

    Raises:
        InputError: it is missing, no classifier, of another input size than the recipe's, or has no layer
            before its last one.
    """
    loaded = load_network(path)
    card = card_if_any(path)
    if card is not None and card.task != "classification":
        raise InputError(f"{path} is for {card.task}; --from without --qat starts from a classifier.")
    shapes = [tuple(tensor.shape) for tensor in loaded.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        given = ", ".join(str(shape) for shape in shapes)
        raise InputError(
            f"{path} gives {given}; --from without --qat starts from a classifier, (None, classes)."
        )
    wanted = (None, recipe.height, recipe.width, 3)
    found = [tuple(tensor.shape) for tensor in loaded.inputs]
    if found != [wanted]:
        raise InputError(
            f"{path} takes {', '.join(map(str, found))}, recipe {recipe.name} has pictures of {wanted}. "
            f"{_size_advice(found[0])}"
        )
    model = keras.Model(loaded.inputs[0], loaded.outputs[0], name=loaded.name)
    return Source(path, model, card, cuts(model))


def _size_advice(shape: tuple[int | None, ...]) -> str:
    if len(shape) == 4 and shape[1] and shape[2] and shape[3] == 3:
        return f"Add height={shape[1]} width={shape[2]}."
    return "Save it with a fixed input of (height, width, 3)."


# -- the two parts --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """A network cut in two.

    Attributes:
        whole: pixels to logits (N, classes), with the source's weights and a new last layer.
        frozen: pixels to what `trained` reads; None where all is trained.
        trained: that to logits.
    """

    whole: keras.Model
    frozen: keras.Model | None
    trained: keras.Model


def parts(source: Source, strategy: str, classes: int) -> Parts:
    """The network that a strategy trains, cut where the strategy says.

    Raises:
        InputError: the strategy cuts at an earlier stage, and the network has none.
    """
    body = copied(source.model)
    pixels, earlier = body.inputs[0], None
    if strategy in ("earlier", "finetune-few"):
        earlier = _output_of(body, _earlier_of(source))
    last = _output_of(body, source.cuts.last)
    seen = features(earlier, GRID) if strategy == "earlier" else features(last, 1)
    normal = keras.initializers.RandomNormal(stddev=HEAD_SPREAD)
    logits = layers.Dense(classes, kernel_initializer=normal, name=HEAD)(seen)
    cut = {"linear": seen, "earlier": seen, "finetune-few": earlier, "finetune-more": pixels}[strategy]
    whole = keras.Model(pixels, logits, name=body.name)
    if cut is pixels:
        return Parts(whole, None, whole)
    return Parts(whole, keras.Model(pixels, cut), keras.Model(cut, logits, name=body.name))


def _earlier_of(source: Source) -> str:
    if source.cuts.earlier is None:
        raise InputError(
            f"{source.path} has no earlier stage: nowhere before its last layers does everything pass through one "
            "larger map. Choose --strategy linear or finetune-more."
        )
    return source.cuts.earlier


def _output_of(model: keras.Model, name: str) -> Any:
    """What a layer or bare operation gives in the model's own graph."""
    return calls_of(model)[name][0].outputs[0]


def copied(model: keras.Model) -> keras.Model:
    """The same layers anew, with the same weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def trainable_copy(model: keras.Model, l2: float) -> keras.Model:
    """The same anew, with `l2` and nothing frozen but batch normalisation: statistics, scale and offset.

    What was frozen in the source, or stands in a model inside it, is treated like everything else.

    The statistics of a few small batches are worse than those of the source's training (Keras's guide to transfer
    learning, https://keras.io/guides/transfer_learning/); a layer that is not trainable makes no use of them.
    """

    def layer_of(old: Any) -> Any:
        config = old.get_config()
        if "trainable" in config:  # a bare operation has nothing to train
            config["trainable"] = not isinstance(old, layers.BatchNormalization)
        if l2 and "kernel_regularizer" in config:
            config["kernel_regularizer"] = keras.regularizers.L2(l2 / 2)
        return type(old).from_config(config)

    copy = keras.models.clone_model(model, clone_function=layer_of, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


# -- the decision ---------------------------------------------------------------------------------


def evidence(source: Source, data: LabelledImages) -> Evidence:
    """How many images there are, and what the network's features are worth for them.

    Raises:
        InputError: the network has no earlier stage, or a class a single image.
    """
    looked_at = few(data, max(LOOKED_AT, FOLDS * len(data.class_names)))
    earlier = _output_of(source.model, _earlier_of(source))
    last = _output_of(source.model, source.cuts.last)
    both = keras.Model(source.model.inputs[0], [features(last, 1), features(earlier, GRID)])
    rows = _outputs(both, looked_at.images)
    separations = [separation(part, looked_at.labels) for part in rows]
    return Evidence(int(np.bincount(data.labels).min()), *separations, len(looked_at))


def _outputs(model: keras.Model, images: Image, batch: int = 250) -> list[Rows]:
    """What a network with several outputs makes of uint8 images (N, H, W, 3)."""
    found = [
        model.predict_on_batch(normalise(images[start : start + batch]))
        for start in range(0, len(images), batch)
    ]
    return [np.concatenate(part) for part in zip(*found, strict=True)]
