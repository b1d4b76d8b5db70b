"""What stands in the way of TensorFlow's converters and is told by them as something else."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge.errors import InputError, SightlineError

SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
"""What TensorFlow takes as a name (`tf.name_scope`'s rule)."""

SPARE_BYTES = 1 << 20


@contextmanager
def explained(model: Any) -> Iterator[None]:
    """A conversion; where it fails, the user is told why if that can be seen here.

    TFLite's converter writes the model into the folder for temporary files first. Where that fails, for want of space
    or for a name, it tries a way that Keras 3 does not have, and what reaches us is a TypeError.

    Raises:
        InputError: names that TensorFlow does not take, or no room for temporary files.
    """
    try:
        yield
    except SightlineError:
        raise
    except Exception as error:
        if obstacle := _obstacle(model):
            raise InputError(obstacle) from error
        raise


def _obstacle(model: Any) -> str | None:
    if odd := [name for name in _names(model) if not SCOPE.fullmatch(name)]:
        return (
            f"TensorFlow's converters do not take the names {', '.join(map(repr, odd))}: expected letters without "
            "accents, digits, '_', '.' and '-', the first a letter or digit. Rename the layers, or the model."
        )
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < 4 * model.count_params() + SPARE_BYTES:
        return f"{folder}, where converters keep temporary files, is full. Free some space, or set TMPDIR to another."
    return None


def _names(model: Any) -> list[str]:
    """Its own and those of all layers, also within models inside it."""
    inside = (_names(layer) if hasattr(layer, "layers") else [layer.name] for layer in model.layers)
    return [model.name, *(name for names in inside for name in names)]
