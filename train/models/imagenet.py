"""Networks of `keras.applications` for pictures of ImageNet's size, their normalisation inside the graph.

The door of every recipe is (x - 128) / 128, that of these networks is another one each: `pixels` is brought to
theirs by a first layer, so that the edge need not know. Weights are random, unless the user has a file: Sightline
downloads none. With other than its number of classes, all but the last layer is taken from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

from edge.errors import InputError

BGR_MEANS = (103.939, 116.779, 123.68)
"""Of ImageNet, which ResNet50 and VGG16 take off; their weights were trained on BGR."""

Pixels = Callable[[Any], Any]


def _bytes(pixels: Any) -> Any:
    """0 to 255: the networks that normalise by themselves."""
    return layers.Rescaling(128.0, 128.0, name="to_bytes")(pixels)


def _unit(pixels: Any) -> Any:
    """x / 127.5 - 1 of 0 to 255."""
    return layers.Rescaling(128 / 127.5, 128 / 127.5 - 1, name="to_unit")(pixels)


def _centred(pixels: Any) -> Any:
    """0 to 255 without the means, RGB: the first kernel of a weights file is turned round instead."""
    offsets = [128.0 - mean for mean in reversed(BGR_MEANS)]
    return layers.Rescaling([128.0] * 3, offsets, name="to_centred")(pixels)


_NETWORKS: dict[str, tuple[str, Pixels]] = {
    "mobilenet_v2": ("MobileNetV2", _unit),
    "mobilenet_v3_small": ("MobileNetV3Small", _bytes),
    "mobilenet_v3_large": ("MobileNetV3Large", _bytes),
    "efficientnet_v2_b0": ("EfficientNetV2B0", _bytes),
    "resnet50": ("ResNet50", _centred),
    "inception_v3": ("InceptionV3", _unit),
    "vgg16": ("VGG16", _centred),
}


def __getattr__(name: str) -> Callable[..., keras.Model]:
    """`train.models.imagenet:<name>`, a function of (height, width, classes, weights="")."""
    if name not in _NETWORKS:
        raise AttributeError(f"there is none named '{name}', but {', '.join(_NETWORKS)}")

    def network(height: int, width: int, classes: int, weights: str = "") -> keras.Model:
        kind, pixels = _NETWORKS[name]
        return _network(kind, pixels, (height, width, 3), classes, weights)

    return network


def _network(
    kind: str, normalised: Pixels, shape: tuple[int, int, int], classes: int, weights: str
) -> keras.Model:
    pixels = keras.Input(shape, name="pixels")
    options = {"classes": classes, "classifier_activation": None, "weights": None}
    built = getattr(keras.applications, kind)(input_tensor=normalised(pixels), **options)
    model = keras.Model(pixels, built.outputs[0], name=built.name)  # Theirs wants its input in a list.
    if weights:
        _load(model, Path(weights))
        if normalised is _centred:
            first = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
            kernel, *rest = first.get_weights()
            first.set_weights([kernel[:, :, ::-1], *rest])
    return model


def _load(model: keras.Model, path: Path) -> None:
    """Raises InputError where the file is none, or holds no layer of the network."""
    before = model.get_weights()
    by_name = {"by_name": True} if path.name.endswith(".h5") and not path.name.endswith(".weights.h5") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Each layer that does not fit: the last one is expected.
            model.load_weights(path, skip_mismatch=True, **by_name)
    except Exception as error:  # Keras raises whatever HDF5 meets.
        raise InputError(
            f"{path} holds no weights of {model.name} ({str(error).splitlines()[0]})."
        ) from error
    if all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True)):
        raise InputError(f"{path} holds no layer of {model.name}: expected its weights as Keras saves them.")
