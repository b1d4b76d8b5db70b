"""The checks before a training: minutes that save hours.

Quick, at the start of every `train`: the data are numbers, the batch fits into the memory, the first loss is
what guessing costs, and no layer is dead, exploding or vanishing. In full, for `sightline sanity`, two more: the
gradient is the loss's, and the network can learn a handful of examples by heart.
"""

from __future__ import annotations

import copy
import math
import warnings
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge.errors import CheckFailed
from edge.interrupt import interrupt_noted
from train.activations import Activation, activations
from train.fit import Lesson
from train.gradient import gradient_error
from train.memory import check_batch, memory_errors_told

NEAR = 0.05
"""The first loss may be that much off what guessing costs."""

SMALL = 0.3
"""Standard deviation of the logits below which a head counts as starting near zero."""

ZERO = 0.01
"""To what spread logits are brought whose first loss says nothing of the targets, as it is."""

LOOKED_AT = 32
"""Examples that a classifier's layers and first loss are judged by: of one or two, half the units may be dead."""

WORST = 3.0
"""A head that starts further off than so many times that is broken, however the logits are scaled."""

EXAMPLES, STEPS, RATE = 20, 300, 1e-3
"""So many examples must be known by heart after at most so many steps of Adam at that rate."""

GRADIENT_ERROR = 1e-3
"""Kinks of ReLUs and pools cost up to that much (the lecture: above 1e-2 something is wrong)."""

GRADIENT_EXAMPLES = 8

_PLAIN: dict[str, Any] = {"dropout": 0.0, "l2": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0}
"""What a recipe must not have where the bare loss counts."""

Examples = tuple[NDArray[np.float32], NDArray[Any]]


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: its name; found: what was seen, in words.
        passed: None where it does not apply.
        cause: of a failure, the likely one and what to change.
    """

    check: str
    passed: bool | None
    found: str
    cause: str = ""


@dataclass(frozen=True)
class Sanity:
    """All checks of one lesson, and its layers' outputs at the start."""

    findings: tuple[Finding, ...]
    layers: tuple[Activation, ...]

    def require(self) -> None:
        """Raises CheckFailed with the first failure and its cause."""
        failed = [finding for finding in self.findings if finding.passed is False]
        if failed:
            more = f" ({len(failed) - 1} more checks failed.)" if len(failed) > 1 else ""
            raise CheckFailed(f"Sanity, {failed[0].check}: {failed[0].found}. {failed[0].cause}{more}")


def quick(lesson: Lesson) -> Sanity:
    """The checks of one batch and one pass through the network; some seconds.

    Raises:
        InputError: the network cannot be built, or the batch does not fit into the memory.
    """
    keras.utils.set_random_seed(lesson.recipe.seed)
    model = lesson.compiled()
    inputs, targets = _examples(lesson, LOOKED_AT if lesson.about.task == "classification" else 1)
    batch_size = min(len(inputs), lesson.recipe.batch_size)
    check_batch(model, batch_size, inputs.shape[1:])
    numbers = _numbers(inputs)
    if not numbers.passed:
        return Sanity((numbers,), ())
    with memory_errors_told(batch_size):
        seen = activations(model, inputs)
        parts = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
        logits = np.concatenate([keras.ops.convert_to_numpy(model(part, training=True)) for part in parts])
    first = _first_loss(lesson, model.loss, np.asarray(targets), logits)
    return Sanity((numbers, first, _layers(seen)), tuple(seen))


def full(lesson: Lesson) -> Sanity:
    """The quick checks, then gradient and overfitting where those pass; a minute or more."""
    start = quick(lesson)
    if any(finding.passed is False for finding in start.findings):
        return start
    if lesson.about.task != "classification":
        skipped = Finding("gradient, overfitting", None, f"made for classifiers, this is {lesson.about.task}")
        return replace(start, findings=(*start.findings, skipped))
    plain = _plain(lesson)
    examples = _examples(plain, EXAMPLES)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist")  # Told below, with the cause.
        more = _gradient(plain, examples), _overfit(plain, examples)
    return replace(start, findings=(*start.findings, *more))


def _examples(lesson: Lesson, count: int) -> Examples:
    """Whole batches of the first epoch until there are `count` examples, or the epoch ends."""
    taken: list[tuple[Any, Any]] = []
    with closing(lesson.batches(0, 0)) as batches:
        for batch in batches:
            taken.append(batch)
            if sum(len(inputs) for inputs, _ in taken) >= count:
                break
    inputs, targets = zip(*taken, strict=True)
    return np.concatenate(inputs), np.concatenate(targets)


def _plain(lesson: Lesson) -> Lesson:
    """The same lesson without what is added to the loss or drawn at random."""
    known = {field.name for field in fields(lesson.recipe)}  # type: ignore[arg-type]
    plain = copy.copy(lesson)
    plain.recipe = replace(lesson.recipe, **{k: v for k, v in _PLAIN.items() if k in known})  # type: ignore[type-var]
    return plain


def _numbers(inputs: NDArray[np.float32]) -> Finding:
    finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    low, high = float(np.nanmin(inputs)), float(np.nanmax(inputs))
    if not finite.all():
        found = f"{int((~finite).sum())} of {len(inputs)} pictures hold NaN or infinity"
        return Finding("pixels", False, found, "Look at the data and its augmentation.")
    found = f"{low:.2f} to {high:.2f} in the first {len(inputs)} pictures"
    if low == high:
        return Finding("pixels", False, found, "All pixels are equal: look at how the pictures are read.")
    return Finding("pixels", True, found)


# -- the first loss -------------------------------------------------------------------------------


def _first_loss(lesson: Lesson, loss: Any, targets: NDArray[Any], logits: NDArray[Any]) -> Finding:
    """Guessing costs -log(1/classes), with label smoothing too, since all logits are alike."""
    name, classes = "first loss", logits.shape[-1]
    value = float(loss(targets, logits))
    if not math.isfinite(value):
        cause = "A layer or the loss gives no number: see the layers, and lower the initial weights."
        return Finding(name, False, f"{value}", cause)
    shares = targets.shape == logits.shape and np.allclose(targets.sum(axis=-1), 1, atol=1e-3)
    if not shares or not isinstance(loss, keras.losses.CategoricalCrossentropy):
        return Finding(name, None, f"{value:.3f}; what guessing costs is not known for {type(loss).__name__}")
    guessing, spread = math.log(classes), float(logits.std())
    expected = f"guessing costs -log(1/{classes}) = {guessing:.3f}"
    if value > WORST * guessing:
        cause = (
            "The head's initial weights or its inputs are too large: see the layers, or another initialiser."
        )
        return Finding(name, False, f"{value:.3g}, the logits spread by {spread:.2g}; {expected}", cause)
    # What a head says by chance costs about half its variance more, and of two classes, uneven ones or few
    # examples something either way: no fault of theirs.
    if spread >= SMALL or abs(value / guessing - 1) > NEAR:
        value = float(loss(targets, logits * (ZERO / spread))) if spread > ZERO else value
        expected = f"with the logits, which spread by {spread:.2f}, brought near zero; {expected}"
    found = f"{value:.3f}, {expected}"
    if _probabilities(logits):
        cause = f"{lesson.recipe.model} ends in a softmax, but the loss expects logits: take it away."
        return Finding(name, False, found, cause)
    passed = abs(value / guessing - 1) <= NEAR
    cause = (
        "" if passed else "Look at the targets: does each row say one class, and is the loss given logits?"
    )
    return Finding(name, passed, found, cause)


def _probabilities(logits: NDArray[Any]) -> bool:
    return bool((logits >= 0).all() and np.allclose(logits.sum(axis=-1), 1, atol=1e-4))


# -- the rest -------------------------------------------------------------------------------------


def _layers(seen: list[Activation]) -> Finding:
    wrong = [activation for activation in seen if activation.wrong]
    if wrong:
        cause = f"It begins with '{wrong[0].layer}': {wrong[0].wrong}."
        return Finding("layers", False, f"{len(wrong)} of {len(seen)} layers are out of order", cause)
    if not seen:
        return Finding("layers", None, "no layer to look at")
    spreads = [activation.spread for activation in seen]
    return Finding("layers", True, f"{len(seen)} layers spread by {min(spreads):.2g} to {max(spreads):.2g}")


def _gradient(lesson: Lesson, examples: Examples) -> Finding:
    inputs, targets = (array[:GRADIENT_EXAMPLES] for array in examples)
    keras.utils.set_random_seed(lesson.recipe.seed)
    loss = lesson.compiled().loss
    gradients = gradient_error(lambda: lesson.bare(lesson.compiled()), loss, inputs, targets)
    if gradients is None:
        return Finding("gradient", None, "the backend does not compute in float64")
    found = f"at most {gradients.error:.1e} off finite differences, of {gradients.n} weights"
    if gradients.error <= GRADIENT_ERROR:
        return Finding("gradient", True, found)
    cause = f"It is off at {gradients.variable}: a layer or loss of your own has a wrong gradient, or cuts it off."
    return Finding("gradient", False, found, cause)


def _overfit(lesson: Lesson, examples: Examples) -> Finding:
    inputs, targets = (array[:EXAMPLES] for array in examples)
    keras.utils.set_random_seed(lesson.recipe.seed)
    model = lesson.compiled()
    jit = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(RATE), model.loss, metrics=["accuracy"], jit_compile=jit)
    right = 0.0
    for step in range(1, STEPS + 1):
        model.reset_metrics()
        with interrupt_noted():
            logs = model.train_on_batch(inputs, targets, return_dict=True)
        right = float(logs["accuracy"])
        if right == 1.0:
            return Finding("overfitting", True, f"{len(inputs)} examples known by heart after {step} steps")
        if not math.isfinite(logs["loss"]):
            break
    found = f"{100 * right:.0f} % of {len(inputs)} examples after {step} steps of Adam, loss {float(logs['loss']):.3g}"
    return Finding("overfitting", False, found, _why_not(inputs, targets))


def _why_not(inputs: NDArray[Any], targets: NDArray[Any]) -> str:
    labels: dict[bytes, int] = {}
    for picture, label in zip(inputs, targets.argmax(axis=-1), strict=True):
        if labels.setdefault(picture.tobytes(), int(label)) != label:
            return "Two equal pictures bear different labels: look at the data."
    return (
        "No signal reaches the first layers (activation, initialiser), the network is too small, "
        "or a layer throws away what tells the pictures apart."
    )
