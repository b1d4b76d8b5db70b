"""The files of CIFAR-10 as they are published: pickles, of which nothing but arrays, lists and texts is taken."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from train.data import load

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
    assert "pip install '.[train]'" in done.stdout
