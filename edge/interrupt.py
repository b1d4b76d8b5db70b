"""Ctrl-C, or SIGTERM, during work in native code: noted at once, acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupt_noted() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; the block looks at it, and KeyboardInterrupt is raised at its end.

    An exception must not pass through NVIDIA's builder; TensorFlow's converter swallows one, and a training step may
    swallow it or crash.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in STOPPING}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stopped.is_set():
            raise KeyboardInterrupt
