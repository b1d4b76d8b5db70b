"""The lecture's architectures: sizes as published, and each learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from edge.errors import InputError
from train.architecture import architecture
from train.classifier import ClassifierLesson
from train.data import LabelledImages, load
from train.describe import describe
from train.models import imagenet
from train.recipe import Recipe, load_recipe

CIFAR = {
    "lenet:lenet5": (62_006, 651_720),
    "alexnet:alexnet": (1_790_154, 77_036_544),
    "vgg:vgg11": (9_228_362, 152_769_536),
    "vgg:vgg16": (14_724_042, 313_201_664),
    "inception:inception": (351_506, 51_132_928),
    "resnet:resnet20": (272_474, 40_813_184),
    "resnet:resnet56": (855_770, 125_747_840),
    "convnetjs:convnetjs": (22_522, 3_920_000),
}
RECIPES = ("lenet_cifar10", "alexnet_cifar10", "vgg11_cifar10", "inception_cifar10", "resnet20_cifar10")


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    data = load("digits", "train", 32, 32)
    return data.take(np.arange(16), " 16")


@pytest.mark.parametrize("name", CIFAR)
def test_trainable_parameters_and_macs(name: str) -> None:
    described = describe(architecture(f"train.models.{name}", 32, 32, 10))
    assert (described.trainable, described.macs) == CIFAR[name]
    assert described.unknown == ()
    assert described.misfits == ()


def test_resnets_are_as_large_as_published() -> None:
    """He et al. 2015, table 6: ResNet-20 0.27 M, ResNet-56 0.85 M parameters; 20 and 56 layers with weights."""
    for layer_count, millions in ((20, 0.27), (56, 0.85)):
        model = architecture(f"train.models.resnet:resnet{layer_count}", 32, 32, 10)
        weighted = [layer for layer in model.layers if isinstance(layer, (layers.Conv2D, layers.Dense))]
        on_the_way = [layer for layer in weighted if not layer.name.endswith("_around")]
        assert len(on_the_way) == layer_count
        assert describe(model).trainable / 1e6 == pytest.approx(millions, abs=0.01)


def test_an_inception_module_puts_four_ways_side_by_side() -> None:
    model = architecture("train.models.inception:inception", 32, 32, 10)
    module = model.get_layer("module1_1")
    assert [tensor.shape[-1] for tensor in module.input] == [32, 64, 16, 16]
    assert module.output.shape == (None, 16, 16, 128)


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_takes_some_steps(name: str, digits: LabelledImages, eager: None) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    lesson = ClassifierLesson(replace(recipe, data="digits", batch_size=8, epochs=1), digits, None)
    keras.utils.set_random_seed(0)
    model = lesson.compiled()
    losses = [model.train_on_batch(*batch, return_dict=True)["loss"] for batch in lesson.batches(0, 0)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    bare = lesson.bare(model)
    assert bare.output_shape == (None, 10)
    assert bare.input_shape == (None, 32, 32, 3)


# -- keras.applications ---------------------------------------------------------------------------

EXPECTED = {  # What Keras's own preprocessing makes of 0 and 255, in the order R, G, B.
    "mobilenet_v2": ((-1, -1, -1), (1, 1, 1)),
    "mobilenet_v3_small": ((0, 0, 0), (255, 255, 255)),
    "efficientnet_v2_b0": ((0, 0, 0), (255, 255, 255)),
    "resnet50": ((-123.68, -116.779, -103.939), (131.32, 138.221, 151.061)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_normalisation_is_inside_the_graph(name: str) -> None:
    model = architecture(f"train.models.imagenet:{name}", 64, 64, 5)
    assert model.output_shape == (None, 5)
    bytes_ = np.stack([np.zeros((64, 64, 3)), np.full((64, 64, 3), 255)])
    pixels = (bytes_.astype(np.float32) - 128) / 128
    normalised = np.asarray(keras.Model(model.input, model.layers[1].output)(pixels))
    np.testing.assert_allclose(normalised[:, 0, 0], EXPECTED[name], atol=1e-3)


def test_an_unknown_network_lists_the_known() -> None:
    with pytest.raises(InputError, match="none named 'mobilenet', but mobilenet_v2"):
        architecture("train.models.imagenet:mobilenet", 64, 64, 5)


def sequential(height: int, width: int, classes: int) -> keras.Model:
    return keras.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(classes)])


def test_a_sequential_network_that_says_no_size_can_be_trained_with_every_choice(
    digits: LabelledImages,
) -> None:
    recipe = Recipe("own", f"{__name__}:sequential", "digits", 1, l2=1e-3, activation="elu", dropout=0.5)
    model = ClassifierLesson(recipe, digits, None).compiled()
    assert model.input_shape == (None, 32, 32, 3)
    assert [type(layer).__name__ for layer in model.layers][-2:] == ["Dropout", "Dense"]


def test_weights_of_a_file_are_taken_but_for_another_head(tmp_path: Path) -> None:
    trained = keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=7)
    path = tmp_path / "trained.weights.h5"
    trained.save_weights(path)
    model = architecture("train.models.imagenet:mobilenet_v2", 64, 64, 5, weights=str(path))
    for ours, theirs in zip(model.get_weights()[:-2], trained.get_weights()[:-2], strict=True):
        assert np.array_equal(ours, theirs)
    assert model.layers[-1].units == 5


@pytest.mark.parametrize("kind", [".weights.h5", ".h5"])
def test_a_network_of_bgr_gives_the_same_from_rgb(kind: str, tmp_path: Path) -> None:
    trained = keras.applications.VGG16(
        weights=None, classes=5, input_shape=(32, 32, 3), classifier_activation=None
    )
    path = tmp_path / f"trained{kind}"
    trained.save_weights(path) if kind == ".weights.h5" else trained.save(path)
    model = imagenet.vgg16(32, 32, 5, weights=str(path))
    bytes_ = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    theirs = trained(keras.applications.vgg16.preprocess_input(bytes_.copy()))
    np.testing.assert_allclose(model((bytes_ - 128) / 128), theirs, rtol=1e-3, atol=1e-4)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.weights.h5"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no weights of mobilenetv2"):
        architecture("train.models.imagenet:mobilenet_v2", 64, 64, 5, weights=str(path))
    with pytest.raises(InputError, match="starts from fresh weights alone"):
        architecture("train.models.lenet:lenet5", 32, 32, 5, weights=str(path))


def nested(height: int, width: int, classes: int) -> keras.Model:
    """A frozen backbone in a model of its own, and a head in another one."""
    inner = keras.Input((height, width, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, strides=2, name="conv")(inner))
    backbone = keras.Model(inner, layers.ReLU(name="relu")(x), name="backbone")
    backbone.trainable = False
    head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(classes, name="logits")])
    pixels = keras.Input((height, width, 3))
    outer = keras.Model(pixels, head(backbone(pixels)), name="outer")
    again = keras.Input((height, width, 3))
    return keras.Model(again, outer(again), name="nested")


def test_models_inside_a_network_are_opened_and_choices_reach_their_layers(digits: LabelledImages) -> None:
    keras.utils.set_random_seed(0)
    plain = nested(16, 16, 3)
    keras.utils.set_random_seed(0)
    opened = architecture(f"{__name__}:nested", 16, 16, 3)
    assert [layer.name for layer in opened.layers if layer.weights] == ["conv", "norm", "logits"]
    inputs = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(opened(inputs), plain(inputs), rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in opened.layers if layer.trainable_weights] == ["logits"]
    recipe = load_recipe("lenet_digits")
    assert isinstance(recipe, Recipe)
    chosen = replace(recipe, model=f"{__name__}:nested", activation="elu", initialiser="lsuv")
    model = ClassifierLesson(chosen, digits, None).compiled()
    assert isinstance(model.get_layer("relu"), layers.ELU)


class Subclassed(keras.Model):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = layers.Dense(classes)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return self.last(keras.ops.mean(inputs, axis=(1, 2)))


def subclassed(height: int, width: int, classes: int) -> keras.Model:
    return Subclassed(classes)


def test_a_model_without_a_graph_of_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"gives a Subclassed, .* Expected a functional or Sequential model"):
        architecture(f"{__name__}:subclassed", 16, 16, 3)


def side_by_side(height: int, width: int, classes: int) -> keras.Model:
    """Two models of the same shapes beside each other, which a flat graph runs through layer by layer in turn."""
    pixels = keras.Input((height, width, 3))
    branches = []
    for name in "ab":
        inner = keras.Input((height, width, 3))
        x = inner
        for number in range(2):
            x = layers.Conv2D(3, 3, padding="same", name=f"{name}{number}")(x)
        branches.append(keras.Model(inner, x, name=name)(pixels))
    return keras.Model(pixels, layers.Dense(classes)(layers.Flatten()(layers.Subtract()(branches))))


def test_models_side_by_side_keep_their_own_weights() -> None:
    keras.utils.set_random_seed(0)
    nested_one = side_by_side(8, 8, 3)
    keras.utils.set_random_seed(0)
    opened = architecture(f"{__name__}:side_by_side", 8, 8, 3)
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    np.testing.assert_allclose(opened(pixels), nested_one(pixels), rtol=1e-5, atol=1e-6)
