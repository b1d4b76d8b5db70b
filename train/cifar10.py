"""CIFAR-10 as it is distributed: pickled batches, read without running what is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, reason_of
from edge.pixels import Image


class _Array:
    """Stands in for a pickled NumPy array: keeps its parts and computes nothing.

    NumPy's own classes must not see a damaged file: their `__setstate__` believes what they are
    told, and one wrong byte can corrupt the process's uint8 type or ask for gigabytes.
    """

    _state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def pixels(self) -> Image:
        """The array; where its parts are no array of uint8 in C order, this raises what they lead to."""
        _, shape, dtype, fortran, content = self._state
        if dtype.args[0] not in (b"u1", "u1") or fortran:
            raise ValueError(f"expected uint8, found {dtype.args[0]}")
        pixels: Image = np.frombuffer(content, np.uint8).reshape(shape)
        return pixels


# The implementation in Python: the one in C allocates as much as a damaged file asks for.
class _NoCode(pickle._Unpickler):
    """CIFAR-10 is distributed as pickles, and a pickle may run code: this one builds arrays alone."""

    _STANDS_FOR: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        # Python 3 writes bytes so when it writes for Python 2.
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._STANDS_FOR[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an image batch") from None


def read_cifar10(folder: Path, split: str) -> tuple[Image, NDArray[np.int64], tuple[str, ...]]:
    """One split: images uint8 (N, 32, 32, 3) RGB, labels (N,), the names of the classes.

    Args:
        folder: holds `batches.meta`, `data_batch_1` to `data_batch_5` and `test_batch`.
        split: `train` or `test`.

    Raises:
        InputError: a file is missing or is no batch of CIFAR-10.
    """
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    class_names = _class_names(folder / "batches.meta")
    batches = [_batch(folder / name, len(class_names)) for name in names]
    planes = np.concatenate([images for images, _ in batches])
    images = np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.concatenate([labels for _, labels in batches]), class_names


def _class_names(path: Path) -> tuple[str, ...]:
    names = _unpickled(path).get(b"label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise _not_cifar10(path, f"expected label_names, a list of names, found {_kind(names)}")
    return tuple(name.decode(errors="replace") for name in names)


def _batch(path: Path, classes: int) -> tuple[Image, NDArray[np.int64]]:
    """Images as uint8 (N, 3072), channel by channel, and labels below `classes`."""
    content = _unpickled(path)
    data, labels = content.get(b"data"), content.get(b"labels")
    if not isinstance(data, _Array):
        raise _not_cifar10(path, f"expected data, an array, found {_kind(data)}")
    try:
        images = data.pixels()
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise _not_cifar10(path, f"expected data, an array of uint8 ({error})") from error
    if images.shape[1:] != (3072,):
        raise _not_cifar10(path, f"expected data, rows of 3,072 pixels, found the shape {images.shape}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _not_cifar10(path, f"expected labels, a list of whole numbers, found {_kind(labels)}")
    if len(labels) != len(images) or not all(0 <= label < classes for label in labels):
        raise _not_cifar10(path, f"expected a label from 0 to {classes - 1} for each of {len(images)} images")
    return images, np.asarray(labels, np.int64)


def _unpickled(path: Path) -> dict[bytes, Any]:
    try:
        with open(path, "rb") as stream:
            content = _NoCode(stream, encoding="bytes").load()
    except Exception as error:  # A damaged pickle may raise anything.
        raise _not_cifar10(path, reason_of(error)) from error
    if not isinstance(content, dict):
        raise _not_cifar10(path, f"expected a dictionary, found {_kind(content)}")
    return content


def _not_cifar10(path: Path, why: str) -> InputError:
    return InputError(f"{path} is not a CIFAR-10 batch: {why}. Unpack the official archive anew.")


def _kind(value: Any) -> str:
    return "none" if value is None else type(value).__name__
