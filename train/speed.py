"""The same network in the form that trains fastest: fused normalisation, and arithmetic in bfloat16 where asked for.

Keras 3 computes batch normalisation from a dozen operations; TensorFlow has one kernel. Measured in one run each,
TensorFlow 2.21, two x86 cores: a step of the face detector (256x256, batch 32, float32) took 109 to 125 ms with it
against 151 to 209 ms. `cifar10_base` (batch 256) on cores with AMX trained 274 images a second in float32, 582 in
mixed bfloat16, 949 in mixed bfloat16 with the fused kernel. On a Xeon of the same family without AMX, one core, fused,
bfloat16 was the slower: `resnet20_cifar10` 279 against 441 images/s, `vgg11_cifar10` 92 against 117.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from train.choices.structure import heads


def fast_form(model: keras.Model, precision: str = "float32") -> keras.Model:
    """The same network with the same weights, to be trained; normalisation is fused with TensorFlow alone.

    `precision` is one of `train.choices.PRECISIONS`.
    """
    fused = keras.backend.backend() == "tensorflow"
    mixed = precision != "float32"
    if not fused and not mixed:
        return model
    last = heads(model)

    def layer(old: Any) -> Any:
        config = old.get_config()
        if mixed and "dtype" in config:
            config["dtype"] = "float32" if old.name in last else precision
        kind = FusedBatchNormalization if fused and type(old) is layers.BatchNormalization else type(old)
        return kind.from_config(config)

    copy = keras.models.clone_model(model, clone_function=layer)
    copy.set_weights(model.get_weights())
    return copy


def slow_here(precision: str, cpuinfo: str, devices: Sequence[str]) -> bool:
    """Whether float32 is the faster: no GPU among the devices, and /proc/cpuinfo knows no bfloat16 that pays.

    Intel's AVX512-BF16 does not, as measured above; AMX and ARM's do, and of AMD's AVX512-BF16 it is taken to.
    """
    pays = r"\b(amx_bf16|bf16)\b" if "GenuineIntel" in cpuinfo else r"\b(amx_bf16|avx512_bf16|bf16)\b"
    return (
        precision != "float32"
        and not re.search(pays, cpuinfo)
        and all(device.startswith("cpu") for device in devices)
    )


@keras.saving.register_keras_serializable("sightline")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras's layer, its training step in one kernel; over the last axis of (N, H, W, C), but in float64."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """As the base class, which only infers where it is frozen; `mask` must be None."""
        if not (training and self.trainable) or len(inputs.shape) != 4 or self.compute_dtype == "float64":
            return super().call(inputs, training=training)
        import tensorflow as tf

        scale, offset = (
            ops.cast(wanted, "float32") if wanted is not None else tf.fill([inputs.shape[-1]], value)
            for wanted, value in (
                (self.gamma if self.scale else None, 1.0),
                (self.beta if self.center else None, 0.0),
            )
        )
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, epsilon=self.epsilon, is_training=True
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs
