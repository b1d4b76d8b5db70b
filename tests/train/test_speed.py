"""The form of a network that trains fastest computes what the network computes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from train.choices import PRECISIONS
from train.speed import FusedBatchNormalization, fast_form, slow_here


def network(scale: bool = True, center: bool = True) -> keras.Model:
    pixels = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(pixels)
    x = layers.BatchNormalization(momentum=0.9, scale=scale, center=center, name="norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
    return keras.Model(pixels, layers.Dense(4, name="logits")(layers.BatchNormalization(name="flat")(x)))


def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 1.2, (64, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False)])
def test_training_and_inference_compute_what_keras_computes(
    precision: str, scale: bool, center: bool
) -> None:
    keras.utils.set_random_seed(1)
    plain = network(scale, center)
    if scale:
        plain.get_layer("norm").gamma.assign(np.linspace(0.5, 2, 8))
    fast = fast_form(plain, precision)
    assert any(isinstance(layer, FusedBatchNormalization) for layer in fast.layers)
    near = {"rtol": 0, "atol": 1e-4 if precision == "float32" else 0.05}
    np.testing.assert_allclose(fast(inputs()), plain(inputs()), **near)
    np.testing.assert_allclose(fast(inputs(), training=True), plain(inputs(), training=True), **near)
    for ours, theirs in zip(fast.get_layer("norm").weights, plain.get_layer("norm").weights, strict=True):
        np.testing.assert_allclose(ours, theirs, **near)


def test_a_frozen_normalisation_keeps_its_statistics() -> None:
    plain = network()
    norm = plain.get_layer("norm")
    norm.moving_mean.assign(np.linspace(-1, 1, 8))
    norm.trainable = False
    fast = fast_form(plain)
    before = fast.get_layer("norm").get_weights()
    np.testing.assert_allclose(fast(inputs(), training=True), plain(inputs(), training=True), atol=1e-5)
    for now, then in zip(fast.get_layer("norm").get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_mixed_precision_keeps_weights_and_logits_in_float32_and_computes_the_rest_in_bfloat16() -> None:
    fast = fast_form(network(), "mixed_bfloat16")
    assert {variable.dtype for variable in fast.weights} == {"float32"}
    assert fast.get_layer("conv").compute_dtype == "bfloat16"
    assert fast.output.dtype == "float32"


def test_a_step_changes_the_weights_as_in_float32() -> None:
    keras.utils.set_random_seed(1)
    plain = network()
    labels = np.random.default_rng(0).integers(0, 4, 64)
    trained = []
    for precision in PRECISIONS:
        model = fast_form(plain, precision)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        model.train_on_batch(inputs(), labels)
        trained.append(np.concatenate([np.ravel(weight) for weight in model.get_weights()]))
    before = np.concatenate([np.ravel(weight) for weight in plain.get_weights()])
    steps = [after - before for after in trained]
    assert np.abs(steps[0]).max() > 0.01
    assert np.corrcoef(*steps)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("precision", "flags", "devices", "slow"),
    [
        ("mixed_bfloat16", "flags : sse avx2 avx512f", ("cpu:0",), True),
        ("mixed_bfloat16", "vendor_id : AuthenticAMD\nflags : sse avx512_bf16", ("cpu:0",), False),
        ("mixed_bfloat16", "vendor_id : GenuineIntel\nflags : sse avx512_bf16", ("cpu:0",), True),
        ("mixed_bfloat16", "vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16", ("cpu:0",), False),
        ("mixed_bfloat16", "flags : amx_bf16 amx_tile", ("cpu:0",), False),
        ("mixed_bfloat16", "Features : fp asimd bf16 i8mm", ("cpu:0",), False),
        ("mixed_bfloat16", "flags : sse avx2", ("cpu:0", "gpu:0"), False),
        ("float32", "flags : sse avx2", ("cpu:0",), False),
    ],
)
def test_a_processor_without_the_arithmetic_is_told(
    precision: str, flags: str, devices: tuple[str, ...], slow: bool
) -> None:
    assert slow_here(precision, flags, devices) is slow
