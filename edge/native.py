"""Native libraries that chatter on descriptor 2, past Python's `sys.stderr`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stderr_held_back() -> Iterator[None]:
    """Drop what is written to descriptor 2, or show it after all when an error is raised.

    TensorFlow logs oneDNN and CUDA notes before it reads any setting, LiteRT announces its delegate;
    neither has a switch that Python reaches in time.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
