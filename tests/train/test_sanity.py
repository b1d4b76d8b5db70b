"""The checks before a training: each passes on a sound recipe and names the cause on a broken one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from edge.errors import CheckFailed, InputError
from train import sanity as checks
from train.activations import activations
from train.card import weights_sha256
from train.classifier import ClassifierLesson
from train.data import LabelledImages, load
from train.gradient import gradient_error
from train.models.lenet import lenet5
from train.recipe import Recipe, load_recipe
from train.sanity import Finding, Sanity, full, quick

RECIPE = load_recipe("lenet_digits")
assert isinstance(RECIPE, Recipe)
HERE = __name__


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load("digits", "train", 32, 32)


def lesson(digits: LabelledImages, **changes: Any) -> ClassifierLesson:
    return ClassifierLesson(replace(RECIPE, **changes), digits, None)


def by_name(sanity: Sanity) -> dict[str, Finding]:
    return {finding.check: finding for finding in sanity.findings}


def test_a_sound_recipe_passes_all(digits: LabelledImages) -> None:
    sanity = full(lesson(digits))
    assert {finding.check: finding.passed for finding in sanity.findings} == {
        "pixels": True,
        "first loss": True,
        "layers": True,
        "gradient": True,
        "overfitting": True,
    }
    assert "guessing costs -log(1/10) = 2.303" in by_name(sanity)["first loss"].found
    assert "20 examples" in by_name(sanity)["overfitting"].found
    assert [row.layer for row in sanity.layers] == ["conv1", "conv2", "dense1", "dense2"]
    sanity.require()


@pytest.mark.parametrize("check", ["_gradient", "_overfit"])
def test_ctrl_c_waits_for_the_end_of_a_step(
    check: str, digits: LabelledImages, interrupted: list[Any]
) -> None:
    plain_lesson = lesson(digits)
    with pytest.raises(KeyboardInterrupt):
        getattr(checks, check)(plain_lesson, checks._examples(plain_lesson, 20))
    assert len(interrupted) == 1


def small_head(height: int, width: int, classes: int) -> keras.Model:
    return _network(height, width, layers.Dense(classes, kernel_initializer=_normal(1e-3)))


def softmax(height: int, width: int, classes: int) -> keras.Model:
    return _network(height, width, layers.Dense(classes, activation="softmax"))


def large_head(height: int, width: int, classes: int) -> keras.Model:
    return _network(height, width, layers.Dense(classes, kernel_initializer=_normal(5.0)))


def blind(height: int, width: int, classes: int) -> keras.Model:
    """Its only path multiplies the pixels by zero."""
    pixels = keras.Input((height, width, 3))
    x = layers.Flatten()(layers.Rescaling(0.0)(pixels))
    return keras.Model(pixels, layers.Dense(classes)(x))


def dead(height: int, width: int, classes: int) -> keras.Model:
    far_below = keras.initializers.Constant(-100.0)
    return _network(height, width, layers.Dense(classes), bias_initializer=far_below)


def dead_inside(height: int, width: int, classes: int) -> keras.Model:
    pixels = keras.Input((height, width, 3))
    return keras.Model(pixels, dead(height, width, classes)(pixels))


def exploding(height: int, width: int, classes: int) -> keras.Model:
    return _network(height, width, layers.Dense(classes, kernel_initializer=_normal(1e-9)), 1e5)


def vanishing(height: int, width: int, classes: int) -> keras.Model:
    return _network(height, width, layers.Dense(classes), 1e-8)


def saturated(height: int, width: int, classes: int) -> keras.Model:
    return _network(height, width, layers.Dense(classes), 10.0, activation="tanh")


def _normal(deviation: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=deviation)


def _network(
    height: int, width: int, head: layers.Layer, deviation: float = 0.05, **options: Any
) -> keras.Model:
    pixels = keras.Input((height, width, 3))
    options = {"activation": "relu", "kernel_initializer": _normal(deviation), **options}
    x = layers.Dense(32, name="hidden", **options)(layers.Flatten()(pixels))
    return keras.Model(pixels, head(x))


def test_a_head_near_zero_is_measured_as_it_is(digits: LabelledImages) -> None:
    found = by_name(quick(lesson(digits, model=f"{HERE}:small_head")))["first loss"]
    assert found.passed
    assert float(found.found.split(",")[0]) == pytest.approx(np.log(10), rel=0.01)
    assert "brought near zero" not in found.found


@pytest.mark.parametrize(("uneven", "batch_size"), [(True, 32), (False, 1)])
def test_two_uneven_classes_and_single_pictures_are_no_fault(
    digits: LabelledImages, uneven: bool, batch_size: int
) -> None:
    """Guessing of two classes costs more or less than log 2 where the head leans to the rarer one or the other."""
    if uneven:
        few = np.concatenate(
            [np.flatnonzero(digits.labels == 3)[:140], np.flatnonzero(digits.labels == 8)[:14]]
        )
        labels = (digits.labels[few] == 8).astype(np.int64)
        digits = LabelledImages(digits.images[few], labels, ("3", "8"), "made")
    for seed in range(6):
        quick(lesson(digits, seed=seed, batch_size=batch_size)).require()


def test_targets_that_are_not_the_labels_are_found_near_zero(digits: LabelledImages) -> None:
    """A loss that takes logits for probabilities: -log of a clipped number, however small they are."""
    wrong = lesson(digits, model=f"{HERE}:small_head")
    compiled = wrong.compiled

    def with_probabilities() -> keras.Model:
        model = compiled()
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=False), jit_compile=False)
        return model

    wrong.compiled = with_probabilities  # type: ignore[method-assign]
    assert by_name(quick(wrong))["first loss"].passed is False


def test_label_smoothing_does_not_change_what_guessing_costs(digits: LabelledImages) -> None:
    changed = lesson(digits, model=f"{HERE}:small_head", label_smoothing=0.2)
    assert by_name(quick(changed))["first loss"].passed


@pytest.mark.parametrize(
    ("network", "check", "words"),
    [
        ("softmax", "first loss", "ends in a softmax"),
        ("large_head", "first loss", "initial weights"),
        ("dead", "layers", "'hidden': 100 % dead units"),
        ("dead_inside", "layers", "'hidden': 100 % dead units"),
        ("exploding", "layers", "'hidden': exploding"),
        ("vanishing", "layers", "'hidden': vanishing"),
        ("saturated", "layers", "saturated"),
    ],
)
def test_a_broken_network_fails_with_its_cause(
    network: str, check: str, words: str, digits: LabelledImages
) -> None:
    sanity = quick(lesson(digits, model=f"{HERE}:{network}"))
    failed = [finding for finding in sanity.findings if finding.passed is False]
    assert [finding.check for finding in failed] == [check]
    assert words in failed[0].cause
    with pytest.raises(CheckFailed, match=f"Sanity, {check}"):
        sanity.require()


def test_targets_that_say_two_classes_fail(digits: LabelledImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """As labels of several hot entries, brought to a sum of one, would: half the batch says nothing."""
    broken = lesson(digits, model=f"{HERE}:small_head")
    before = broken.batches
    monkeypatch.setattr(broken, "batches", lambda epoch, done: ((x, y * 2) for x, y in before(epoch, done)))
    found = by_name(quick(broken))["first loss"]
    assert found.passed is None  # Not shares of one: what guessing costs is unknown, and said so.
    assert "not known" in found.found


def test_what_cannot_see_cannot_learn_by_heart(digits: LabelledImages) -> None:
    found = by_name(full(lesson(digits, model=f"{HERE}:blind")))["overfitting"]
    assert found.passed is False
    assert "throws away what tells the pictures apart" in found.cause


def test_equal_pictures_with_different_labels_are_found(digits: LabelledImages) -> None:
    same = replace(digits, images=digits.images[np.arange(len(digits)) % 10])
    found = by_name(full(ClassifierLesson(replace(RECIPE, shift_px=0), same, None)))["overfitting"]
    assert found.passed is False
    assert "Two equal pictures bear different labels" in found.cause


def test_nan_in_a_batch_is_counted(digits: LabelledImages, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = lesson(digits)
    inputs, targets = next(broken.batches(0, 0))
    inputs[3, 0, 0, 0] = np.nan
    inputs[5] = np.inf
    monkeypatch.setattr(broken, "batches", lambda epoch, done: (batch for batch in [(inputs, targets)]))
    with pytest.raises(CheckFailed, match="2 of 32 pictures hold NaN or infinity"):
        quick(broken).require()


def test_pictures_of_one_colour_are_told(digits: LabelledImages) -> None:
    grey = replace(digits, images=np.full_like(digits.images, 128))
    with pytest.raises(CheckFailed, match="All pixels are equal"):
        quick(ClassifierLesson(RECIPE, grey, None)).require()


def test_the_checks_leave_the_training_as_it_was(digits: LabelledImages) -> None:
    keras.utils.set_random_seed(3)
    before = weights_sha256(lesson(digits).compiled())
    quick(lesson(digits))
    keras.utils.set_random_seed(3)
    assert weights_sha256(lesson(digits).compiled()) == before
    assert keras.config.floatx() == "float32"


# -- the gradient ---------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("test")
class Straight(layers.Layer):
    """Its gradient is cut: what comes after it learns, what comes before it does not."""

    def call(self, inputs: Any) -> Any:
        return ops.multiply(ops.stop_gradient(inputs), 1.0)


def cut(height: int, width: int, classes: int) -> keras.Model:
    pixels = keras.Input((height, width, 3))
    x = layers.Dense(8, name="before")(layers.Flatten()(pixels))
    return keras.Model(pixels, layers.Dense(classes)(Straight()(x)))


def test_a_gradient_that_is_cut_off_is_found(digits: LabelledImages) -> None:
    found = by_name(full(lesson(digits, model=f"{HERE}:cut")))["gradient"]
    assert found.passed is False
    assert "before/" in found.cause


@pytest.mark.parametrize("choices", [{}, {"norm": "batch"}, {"activation": "maxout"}, {"dropout": 0.5}])
def test_the_gradient_of_each_choice_is_the_losses(digits: LabelledImages, choices: dict[str, Any]) -> None:
    chosen = lesson(digits, **choices)
    inputs, labels = digits.images[:6].astype(np.float32) / 128 - 1, np.eye(10)[digits.labels[:6]]
    keras.utils.set_random_seed(0)
    gradients = gradient_error(chosen.compiled, chosen.compiled().loss, inputs, labels)
    assert gradients is not None
    assert gradients.error < 1e-4
    assert gradients.n >= 15
    assert keras.config.floatx() == "float32"
    assert lenet5(32, 32, 10).layers[1].kernel.dtype == "float32"


def test_the_activations_are_those_of_the_layers() -> None:
    model = lenet5(32, 32, 10)
    pixels = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    values = np.asarray(keras.Model(model.input, model.get_layer("conv2").output)(pixels))
    row = next(row for row in activations(model, pixels) if row.layer == "conv2")
    assert (row.mean, row.spread) == pytest.approx((values.mean(), values.std()), rel=1e-5)
    assert row.dead == pytest.approx((values.max(axis=(0, 1, 2)) == 0).mean())


# -- the command ----------------------------------------------------------------------------------


def test_the_command_prints_tables_and_ends_with_0(command: Callable[..., Any]) -> None:
    ended = command("sanity", "lenet_digits")
    assert (ended.code, ended.err) == (0, "")
    for word in ("conv1", "pixels", "first loss", "layers", "gradient", "overfitting"):
        assert word in ended.out
    assert "BAD" not in ended.out


def test_the_command_ends_with_1_and_names_the_cause(command: Callable[..., Any]) -> None:
    ended = command("sanity", "lenet_digits", f"model={HERE}:dead", "--quick")
    assert ended.code == 1
    assert "BAD" in ended.out
    assert "dead units" in ended.err


def test_a_training_begins_with_the_quick_checks(tmp_path: Path, command: Callable[..., Any]) -> None:
    args = ("train", "lenet_digits", f"model={HERE}:dead", "epochs=1", "--out", tmp_path)
    ended = command(*args)
    assert ended.code == 1
    assert "Sanity, layers" in ended.err
    assert not list(tmp_path.iterdir())
    assert command(*args, "--no-sanity").code == 0


@pytest.mark.parametrize(
    ("args", "words"), [(("none",), "No recipe"), (("lenet_digits", "epoch=3"), "Did you mean epochs")]
)
def test_a_wrong_call_ends_with_2(args: tuple[str, ...], words: str, command: Callable[..., Any]) -> None:
    ended = command("sanity", *args)
    assert ended.code == 2
    assert words in ended.err


def test_a_batch_that_does_not_fit_is_told_before_it_is_tried(
    digits: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.memory.available_bytes", lambda: 4_000_000)
    with pytest.raises(InputError, match=r"a batch of 1024 pictures take at least .* Try batch_size=\d+\."):
        quick(lesson(digits, batch_size=1024))
