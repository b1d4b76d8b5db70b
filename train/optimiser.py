"""AdamW that leaves biases and batch normalisation alone, also after a checkpoint."""

from __future__ import annotations

from typing import Any

import keras

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
