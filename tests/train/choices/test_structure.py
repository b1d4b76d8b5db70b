"""Networks rebuilt with other activations, norms, dropout, L2 and a first layer."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from edge.errors import InputError
from train.choices import ACTIVATIONS
from train.choices.inputs import input_layer
from train.choices.structure import Maxout, Structure, heads, hidden_activation, rebuilt
from train.models.airbench import airbench
from train.models.convnetjs import convnetjs
from train.models.lenet import lenet5
from train.models.resnet import resnet20
from train.models.vgg import vgg11

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
PIXELS = (PICTURES.astype(np.float32) - 128) / 128
ACTIVATING = (layers.Activation, layers.ELU, layers.LeakyReLU)
Make = Callable[[int, int, int], keras.Model]


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def copied(new: keras.Model, old: keras.Model) -> keras.Model:
    for layer in old.layers:
        if layer.weights:
            new.get_layer(layer.name).set_weights(layer.get_weights())
    return new


def test_without_a_choice_the_network_is_the_very_same() -> None:
    model = lenet5(32, 32, 10)
    assert rebuilt(model, Structure()) is model


@pytest.mark.parametrize("make", [lenet5, convnetjs])
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name not in ("maxout", "relu")])
def test_each_activation_takes_the_place_of_every_relu(make: Make, activation: str) -> None:
    old = make(32, 32, 10)
    new = rebuilt(old, Structure(activation=activation))
    replaced = sum(hidden_activation(layer) is not None for layer in old.layers)
    layers_of_it = (layer for layer in new.layers if isinstance(layer, ACTIVATING))
    found = [hidden_activation(layer) or layer.activation.__name__ for layer in layers_of_it]
    assert found == [activation] * replaced
    assert new.count_params() == old.count_params()
    copied(new, old)
    assert not np.allclose(new(PIXELS), old(PIXELS))


@pytest.mark.parametrize("make", [lenet5, convnetjs, vgg11, airbench])
def test_relu_in_place_of_relu_changes_nothing(make: Make) -> None:
    old = make(32, 32, 10)
    new = copied(rebuilt(old, Structure(activation="relu")), old)
    np.testing.assert_allclose(new(PIXELS), old(PIXELS), rtol=1e-4, atol=1e-5)


def test_maxout_is_the_larger_of_two_linear_units() -> None:
    values = keras.ops.convert_to_tensor(np.array([[1.0, -2.0, 3.0, 5.0, -4.0, 0.0]], np.float32))
    assert np.asarray(Maxout()(values)).tolist() == [[5.0, -2.0, 3.0]]


@pytest.mark.parametrize("make", [lenet5, convnetjs])
def test_maxout_keeps_the_widths_and_doubles_the_layers_before_it(make: Make) -> None:
    old, new = make(32, 32, 10), rebuilt(make(32, 32, 10), Structure(activation="maxout"))
    assert [tensor.shape for tensor in new.outputs] == [tensor.shape for tensor in old.outputs]
    first = next(layer for layer in old.layers if isinstance(layer, layers.Conv2D))
    assert new.get_layer(first.name).filters == 2 * first.filters
    assert new.layers[-1].units == 10
    maxouts = [layer for layer in new.layers if isinstance(layer, Maxout)]
    assert len(maxouts) == sum(hidden_activation(layer) is not None for layer in old.layers)
    assert maxouts[0].output.shape[-1] == first.filters


def test_maxout_says_where_it_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"follows 'pair1_1_add' \(Add\)"):
        rebuilt(resnet20(32, 32, 10), Structure(activation="maxout"))


def test_a_sigmoid_gate_stays_a_gate() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(pixels)
    gate = layers.Conv2D(4, 1, activation="sigmoid", name="gate")(x)
    model = keras.Model(pixels, layers.Dense(2)(layers.Flatten()(layers.Multiply()([x, gate]))))
    assert rebuilt(model, Structure(activation="elu")).get_layer("gate").activation.__name__ == "sigmoid"


def test_batch_norm_goes_before_the_activation_and_never_behind_the_head() -> None:
    model = rebuilt(lenet5(32, 32, 10), Structure(norm="batch"))
    assert kinds(model)[1:4] == ["Conv2D", "BatchNormalization", "ReLU"]
    assert kinds(model).count("BatchNormalization") == 4
    assert kinds(model)[-1] == "Dense"
    assert not model.get_layer("conv1").use_bias


@pytest.mark.parametrize("make", [convnetjs, vgg11, airbench, resnet20])
def test_batch_norm_is_not_doubled(make: Make) -> None:
    old = make(32, 32, 10)
    new = rebuilt(old, Structure(norm="batch"))
    added = kinds(new).count("BatchNormalization") - kinds(old).count("BatchNormalization")
    assert added == (1 if make is airbench else 0)  # Its whitening layer has none.


def test_without_batch_norm_the_layers_get_biases() -> None:
    model = rebuilt(convnetjs(32, 32, 10), Structure(norm="none"))
    assert "BatchNormalization" not in kinds(model)
    assert "Identity" not in kinds(model)
    assert model.count_params() == 22_466  # One bias a filter, where there was a gain and an offset.
    assert model.get_layer("conv1").use_bias


def test_dropout_stands_before_each_dense_layer_and_is_inverted() -> None:
    model = rebuilt(lenet5(32, 32, 10), Structure(dropout=0.5))
    for name in ("dense1", "dense2", "logits"):
        assert kinds(model)[[layer.name for layer in model.layers].index(name) - 1] == "Dropout"
    ones = np.ones((1, 10_000), np.float32)
    dropped = np.asarray(model.get_layer("logits_dropout")(ones, training=True))
    assert set(np.unique(dropped)) == {
        0.0,
        2.0,
    }  # Scaled up while training, so that nothing is left to do later.
    assert np.array_equal(model.get_layer("logits_dropout")(ones, training=False), ones)


def test_dropout_needs_a_dense_layer() -> None:
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(pixels)))
    with pytest.raises(InputError, match="no dense layer"):
        rebuilt(model, Structure(dropout=0.5))
    with pytest.raises(InputError, match="no activation"):
        rebuilt(model, Structure(activation="elu"))


def test_l2_adds_half_its_share_of_the_squared_kernels() -> None:
    model = rebuilt(lenet5(32, 32, 10), Structure(l2=0.1))
    kernels = [layer.kernel for layer in model.layers if getattr(layer, "kernel", None) is not None]
    expected = 0.05 * sum(float((np.asarray(kernel) ** 2).sum()) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", [lenet5, resnet20])
@pytest.mark.parametrize("preprocess", ["mean", "standardise", "whiten"])
def test_the_first_layer_is_called_on_the_pixels(make: Make, preprocess: str) -> None:
    """ResNet's first pair reads its input twice; the network's own input is read once, by the first layer."""
    old = make(32, 32, 10)
    first = input_layer(preprocess, PICTURES)
    assert first is not None
    new = copied(rebuilt(old, Structure(), first), old)
    np.testing.assert_allclose(new(PIXELS), old(first(PIXELS)), rtol=1e-4, atol=1e-4)
    assert first.kernel.path not in [variable.path for variable in new.trainable_variables]


def test_a_bare_operation_is_called_as_it_was() -> None:
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(pixels * 2.0)
    old = keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x + 1.0 * x)))
    new = copied(rebuilt(old, Structure(l2=0.1)), old)
    small = PIXELS[:, :8, :8]
    np.testing.assert_allclose(new(small), old(small), rtol=1e-5, atol=1e-6)


def test_heads_are_the_last_kernels() -> None:
    assert heads(lenet5(32, 32, 10)) == {"logits"}
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a")(pixels)
    model = keras.Model(
        pixels, [layers.Softmax()(layers.Conv2D(2, 1, name="b")(x)), layers.Conv2D(1, 1, name="c")(x)]
    )
    assert heads(model) == {"b", "c"}
