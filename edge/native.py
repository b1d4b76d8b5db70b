"""Libraries that chatter: native ones on descriptor 2, past Python's `sys.stderr`, others through `logging`."""

from __future__ import annotations

import logging
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


@contextmanager
def logger_held_back(name: str) -> Iterator[None]:
    """Drop what a library logs below a critical error; the caller says in one message what it means."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
