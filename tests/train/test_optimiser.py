"""SGD with several rates, against PyTorch's rule written out, and what a checkpoint keeps of it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from train.optimiser import RatedSGD

LR, MOMENTUM, L2, STEPS = 0.1, 0.9, 0.01, 3


def two_weights() -> keras.Model:
    pixels = keras.Input((1,))
    x = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="body")(pixels)
    return keras.Model(
        pixels, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="logits")(x)
    )


def by_hand(rate: float, gradients: list[float]) -> float:
    """Nesterov's momentum on gradient + l2 / rate * weight, as torch.optim.SGD has it, at rate * LR."""
    weight, velocity = 1.0, 0.0
    for gradient in gradients:
        step = gradient + L2 / rate * weight
        velocity = MOMENTUM * velocity + step
        weight -= rate * LR * (step + MOMENTUM * velocity)
    return weight


@pytest.mark.parametrize("rate", [1.0, 4.0, 1 / 81])
def test_each_weight_takes_its_own_rate_and_decays_by_the_same_part(rate: float) -> None:
    model = two_weights()
    optimiser = RatedSGD(LR, momentum=MOMENTUM, nesterov=True, l2=L2, rates={"logits/kernel": rate})
    body, logits = model.trainable_weights
    gradients = [0.5, -0.25, 1.0]
    for gradient in gradients:
        value = keras.ops.convert_to_tensor([[gradient]], "float32")
        optimiser.apply([value, value], [body, logits])
    assert float(np.squeeze(body)) == pytest.approx(by_hand(1.0, gradients), abs=1e-6)
    assert float(np.squeeze(logits)) == pytest.approx(by_hand(rate, gradients), abs=1e-6)


def test_a_checkpoint_keeps_rates_and_l2() -> None:
    optimiser = RatedSGD(LR, l2=L2, rates={"beta": 64.0})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimiser))
    assert (again.rates, again.l2) == ({"beta": 64.0}, L2)
