"""Ctrl-C during work in native code: noted at once, acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_noted() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; the block looks at it, and KeyboardInterrupt is raised at its end.

    An exception must not pass through NVIDIA's builder; TensorFlow's converter swallows one, and a training step may
    swallow it or crash.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
        if stopped.is_set():
            raise KeyboardInterrupt
