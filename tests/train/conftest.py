"""What the tests of training share."""

from __future__ import annotations

import os
import signal
from typing import Any

import keras
import pytest


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ctrl-C is pressed at the beginning of each step of a training; what the steps gave that came to their end.

    TensorFlow may swallow an exception that a signal raises within it, or crash.
    """
    plain, ended = keras.Model.train_on_batch, []

    def step(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(plain(*args, **kwargs))
        return ended[-1]

    monkeypatch.setattr(keras.Model, "train_on_batch", step)
    return ended
