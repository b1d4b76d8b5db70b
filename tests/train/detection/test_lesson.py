"""Training a detector from the outside: files, the card, resuming, growing, what is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from edge.errors import InputError
from train.card import read_card, weights_sha256
from train.detection.data import load_boxed
from train.detection.lesson import DetectorLesson, _Pictures, grow
from train.detection.loss import FACE, IGNORED
from train.detection.recipe import DetectorRecipe
from train.detection.unlabelled import read_places, with_ignored
from train.fit import Trained, fit
from train.models import face as models
from train.models.face import FACE_PLUS, Widths, _detector, face, face_plus
from train.weights import load_keras

TINY = DetectorRecipe(
    "tiny",
    "train.models.face:tiny",
    epochs=2,
    size=64,
    height=64,
    width=64,
    batch_size=4,
    learning_rate=0.01,
    warmup_epochs=0,
    mosaic=0.4,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector of the same form with few channels."""
    widths = Widths(stem=(8, 16), stage=16, pairs=(1, 1, 1), inner=(16, 16, 8), fine=8)
    monkeypatch.setattr("train.models.face.tiny", lambda h, w: _detector(h, w, widths), raising=False)


def test_pictures_are_kept_in_half_of_the_free_memory_at_most(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_boxed(folder, "train")
    size = _Pictures(data)[0].pixels.nbytes
    monkeypatch.setattr("train.detection.lesson.available_bytes", lambda: 2 * size)
    kept = _Pictures(data)
    first = kept[0]
    assert kept[0] is first
    assert kept[1] is not kept[1]


@pytest.fixture
def folder(coco: Callable[..., Path]) -> Path:
    rows = [
        {"split": split, "faces": [(12, 8, 30, 40)]} for split in ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    ]
    return coco(rows)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_broken_picture_is_found_before_the_training(folder: Path, split: str) -> None:
    rows = json.loads((folder / "annotations.json").read_text())["images"]
    (folder / "images" / [row for row in rows if row["split"] == split][-1]["file_name"]).write_bytes(
        b"broken"
    )
    with pytest.raises(InputError, match="not an image that can be decoded"):
        DetectorLesson.of(TINY, str(folder), folder)


@pytest.mark.parametrize("without", ["train", "val", "test"])
def test_a_split_without_a_face_is_refused(without: str, coco: Callable[..., Path]) -> None:
    faces = {split: [] if split == without else [(12, 8, 30, 40)] for split in ("train", "val", "test")}
    folder = coco([{"split": split, "faces": found} for split, found in faces.items()])
    with pytest.raises(InputError, match=rf"coco/{without} has no face that counts"):
        DetectorLesson.of(TINY, str(folder), folder)


class Watcher:
    """Notes the epochs; raises at step `stop`, as a kill would."""

    def __init__(self, stop: int | None = None) -> None:
        self.epochs: list[dict[str, float]] = []
        self._stop = stop

    def step_done(self, step: int, metrics: dict[str, float]) -> None:
        if step == self._stop:
            raise KeyboardInterrupt

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        self.epochs.append(metrics)


def trained(folder: Path, out: Path, watcher: Watcher | None = None, **options: Any) -> Trained:
    recipe = options.pop("recipe", TINY)
    return fit(DetectorLesson(recipe, str(folder)), out / "c.keras", watcher or Watcher(), **options)


@pytest.mark.parametrize("recipe", [TINY, replace(TINY, background_from="digits", background=0.5)])
def test_a_resumed_training_gives_the_same_weights(
    recipe: DetectorRecipe, folder: Path, tmp_path: Path, eager: None
) -> None:
    unbroken = trained(folder, tmp_path, recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, tmp_path, Watcher(stop=3), recipe=recipe, checkpoint_interval_s=0)
    resumed = trained(folder, tmp_path, recipe=recipe, resume=True)
    assert weights_sha256(resumed.model) == weights_sha256(unbroken.model)
    other = trained(folder, tmp_path, recipe=replace(TINY, seed=1))
    assert weights_sha256(other.model) != weights_sha256(unbroken.model)


def test_the_command_writes_model_card_and_samples(
    folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    recipe = tmp_path / "tiny.py"
    recipe.write_text(
        "from train.detection.recipe import DetectorRecipe\n"
        "RECIPE = DetectorRecipe('tiny', 'train.models.face:tiny', epochs=1, size=64, height=64, width=64, "
        "batch_size=4, terms='for tests alone')\n"
    )
    ended = command("train", recipe, "validate_every=3", "--data", folder, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "test AP50" in ended.out
    assert "epoch 1/1  loss" in ended.err
    assert "validation AP50" in ended.err  # The last epoch is measured in any case.
    card = read_card(tmp_path / "out" / "tiny.keras")
    assert (card.task, card.labels, card.terms) == ("faces", ("face",), "for tests alone")
    assert card.input.resize == "letterbox"
    assert (card.data.source, card.data.n) == ("coco/train", 8)  # type: ignore[union-attr]
    assert {"test_ap50", "test_n", "test_faces", "validation_ap50", "train_loss"} <= card.metrics.keys()
    model = load_keras(tmp_path / "out" / "tiny.keras")
    assert model.output_names == [f"{kind}_{stride}" for stride in (8, 16, 32) for kind in ("score", "box")]
    assert not [layer for layer in model.layers if "Fused" in type(layer).__name__]
    assert cv2.imread(str(tmp_path / "out" / "tiny.samples.jpg")).shape == (768, 1024, 3)


def test_a_detector_learns(folder: Path, tmp_path: Path) -> None:
    """White rectangles on black, eight pictures: after 120 steps those of other pictures are found."""
    watcher = Watcher()
    recipe = replace(TINY, epochs=60, validate_every=60, rotate=0.0, dark=0.0, jpeg=0.0, mosaic=0.0)
    trained(folder, tmp_path, watcher, recipe=recipe)
    assert watcher.epochs[-1]["loss"] < watcher.epochs[0]["loss"]
    assert watcher.epochs[-1]["validation_ap50"] > 0.5


def test_places_that_the_annotations_leave_out_are_ignored(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "places.json"
    path.write_text(json.dumps({"3": [[1, 2, 30, 40, 0.9]]}))
    data = with_ignored(load_boxed(folder, "train"), read_places(path))
    third = next(image for image in data.images if image.image_id == 3)
    assert third.ignored.tolist() == [False, True]
    assert third.boxes[1].tolist() == [1, 2, 30, 40]
    assert data.faces == 8
    assert data.notes[-1] == "1 unlabelled faces ignored"
    lesson = DetectorLesson(replace(TINY, ignored_from=str(path), mosaic=0.0), str(folder))
    kinds = {kind for epoch in range(4) for _, rows in lesson.batches(epoch, 0) for kind in rows[:, 4]}
    assert kinds == {FACE, IGNORED, 0}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"3": 5}', '{"x": []}', '{"3": [["a", 1, 2, 3]]}', '{"3": [[1]]}']
)
def test_a_file_of_places_of_another_form_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "places.json"
    path.write_text(content)
    with pytest.raises(InputError, match="holds no places"):
        read_places(path)


@pytest.mark.parametrize(
    "larger", [FACE_PLUS, replace(models.FACE, pairs=(2, 1, 3))], ids=["wider", "deeper"]
)
def test_a_grown_network_computes_what_the_smaller_one_did(larger: Widths) -> None:
    small, large = face(64, 64), _detector(64, 64, larger)
    rng = np.random.default_rng(0)
    small.set_weights([weight + rng.normal(0, 0.1, weight.shape) ** 2 for weight in small.get_weights()])
    grow(large, small)
    pixels = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    for ours, theirs in zip(large(pixels), small(pixels), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_growing_from_a_stranger_is_refused() -> None:
    stranger = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="elsewhere")])
    with pytest.raises(InputError, match="no layer of the same name"):
        grow(face(64, 64), stranger)
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="stem1")])
    with pytest.raises(
        InputError, match=r"'stem1' of sequential.* of 3x3x3x2, 2, .* of face, with 3x3x3x16\."
    ):
        grow(face(64, 64), other)
    with pytest.raises(InputError, match="'down8' of face"):
        grow(face(64, 64), face_plus(64, 64))


def test_some_crops_are_made_of_pictures_without_faces(folder: Path) -> None:
    """Digits are white on black, as the faces of these pictures are, but none of them is a target."""
    recipe = replace(TINY, background_from="digits", background=0.5, mosaic=0.0, rotate=0.0)
    lesson = DetectorLesson(recipe, str(folder))
    faces_only = DetectorLesson(replace(recipe, background_from=""), str(folder))
    counts = [
        sum(int((targets[:, 4] == FACE).sum()) for _ in range(20) for _, targets in one.batches(0, 0))
        for one in (lesson, faces_only)
    ]
    assert counts[0] < counts[1]
    assert any("digits" in note for note in lesson.about.notes)


def test_a_data_set_without_faces_that_is_missing_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match="no-such-folder"):
        DetectorLesson(replace(TINY, background_from="no-such-folder"), str(folder))
