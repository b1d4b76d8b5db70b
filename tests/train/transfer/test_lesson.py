"""What a strategy trains and what it leaves alone, on a small network with batch normalisation and a block."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edge.pixels import normalise
from train.data import LabelledImages
from train.fit import Trained, fit
from train.models.lenet import lenet5
from train.recipe import Recipe
from train.transfer import lesson as lessons
from train.transfer.lesson import TransferLesson
from train.transfer.recipe import TransferRecipe, transfer_recipe
from train.transfer.source import Source, evidence, parts, trainable_copy
from train.transfer.stages import cuts
from train.transfer.strategy import STRATEGIES

SIZE, N = 12, 60
CLASSES = ("dark", "bright", "striped")
RECIPE = Recipe(name="t", model="m:f", data="folder", epochs=1, height=SIZE, width=SIZE, batch_size=20)

FROZEN = {
    "linear": ("stem", "stem_norm", "half", "half_norm", "inside"),
    "earlier": ("stem", "stem_norm"),
    "finetune-few": ("stem", "stem_norm", "half_norm"),
    "finetune-more": ("stem_norm", "half_norm"),
}
TRAINED = {
    "linear": (),
    "earlier": (),
    "finetune-few": ("half", "inside"),
    "finetune-more": ("stem", "half", "inside"),
}


def network(classes: int = 5) -> keras.Model:
    keras.utils.set_random_seed(1)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(pixels)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.Conv2D(6, 3, 2, padding="same", use_bias=False, name="half")(x)
    x = layers.ReLU(name="half_relu")(layers.BatchNormalization(name="half_norm")(x))
    x = layers.Add(name="joined")([x, layers.Conv2D(6, 3, padding="same", name="inside")(x)])
    x = layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="small")
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def source() -> Source:
    model = network()
    return Source(Path("small.keras"), model, None, cuts(model))


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    """Three classes that brightness and stripes tell apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    images = rng.integers(0, 60, (N, SIZE, SIZE, 3))
    images[labels == 1] += 150
    images[labels == 2, ::2] += 150
    return LabelledImages(images.astype(np.uint8), labels, CLASSES, "made")


class Quiet:
    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        if step == self.last:
            raise KeyboardInterrupt

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        """Nothing to tell."""


def taught(source: Source, data: LabelledImages, strategy: str, **values: Any) -> TransferLesson:
    recipe = transfer_recipe(replace(RECIPE, **values), set(values), len(data), strategy)
    return TransferLesson(recipe, parts(source, strategy, len(CLASSES)), data, data)


def trained(lesson: TransferLesson, folder: Path, **how: Any) -> Trained:
    return fit(lesson, folder / "checkpoint.keras", Quiet(), **how)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_frozen_stays_bit_for_bit_and_the_rest_learns(
    strategy: str, source: Source, data: LabelledImages, tmp_path: Path
) -> None:
    done = trained(taught(source, data, strategy, epochs=30, learning_rate=0.02), tmp_path)
    assert done.metrics["validation_top1"] > 90
    model = done.model
    assert model.output_shape == (None, len(CLASSES))
    for name in FROZEN[strategy]:
        for before, after in zip(
            source.model.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(after, before)
    for name in TRAINED[strategy]:
        before, after = (m.get_layer(name).get_weights() for m in (source.model, model))
        assert (after[0] != before[0]).any(), name
    assert {layer.name for layer in model.layers if layer.weights} == {
        *FROZEN[strategy], *TRAINED[strategy], "logits"
    }  # fmt: skip


def nested(inside: bool) -> keras.Model:
    """A frozen backbone as one layer of a network, as Keras's guide to transfer learning makes it."""
    flat = network()
    last = flat.get_layer("average" if inside else "joined").output
    backbone = keras.Model(flat.inputs[0], last, name="backbone")
    backbone.trainable = False
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = backbone(pixels)
    x = x if inside else layers.GlobalAveragePooling2D(name="outer_average")(x)
    return keras.Model(pixels, layers.Dense(5, name="logits")(x), name="nested")


@pytest.mark.parametrize("inside", [False, True], ids=["pooled outside", "pooled inside"])
@pytest.mark.parametrize("strategy", ["linear", "finetune-more"])
def test_a_frozen_backbone_inside_is_treated_like_any_layers(inside: bool, strategy: str) -> None:
    model = nested(inside)
    made = parts(Source(Path("nested.keras"), model, None, cuts(model)), strategy, 3)
    copy = trainable_copy(made.trained, l2=0.0)
    names = {weight.path.split("/")[-2] for weight in copy.trainable_weights}
    assert names == {"logits"} | ({"stem", "half", "inside"} if strategy == "finetune-more" else set())
    images = np.random.default_rng(3).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    seen = made.frozen(images) if made.frozen is not None else images
    np.testing.assert_allclose(copy(seen), made.whole(images), rtol=1e-5, atol=1e-6)


def test_a_bare_operation_is_copied_as_it_is() -> None:
    pixels = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(pixels) * 2.0 + 1.0)
    model = keras.Model(pixels, layers.Dense(3)(x))
    images = np.random.default_rng(3).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(trainable_copy(model, l2=0.0)(images), model(images), rtol=1e-5, atol=1e-6)


def test_the_finished_network_is_a_plain_one(source: Source, data: LabelledImages) -> None:
    """Trained on elsewhere, its batch normalisation would learn again."""
    lesson = taught(source, data, "finetune-more")
    part = lesson.compiled()
    assert not part.get_layer("half_norm").trainable
    model = lesson.bare(part)
    assert all(layer.trainable for layer in model.layers)
    before = model.get_layer("half_norm").get_weights()
    model(normalise(data.images), training=True)
    assert (model.get_layer("half_norm").get_weights()[2] != before[2]).any()


@pytest.mark.parametrize(
    ("strategy", "values"),
    [("linear", {}), ("finetune-few", {"flip": True, "shift_px": 1})],
)
def test_a_resumed_training_ends_with_the_same_weights(
    strategy: str, values: dict[str, Any], source: Source, data: LabelledImages, tmp_path: Path
) -> None:
    values = {"epochs": 2, "learning_rate": 0.01, **values}
    whole = trained(taught(source, data, strategy, **values), tmp_path).model
    checkpoint = tmp_path / "part.keras"
    with pytest.raises(KeyboardInterrupt):
        fit(taught(source, data, strategy, **values), checkpoint, Quiet(last=4), checkpoint_interval_s=0)
    resumed = fit(taught(source, data, strategy, **values), checkpoint, Quiet(), resume=True).model
    for wanted, found in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_frozen_part_sees_unmoved_pictures_once(
    source: Source, data: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    outputs = lessons.keras_outputs
    monkeypatch.setattr(
        lessons, "keras_outputs", lambda model, images: (seen.append(len(images)), outputs(model, images))[1]
    )
    lesson = taught(source, data, "earlier", epochs=3)
    cached = [inputs for epoch in range(3) for inputs, _ in lesson.batches(epoch, 0)]
    assert seen == [N, N]  # The other time for mean and standard deviation.

    monkeypatch.setattr(lessons, "available_bytes", lambda: 0)
    scarce = taught(source, data, "earlier", epochs=3)
    for kept, (anew, _) in zip(
        cached, (b for epoch in range(3) for b in scarce.batches(epoch, 0)), strict=True
    ):
        np.testing.assert_allclose(kept, anew, atol=1e-4)


def test_the_linear_classifier_reads_standardised_features_and_the_file_raw_ones(
    source: Source, data: LabelledImages, tmp_path: Path
) -> None:
    lesson = taught(source, data, "linear")
    rows = np.concatenate([inputs for inputs, _ in lesson.batches(0, 0)])
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-3)
    keras.utils.set_random_seed(0)
    part = lesson.compiled()
    rng = np.random.default_rng(3)
    part.get_layer("logits").set_weights([rng.normal(0, 1, (6, 3)), rng.normal(0, 1, 3)])
    (inputs, _), *_ = lesson.batches(0, 0)
    (images, *_) = (view.of(data.images) for view, _ in lessons_views(lesson, data))
    np.testing.assert_allclose(lesson.bare(part)(normalise(images)), part(inputs), atol=1e-3)


def lessons_views(lesson: TransferLesson, data: LabelledImages) -> Any:
    from train.augment import viewed

    return viewed(data, lesson.recipe, 0)


def test_lenet_is_cut_between_its_convolutions_and_its_dense_layers() -> None:
    model = lenet5(32, 32, 7)
    found = parts(Source(Path("lenet.keras"), model, None, cuts(model)), "earlier", 10)
    assert found.whole.output_shape == (None, 10)
    names = ["conv1", "pool1", "conv2", "transfer_pool", "transfer_flatten", "logits"]
    assert [layer.name for layer in found.whole.layers[1:]] == names


def test_a_strategy_brings_its_course_and_the_call_comes_first() -> None:
    recipe = replace(
        RECIPE,
        flip=True,
        noise=0.5,
        precision="mixed_bfloat16",
        activation="elu",
        teacher="t.keras",
        epochs=7,
        learning_rate=0.5,
    )
    linear = transfer_recipe(recipe, set(), 200, "linear")
    assert isinstance(linear, TransferRecipe)
    assert (linear.flip, linear.activation, linear.teacher, linear.optimiser) == (False, "own", "", "adam")
    assert (linear.noise, linear.precision) == (0.0, "float32")
    assert linear.epochs == 30  # 10 batches an epoch, 300 steps.
    assert transfer_recipe(recipe, {"epochs", "flip", "learning_rate"}, 200, "linear").as_dict() | {
        "epochs": 7, "flip": True, "learning_rate": 0.5
    } == transfer_recipe(recipe, {"epochs", "flip", "learning_rate"}, 200, "linear").as_dict()  # fmt: skip
    assert transfer_recipe(recipe, set(), 200, "finetune-few").flip


def test_the_evidence_counts_the_smallest_class(source: Source, data: LabelledImages) -> None:
    uneven = data.take(np.setdiff1d(np.arange(N), np.arange(0, 30, 3)), "")
    seen = evidence(source, uneven)
    assert (seen.per_class, seen.n) == (10, 50)
    assert 33 < seen.earlier <= 100
    assert 33 < seen.last <= 100
