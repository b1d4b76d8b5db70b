"""Optimisers that treat some weights otherwise than others, also after a checkpoint."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

NOT_DECAYED = ("bias", "beta", "gamma")


@keras.saving.register_keras_serializable("sightline")
class KernelAdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` whose weight decay is for kernels alone.

    Keras keeps `exclude_from_weight_decay` out of an optimiser's configuration, so that a training
    resumed from a file would decay what it did not decay before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=list(NOT_DECAYED))


@keras.saving.register_keras_serializable("sightline")
class RatedSGD(keras.optimizers.SGD):
    """SGD whose learning rate is another one for some weights, with L2 added to the gradient.

    Args:
        rates: by the last part of a variable's path (`beta`) or the last two (`logits/kernel`), by how much
            its learning rate is multiplied.
        l2: times the weight is added to its gradient, before momentum, as PyTorch's `weight_decay`. Where the rate
            is multiplied it is divided by as much, so that all weights decay by the same part a step.
    """

    def __init__(self, *args: Any, rates: dict[str, float] | None = None, l2: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rates, self.l2 = dict(rates or {}), l2

    def get_config(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {**super().get_config(), "rates": self.rates, "l2": self.l2}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One weight's step."""
        rate = self._rate(self._trainable_variables[self._get_variable_index(variable)].path)
        if self.l2:
            gradient = ops.add(gradient, ops.multiply(variable, self.l2 / rate))
        super().update_step(gradient, variable, ops.multiply(learning_rate, rate))

    def _rate(self, path: str) -> float:
        parts = path.split("/")
        return self.rates.get(parts[-1], self.rates.get("/".join(parts[-2:]), 1.0))
