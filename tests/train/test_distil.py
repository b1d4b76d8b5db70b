"""A teacher's answers: of the very views the pupil sees, computed once, and which teachers are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from edge.bundle import InputSpec
from edge.errors import InputError
from edge.pixels import normalise
from train.augment import View, viewed
from train.card import Card, write_card
from train.classifier import ClassifierLesson
from train.data import LabelledImages
from train.distil import Teacher, soft_targets, softened
from train.recipe import Recipe

SIZE, CLASSES, N = 6, 3, 40


@pytest.fixture
def data() -> LabelledImages:
    images = np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), np.uint8)
    return LabelledImages(images, np.arange(N) % CLASSES, ("a", "b", "c"), "made")


def network(classes: int = CLASSES) -> keras.Model:
    """Position matters to it, so that every view has another answer."""
    pixels = keras.Input((SIZE, SIZE, 3))
    return keras.Model(pixels, keras.layers.Dense(classes)(keras.layers.Flatten()(pixels)))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "teacher.keras"
    network().save(path)
    size = {"height": SIZE, "width": SIZE, "batch_size": 16, "epochs": 9}
    views = {"flip": True, "shift_px": 2, "jpeg": 0.5}
    return Recipe(name="pupil", model="m:f", data="digits", teacher=str(path), **size, **views)  # type: ignore[arg-type]


def test_the_teacher_answers_for_the_view_before_compression(data: LabelledImages, recipe: Recipe) -> None:
    teacher, model = Teacher(data, recipe), keras.saving.load_model(recipe.teacher)
    for epoch in range(recipe.epochs):
        for view, _ in viewed(data, recipe, epoch):
            expected = model.predict_on_batch(normalise(view.of(data.images)))
            assert np.abs(teacher.logits(view) - expected).max() < 0.01


def test_of_an_image_with_a_patch_the_teacher_is_asked_as_it_is(data: LabelledImages, recipe: Recipe) -> None:
    """Not of the nearest shift, nor from what was said of the image without the patch."""
    teacher, patched = Teacher(data, replace(recipe, teacher_step=4)), 0
    model = keras.saving.load_model(recipe.teacher)
    for epoch in range(recipe.epochs):
        for view, _ in viewed(data, replace(recipe, patch=0.5), epoch):
            expected = model.predict_on_batch(normalise(view.of(data.images)))
            near = np.abs(teacher.logits(view) - expected).max(axis=1) < 0.01
            assert near[view.patched].all()
            patched += int(view.patched.sum())
    assert patched > N


@pytest.mark.parametrize(
    ("step", "nearest"),
    [(2, [-4, -2, -2, 0, 2, 2, 4]), (3, [-3, -3, 0, 0, 0, 3, 3]), (7, [0, 0, 0, 0, 0, 0, 0])],
)
def test_a_teacher_is_asked_of_the_nearest_shift(
    data: LabelledImages, recipe: Recipe, step: int, nearest: list[int]
) -> None:
    teacher = Teacher(data, replace(recipe, shift_px=3, teacher_step=step))
    chosen, mirror = np.arange(7), np.zeros(7, np.bool_)
    rows, columns = np.arange(-3, 4), np.arange(3, -4, -1)
    said = teacher.logits(View(chosen, mirror, np.array([rows, columns])))
    seen = View(chosen, mirror, np.array([nearest, nearest[::-1]])).of(data.images)
    assert (
        np.abs(said - keras.saving.load_model(recipe.teacher).predict_on_batch(normalise(seen))).max() < 0.01
    )


def test_each_view_is_computed_once(
    data: LabelledImages, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Teacher(data, recipe)
    asked, predict = [], teacher._model.predict_on_batch
    monkeypatch.setattr(teacher._model, "predict_on_batch", lambda x: (asked.append(len(x)), predict(x))[1])
    view = View(np.array([3, 4, 5]), np.array([True, False, True]), np.array([[0, 2, -2], [0, 0, 2]]))
    other = View(np.array([3, 4, 5]), np.array([True, False, True]), np.array([[0, 2, -2], [2, 0, 2]]))
    teacher.logits(view)
    teacher.logits(view)
    teacher.logits(other)
    assert asked == [3, 1]


def test_a_teacher_computes_in_its_own_precision(data: LabelledImages, recipe: Recipe) -> None:
    teacher = Teacher(data, replace(recipe, teacher_precision="mixed_bfloat16"))
    assert [layer.compute_dtype for layer in teacher._model.layers[1:]] == ["bfloat16", "float32"]


def test_soft_targets_mix_label_and_teacher(recipe: Recipe) -> None:
    mixed = replace(recipe, teacher_share=0.75, temperature=2.0)
    targets = soft_targets(np.float32([[1, 0]]), np.float32([[0, 2 * np.log(3)]]), mixed)
    assert targets == pytest.approx(np.array([[0.75 * 0.25 + 0.25, 0.75 * 0.75]]))


def test_a_lesson_hands_the_teachers_targets_out(data: LabelledImages, recipe: Recipe) -> None:
    alone = replace(recipe, teacher_share=1.0, jpeg=0.0)
    lesson = ClassifierLesson(alone, data, None)
    images, targets = next(lesson.batches(0, 0))
    logits = keras.saving.load_model(recipe.teacher).predict_on_batch(images)
    assert np.abs(targets - np.asarray(keras.ops.softmax(logits))).max() < 0.01


def test_more_views_than_can_be_kept_are_refused(data: LabelledImages, recipe: Recipe) -> None:
    with pytest.raises(InputError, match=r"at most 64 views .* makes 162\. Raise teacher_step"):
        Teacher(data, replace(recipe, shift_px=4))


def test_a_teacher_that_is_not_there_is_told_with_both_ways_out(data: LabelledImages, recipe: Recipe) -> None:
    with pytest.raises(InputError, match=r"no teacher gone\.keras, .* teacher=FILE, or .*: teacher=$"):
        Teacher(data, replace(recipe, teacher="gone.keras"))


def test_a_teacher_of_other_classes_is_refused(data: LabelledImages, recipe: Recipe, tmp_path: Path) -> None:
    network(classes=5).save(tmp_path / "five.keras")
    with pytest.raises(InputError, match=r"\(None, 5\); the pupil takes .* \(None, 3\)"):
        Teacher(data, replace(recipe, teacher=str(tmp_path / "five.keras")))


def test_a_teacher_whose_classes_stand_in_another_order_is_refused(
    data: LabelledImages, recipe: Recipe
) -> None:
    card = Card(
        name="teacher", labels=("a", "c", "b"), input=InputSpec(height=SIZE, width=SIZE, resize="crop")
    )
    write_card(card, Path(recipe.teacher))
    with pytest.raises(InputError, match="disagree on class 1: 'b' against 'c'"):
        Teacher(data, recipe)


def test_a_very_sure_teacher_gives_numbers() -> None:
    assert softened(np.float32([[900, 0, -900]]), 1.0).tolist() == [[1, 0, 0]]
