"""How much memory is left, and a word before it runs out: the kernel would end the process without one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import InputError

if TYPE_CHECKING:
    import keras

FLOAT_BYTES = 4
COPIES = 3
"""Of each weight: itself, its gradient, the momentum."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """What this process may still take: of the machine, or of its container where that is less; None unknown."""
    known = [size for size in (_machine(), _container()) if size is not None]
    return min(known) if known else None


def check_memory(needed: int, what: str, fix: str) -> None:
    """Raises InputError where `needed` bytes are more than there are."""
    available = available_bytes()
    if available is not None and needed > available:
        raise InputError(
            f"{what} take at least {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free. {fix}"
        )


def check_batch(model: keras.Model, batch_size: int, picture: tuple[int, ...]) -> None:
    """Whether a training step fits: every layer's output is kept for the way back.

    That is the least it takes, so what passes may still be too much. `picture` is the inputs' shape (H, W, C): a
    detector's network is open in its size.

    Raises:
        InputError: it does not fit; the message names a batch size that may.
    """
    available = available_bytes()
    weights = COPIES * FLOAT_BYTES * model.count_params()
    each = FLOAT_BYTES * sum(_values(layer) for layer in _sized(model, picture).layers)
    if available is None or weights + batch_size * each <= available:
        return
    fitting = max(0, available - weights) // max(1, each)
    advice = f"Try batch_size={2 ** int(math.log2(fitting))}." if fitting else "Take a smaller network."
    check_memory(weights + batch_size * each, f"{model.name} and a batch of {batch_size} pictures", advice)


def _sized(model: keras.Model, picture: tuple[int, ...]) -> keras.Model:
    import keras

    if None not in model.input_shape[1:]:
        return model
    return keras.models.clone_model(model, input_tensors=keras.Input(picture))


def _values(layer: keras.Layer) -> int:
    """Numbers a picture in a layer's output; none where it is used twice or has no shape yet."""
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        return 0
    return math.prod(size or 1 for size in shape[1:])


def _machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def _container() -> int | None:
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        cached = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used = int((_CGROUP / "memory.current").read_text()) - int(cached["inactive_file"])
    except (OSError, KeyError, ValueError):  # `max` is no number: there is no limit.
        return None
    return max(0, limit - used)


@contextmanager
def memory_errors_told(batch_size: int) -> Iterator[None]:
    """Turns a backend's or NumPy's lack of memory in a training step into an InputError."""
    try:
        yield
    except Exception as error:  # TensorFlow and JAX have classes of their own, which are not imported here.
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in _LACK):
            raise
        raise InputError(
            f"There is not enough memory for a batch of {batch_size} pictures. Lower batch_size; with half of it, "
            "half of learning_rate too."
        ) from error


_LACK = ("OOM when allocating", "RESOURCE_EXHAUSTED", "Out of memory")
"""What TensorFlow's and JAX's messages say."""
