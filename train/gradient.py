"""Whether the gradient that changes the weights is the loss's: compared with finite differences, in float64.

Central differences (L(w + h) - L(w - h)) / 2h, as the lecture has it; in float32 their rounding would
hide errors of a per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge.interrupt import interrupt_noted

STEP = 1e-6
VARIABLES, WEIGHTS = 12, 2
"""At most so many variables are tried, spread over the network, and in each so many weights."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Gradients:
    """The worst of the weights tried.

    Attributes:
        error: |analytic - numeric| divided by the larger of the two.
        variable: its path, such as `conv1/kernel`; n: how many weights were tried.
    """

    error: float
    variable: str
    n: int


def gradient_error(
    make: Callable[[], keras.Model], loss: Any, inputs: Array, targets: Array
) -> Gradients | None:
    """Compare the two on a few weights.

    Args:
        make: gives a network with fresh weights, made of Keras's layers; called where float64 is the default.
        loss: a `keras.losses.Loss`.
        inputs, targets: a few examples.

    Returns:
        None where the backend computes in float32 for all that (JAX does unless told otherwise).
    """
    with _float64():
        model = make()
        if not model.trainable_variables or keras.backend.standardize_dtype(model.dtype) != "float64":
            return None
        for layer in model.layers:  # What is drawn at random would differ from call to call.
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        # One step of SGD at a rate of 1 takes the gradient off the weights, on every backend alike.
        model.compile(keras.optimizers.SGD(1.0), type(loss).from_config(loss.get_config()), jit_compile=False)
        return _worst(model, inputs.astype(np.float64), np.asarray(targets, np.float64))


def _worst(model: keras.Model, inputs: Array, targets: Array) -> Gradients | None:
    variables = model.trainable_variables
    before = _values(variables)
    _step(model, inputs, targets)
    gradients = [old - new for old, new in zip(before, _values(variables), strict=True)]
    if gradients[0].dtype != np.float64:
        return None
    model.optimizer.learning_rate = 0.0  # From here on a step only measures the loss.
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    errors = [
        (
            _difference(
                gradients[k].flat[index], _numeric(model, variables[k], before[k], index, inputs, targets)
            ),
            k,
        )
        for k in _spread(len(variables))
        for index in _chosen(gradients[k], k)
    ]
    error, worst = max(errors)
    return Gradients(float(error), str(variables[worst].path), len(errors))


def _values(variables: list[Any]) -> list[Array]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _spread(count: int) -> list[int]:
    return sorted({int(k) for k in np.linspace(0, count - 1, min(count, VARIABLES))})


def _chosen(gradient: Array, seed: int) -> list[int]:
    """The weight with the largest gradient, where an error shows best, and one at random."""
    others = np.random.default_rng(seed).integers(gradient.size, size=WEIGHTS - 1)
    return sorted({int(np.abs(gradient).argmax()), *others.tolist()})


def _numeric(model: Any, variable: Any, value: Array, index: int, inputs: Array, targets: Array) -> float:
    losses = []
    for step in (STEP, -STEP):
        moved = value.copy()
        moved.flat[index] += step
        variable.assign(moved)
        losses.append(_step(model, inputs, targets))
    variable.assign(value)
    return (losses[0] - losses[1]) / (2 * STEP)


def _step(model: Any, inputs: Array, targets: Array) -> float:
    """The loss before a step of the optimiser."""
    with interrupt_noted():
        return float(model.train_on_batch(inputs, targets, return_dict=True)["loss"])


def _difference(analytic: float, numeric: float) -> float:
    """Relative; two that are both as small as rounding makes them agree."""
    return abs(analytic - numeric) / max(abs(analytic), abs(numeric), 1e-6)


@contextmanager
def _float64() -> Iterator[None]:
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
