"""Every data folder that train.data reads, and every wrong one it must refuse."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.card import read_card
from train.data import LabelledImages, load, pick

NAMES = ("airplane", "automobile", "bird")


def python2_pickle(content: dict[bytes, Any]) -> bytes:
    """A dictionary of byte strings, arrays and lists, opcode by opcode as Python 2's cPickle wrote it."""
    items = b"".join(_text(key) + _value(value) for key, value in content.items())
    return b"\x80\x02}(" + items + b"u."


def _value(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        rows, columns = value.shape
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            + b"(K\x01"
            + b"".join(b"J" + struct.pack("<i", size) for size in (rows, columns))
            + b"\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + b"\x89T"
            + struct.pack("<i", value.size)
            + value.tobytes()
            + b"tb"
        )
    parts = [b"J" + struct.pack("<i", part) if isinstance(part, int) else _text(part) for part in value]
    return b"](" + b"".join(parts) + b"e"


def _text(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def batch(seed: int, n: int = 6) -> dict[bytes, Any]:
    planes = np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)
    return {b"data": planes, b"labels": [i % len(NAMES) for i in range(n)]}


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for index in range(1, 6):
        (folder / f"data_batch_{index}").write_bytes(python2_pickle(batch(index)))
    (folder / "test_batch").write_bytes(python2_pickle(batch(9)))
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [name.encode() for name in NAMES]}))
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_cifar10_folder_or_the_one_that_holds_it(cifar: Path, inside: bool) -> None:
    data = load(str(cifar if inside else cifar.parent), "test")
    planes = batch(9)[b"data"]
    assert (data.source, data.class_names) == ("cifar10/test", NAMES)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for channel in range(3):  # A row holds all red pixels, then all green, then all blue.
        plane = planes[4, channel * 1024 : (channel + 1) * 1024].reshape(32, 32)
        assert np.array_equal(data.images[4, :, :, channel], plane)


def test_cifar10_train_is_all_five_batches_in_order(cifar: Path) -> None:
    data = load(str(cifar), "train")
    assert len(data) == 30
    assert np.array_equal(data.images[12], load_single(batch(3), 0))


def load_single(content: dict[bytes, Any], index: int) -> np.ndarray:
    return np.dstack(np.split(content[b"data"][index], 3)).reshape(32, 32, 3)


def test_cifar10_written_by_python_3(cifar: Path) -> None:
    (cifar / "test_batch").write_bytes(pickle.dumps(batch(9), protocol=2))
    assert np.array_equal(load(str(cifar), "test").images[5], load_single(batch(9), 5))


class Malicious:
    """A pickle of this calls `function(*args)` when it is read without care."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
@pytest.mark.parametrize("function", ["os.system", "eval", "exec"])
def test_a_pickle_that_runs_code_is_refused(cifar: Path, file: str, function: str) -> None:
    trace = cifar.parent / "trace"
    attack = {
        "os.system": Malicious(os.system, f"touch {trace}"),
        "eval": Malicious(eval, f"__import__('os').mkdir({str(trace)!r})"),
        "exec": Malicious(exec, f"__import__('os').mkdir({str(trace)!r})"),
    }[function]
    (cifar / file).write_bytes(pickle.dumps({b"data": attack, b"label_names": attack}, protocol=2))
    with pytest.raises(InputError, match="has no place in an image batch"):
        load(str(cifar), "test")
    assert not trace.exists()
    pickle.loads((cifar / file).read_bytes())  # The attack is a real one.
    assert trace.exists()


BROKEN_BATCHES: dict[str, Any] = {
    "no data": {b"labels": [0]},
    "no labels": {b"data": np.zeros((1, 3072), np.uint8)},
    "data of another type": {b"data": np.zeros((1, 3072), np.float32), b"labels": [0]},
    "grey images": {b"data": np.zeros((1, 1024), np.uint8), b"labels": [0]},
    "data as a list": {b"data": [[0] * 3072], b"labels": [0]},
    "too few labels": {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
    "a label outside the classes": {b"data": np.zeros((1, 3072), np.uint8), b"labels": [3]},
    "a negative label": {b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]},
    "labels of another type": {b"data": np.zeros((1, 3072), np.uint8), b"labels": ["0"]},
    "no images": {b"data": np.zeros((0, 3072), np.uint8), b"labels": []},
    "not a dictionary": [1, 2],
}


@pytest.mark.parametrize("case", BROKEN_BATCHES)
def test_a_broken_batch_is_refused(cifar: Path, case: str) -> None:
    (cifar / "test_batch").write_bytes(pickle.dumps(BROKEN_BATCHES[case], protocol=2))
    with pytest.raises(InputError):
        load(str(cifar), "test")


@pytest.mark.parametrize("meta", [{}, {b"label_names": []}, {b"label_names": [1]}, {b"label_names": b"ab"}])
def test_broken_class_names_are_refused(cifar: Path, meta: dict[bytes, Any]) -> None:
    (cifar / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    with pytest.raises(InputError, match="label_names"):
        load(str(cifar), "test")


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_4"])
def test_a_missing_cifar10_file_is_named(cifar: Path, name: str) -> None:
    (cifar / name).unlink()
    with pytest.raises(InputError, match=name):
        load(str(cifar), "train")


class Reduced:
    """Pickled as an array whose parts are `state`, which no NumPy array would have."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return *np.zeros(1, np.uint8).__reduce__()[:2], self.state


@pytest.mark.parametrize(
    "state",
    [
        (1, (1, 3072), 7, False, b"\0" * 3072),
        (1, (2, 3072), np.dtype("u1"), False, b"\0" * 3072),
        (1, (1, 3072), np.dtype("u1"), True, b"\0" * 3072),
        (1, ("a",), np.dtype("u1"), False, b"\0" * 3072),
        (1, (10**12, 3072), np.dtype("u1"), False, b"\0"),
        (1, (1, 3072), np.dtype("u1"), False, 5),
        (),
    ],
)
def test_an_array_of_wrong_parts_is_refused(cifar: Path, state: Any) -> None:
    content = {b"data": Reduced(state), b"labels": [0]}
    (cifar / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match="expected data, an array of uint8"):
        load(str(cifar), "test")


@given(st.data())
def test_a_damaged_batch_never_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cifar")
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [b"a", b"b", b"c"]}))
    content = bytearray(python2_pickle(batch(1, n=3)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, 150))] = data.draw(st.integers(0, 255))
    (folder / "test_batch").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        load(str(folder), "test")


# -- a folder of class folders --------------------------------------------------------------------


def write_pictures(folder: Path, count: int, grey: int = 0, size: tuple[int, int] = (40, 50)) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03}.png"), np.full((*size, 3), grey, np.uint8))


def test_class_folders_are_split_by_name_and_brought_to_size(tmp_path: Path) -> None:
    write_pictures(tmp_path / "dark", 30, grey=10)
    write_pictures(tmp_path / "light", 30, grey=200, size=(20, 30))
    (tmp_path / "light" / "notes.txt").write_text("not a picture")
    (tmp_path / ".cache").mkdir()
    train, test = (load(str(tmp_path), split, 16, 24) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("dark", "light")
    assert train.images.shape[1:] == (16, 24, 3)
    assert len(train) + len(test) == 60
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


def test_of_many_corrupt_pictures_the_first_are_named(tmp_path: Path) -> None:
    folder = with_corrupt(tmp_path, 9)
    with pytest.raises(InputError, match=r"… and \d+ more\. Replace them, or train and evaluate with"):
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


def test_pick_depends_on_the_seed() -> None:
    data = load("digits", "test", 8, 8)
    assert not np.array_equal(pick(data, 50, 0), pick(data, 50, 1))


def test_data_is_read_without_tensorflow_and_scikit_learn(cifar: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'sklearn')))\n"
        f"from train.data import load; assert len(load({str(cifar)!r}, 'test')) == 6\n"
        "import train.evaluate, train.commands\n"
        "from edge.errors import MissingPackageError\n"
        "try: load('digits', 'test')\n"
        "except MissingPackageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'sightline[train]'" in done.stdout
