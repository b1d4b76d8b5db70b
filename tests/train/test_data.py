"""Folders of pictures and the digits: what train.data reads of them, and every wrong one it must refuse."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.card import read_card
from train.classifier import training_split
from train.data import LabelledImages, load, pick
from train.recipe import Recipe

RECIPE = Recipe("any", "m:f", "digits", 1)


def write_pictures(folder: Path, count: int, grey: int = 0, size: tuple[int, int] = (40, 50)) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03}.png"), np.full((*size, 3), grey, np.uint8))


def test_class_folders_are_split_by_name_and_brought_to_size(tmp_path: Path) -> None:
    write_pictures(tmp_path / "dark", 30, grey=10)
    write_pictures(tmp_path / "light", 30, grey=200, size=(20, 30))
    (tmp_path / "light" / "notes.txt").write_text("not a picture")
    (tmp_path / "light" / "move.gif").write_text("a picture, of a kind that is not read")
    (tmp_path / ".cache").mkdir()
    train, test = (load(str(tmp_path), split, 16, 24) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("dark", "light")
    assert train.images.shape[1:] == (16, 24, 3)
    assert len(train) + len(test) == 60
    assert train.notes == ("left out 1 file named *.gif", "left out 1 file named *.txt")
    assert 4 <= len(test) <= 20  # A fifth of 60 by hash.
    assert all(
        (image == (10, 200)[label]).all() for image, label in zip(test.images, test.labels, strict=True)
    )


def test_another_picture_moves_none_between_the_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 20)
    write_pictures(tmp_path / "b", 20)
    before = len(load(str(tmp_path), "test"))
    (tmp_path / "a" / "000.png").rename(tmp_path / "a" / "zzz.png")
    assert abs(len(load(str(tmp_path), "test")) - before) <= 1


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Test"), ("train",)])
def test_a_folder_for_training_without_one_named_test_is_no_class(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for name in names:
        write_pictures(tmp_path / name / "a", 3)
        write_pictures(tmp_path / name / "b", 3)
    with pytest.raises(InputError, match="Rename the folder for testing to test"):
        load(str(tmp_path), "test")


def test_an_image_keeps_its_name_or_place_however_few_are_taken(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / "train" / name, 3)
        write_pictures(tmp_path / "test" / name, 3)
    (tmp_path / "test" / "a" / "001.png").write_text("broken")
    files = load(str(tmp_path), "test", skip_corrupt=True)
    assert [files.name(index) for index in (0, 1, 4)] == ["a/000.png", "a/002.png", "b/002.png"]
    assert files.take(np.array([3, 1]), "").name(1) == "a/002.png"
    digits = load("digits", "test")
    assert digits.take(np.array([7, 5]), "").take(np.array([False, True]), "").name(0) == "number 5"


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """Of pictures they do not matter; a class's becomes a label, which no card could hold."""
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 20)
    os.rename(tmp_path / "a" / "000.png", os.fsencode(tmp_path / "a") + b"/\xff\xfe.png")
    assert sum(len(load(str(tmp_path), split)) for split in ("train", "test")) == 40
    os.rename(tmp_path / "b", os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(InputError, match=r"'\\udcff' .* is not UTF-8"):
        load(str(tmp_path), "test")


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            write_pictures(tmp_path / split / name, count)
    assert [len(load(str(tmp_path), split)) for split in ("train", "test")] == [6, 4]


def test_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    write_pictures(tmp_path / "test" / "a", 1)
    write_pictures(tmp_path / "test" / "b", 1)
    write_pictures(tmp_path / "train" / "a", 1)
    write_pictures(tmp_path / "train" / "b", 1)
    cv2.imwrite(str(tmp_path / "test" / "a" / "000.png"), np.full((32, 32, 3), (1, 2, 3), np.uint8))
    assert load(str(tmp_path), "test").images[0, 0, 0].tolist() == [3, 2, 1]


def wrong_folders(tmp_path: Path) -> dict[str, Path]:
    """By the words the message must hold: a folder that is none of the three."""
    empty, one, no_pictures, damaged, uneven = (tmp_path / name for name in "eondu")
    empty.mkdir()
    write_pictures(one / "only", 10)
    for name in ("a", "b"):
        (no_pictures / name).mkdir(parents=True)
        write_pictures(damaged / name, 10)
    (damaged / "b" / "000.png").write_bytes(b"this is no picture")
    (damaged / "b" / "001.png").write_bytes(b"")
    for split, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "c")):
        write_pictures(uneven / split / name, 2)
    file = tmp_path / "file"
    file.write_text("text")
    return {
        "No data folder": tmp_path / "missing",
        "No data folder ": file,
        "0 class folders": empty,
        "1 class folders": one,
        "2 class folders and 0 images": no_pictures,
        "not an image": damaged,
        "differ: b, c": uneven,
    }


WRONG = (
    "No data folder",
    "No data folder ",
    "0 class folders",
    "1 class folders",
    "2 class folders and 0 images",
    "not an image",
    "differ: b, c",
)


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_data_folder_ends_the_command_with_2(
    tmp_path: Path, command: Callable[..., Any], words: str
) -> None:
    folder = wrong_folders(tmp_path)[words]
    ended = command("train", "lenet_digits", "--data", folder, "--out", tmp_path / "out")
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def with_corrupt(folder: Path, count: int) -> Path:
    """Two classes of ten pictures, `count` of each damaged."""
    for name in ("a", "b"):
        write_pictures(folder / name, 10)
        for index in range(count):
            (folder / name / f"{index:03}.png").write_bytes(b"this is no picture")
    return folder


def test_corrupt_pictures_are_counted_and_named(tmp_path: Path) -> None:
    folder = with_corrupt(tmp_path, 5)
    with pytest.raises(
        InputError, match=r"(\d+) of \d+ pictures that cannot be decoded: .*00\d\.png is not"
    ) as told:
        load(str(folder), "train", 32, 32)
    assert "--skip-corrupt" in str(told.value)
    skipped = [load(str(folder), split, 32, 32, skip_corrupt=True) for split in ("train", "test")]
    assert sum(len(images) for images in skipped) == 10
    assert skipped[0].notes[0].startswith("left out ")
    assert skipped[0].take(np.arange(2), "").notes == skipped[0].notes


def test_a_pipe_that_is_named_like_a_picture_does_not_hang(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 3)
    write_pictures(tmp_path / "dog", 3)
    os.mkfifo(tmp_path / "cat" / "z.jpg")
    with pytest.raises(InputError, match=r"1 of \d pictures .*z\.jpg cannot be read: it is no file"):
        load(str(tmp_path), "train")


def test_classes_without_a_picture_are_noted(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path / split / "a", 3)
        (tmp_path / split / "none").mkdir()
    write_pictures(tmp_path / "train" / "z", 3)
    (tmp_path / "test" / "z").mkdir()
    (tmp_path / "test" / "z" / "broken.png").write_bytes(b"no picture")
    assert load(str(tmp_path), "train").notes == ("no image of none, 1 of 3 classes",)
    assert load(str(tmp_path), "test", skip_corrupt=True).notes[1:] == (
        "no image of none, z, 2 of 3 classes",
    )


def test_of_many_corrupt_pictures_the_first_are_named(tmp_path: Path) -> None:
    folder = with_corrupt(tmp_path, 9)
    with pytest.raises(InputError, match=r"remove it … and \d+ more\. `--skip-corrupt` goes on without them"):
        load(str(folder), "train", 32, 32)


def test_a_folder_of_nothing_but_corrupt_pictures_cannot_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of \d+ pictures can be decoded"):
        load(str(with_corrupt(tmp_path, 10)), "train", 32, 32, skip_corrupt=True)


def test_training_goes_on_without_the_corrupt_ones_and_says_so(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    folder = with_corrupt(tmp_path / "data", 5)
    args = ("train", "lenet_digits", "epochs=1", "--data", folder, "--out", tmp_path / "out")
    ended = command(*args)
    assert ended.code == 2
    assert "--skip-corrupt" in ended.err
    ended = command(*args, "--skip-corrupt")
    assert ended.code == 0
    assert "left out" in ended.err
    card = read_card(tmp_path / "out" / "lenet-digits.keras")
    assert card.command == "sightline train lenet_digits epochs=1 --data DIR --skip-corrupt"
    measure = ("evaluate", tmp_path / "out" / "lenet-digits.keras", "--split", "train", "--data", folder)
    assert command(*measure).code == 2
    ended = command(*measure, "--skip-corrupt")
    assert ended.code == 0
    assert "left out" in ended.err


def test_pictures_of_many_sizes_become_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(8):
            picture = np.full((20 + 7 * index, 90 - 9 * index, 3), 100, np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), picture)
    for rule in ("crop", "stretch", "letterbox"):
        images = load(str(tmp_path), "train", 24, 40, rule)
        assert images.images.shape[1:] == (24, 40, 3)


@pytest.mark.parametrize("data", ["digits", "folder"])
def test_pictures_lie_once_in_the_memory_while_they_are_brought_to_size(tmp_path: Path, data: str) -> None:
    for name in ("dark", "light"):
        write_pictures(tmp_path / name, 150)
    tracemalloc.start()
    try:
        images = load(str(tmp_path) if data == "folder" else data, "test", 200, 200).images
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * images.nbytes


@pytest.mark.parametrize("label", [-1, 2, 10**6])
def test_a_label_outside_the_classes_is_refused(label: int) -> None:
    pictures = np.zeros((3, 4, 4, 3), np.uint8)
    with pytest.raises(
        InputError, match=rf"own: 1 of 3 labels are outside 0 to 1, the first is {label} of image 1"
    ):
        LabelledImages(pictures, np.array([0, label, 1]), ("a", "b"), "own")


def test_labels_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="whole numbers as labels, got float64"):
        LabelledImages(np.zeros((1, 4, 4, 3), np.uint8), np.array([np.nan]), ("a", "b"), "own")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_counted(value: float) -> None:
    pictures = np.zeros((3, 4, 4, 3), np.float32)
    pictures[1, 2, 3, 0] = value
    with pytest.raises(InputError, match="own: 1 of 3 images hold NaN or infinity, the first is image 1"):
        LabelledImages(pictures, np.zeros(3, np.int64), ("a", "b"), "own")  # type: ignore[arg-type]


def test_a_class_without_an_image_is_named(tmp_path: Path, command: Callable[..., Any]) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / "data" / name, 10)
    (tmp_path / "data" / "nothing").mkdir()
    ended = command("train", "lenet_digits", "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "no image of nothing, 1 of 3 classes" in ended.err


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="validation"):
        load("digits", "validation")


# -- digits, pick ---------------------------------------------------------------------------------


def test_digits_hold_out_every_fifth() -> None:
    train, test = (load("digits", split, 8, 8) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.max() == 255
    assert np.array_equal(train.images[..., 0], train.images[..., 2])
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_the_hash_covers_pixels_and_labels() -> None:
    data = load("digits", "test", 8, 8)
    other_pixel, other_label = data.images.copy(), data.labels.copy()
    other_pixel[7, 3, 3, 1] ^= 1
    other_label[7] ^= 1
    hashes = {
        data.sha256(),
        LabelledImages(other_pixel, data.labels, data.class_names, "").sha256(),
        LabelledImages(data.images, other_label, data.class_names, "").sha256(),
    }
    assert len(hashes) == 3
    assert data.sha256() == hashlib.sha256(data.images.tobytes() + data.labels.tobytes()).hexdigest()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 80), st.integers(0, 3))
def test_pick_is_balanced_and_repeats(labels: list[int], count: int, seed: int) -> None:
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    data = LabelledImages(images, np.array(labels, np.int64), tuple("abcde"), "made")
    chosen = pick(data, count, seed)
    assert len(chosen) == min(count, len(labels))
    assert (np.diff(chosen) > 0).all()
    taken, there = (np.bincount(part, minlength=5) for part in (data.labels[chosen], data.labels))
    short_of_one = taken[taken < there]  # Only a class with none left may stay behind the others.
    assert not len(short_of_one) or taken.max() - short_of_one.min() <= 1
    assert np.array_equal(chosen, pick(data, count, seed))


def _labelled(labels: list[int]) -> LabelledImages:
    return LabelledImages(
        np.zeros((len(labels), 1, 1, 3), np.uint8),
        np.array(labels, np.int64),
        tuple("abcde"[: max(labels) + 1]),
        "made",
    )


@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.floats(0.05, 0.5), st.integers(0, 9))
def test_a_hold_out_takes_as_large_a_part_of_each_class(sizes: list[int], part: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = int(part * len(labels))
    chosen = pick(_labelled(labels.tolist()), count, seed, in_proportion=True)
    assert len(np.unique(chosen)) == len(chosen) == count
    assert np.array_equal(chosen, np.sort(chosen))
    taken = np.bincount(labels[chosen], minlength=len(sizes))
    assert (np.abs(taken - count / len(labels) * np.array(sizes)) <= 1 + len(sizes) / 2).all()


def test_a_class_that_would_be_held_out_whole_is_named() -> None:
    data = _labelled([0] * 9 + [1])
    with pytest.raises(InputError, match=r"no image of b, .* Lower hold_out, or add pictures\.$"):
        training_split(data, replace(RECIPE, hold_out=9))
    left, _ = training_split(data, replace(RECIPE, hold_out=4))
    assert set(left.labels) == {0, 1}


def test_pick_depends_on_the_seed() -> None:
    data = load("digits", "test", 8, 8)
    assert not np.array_equal(pick(data, 50, 0), pick(data, 50, 1))
