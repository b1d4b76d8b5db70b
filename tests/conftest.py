"""The `sightline` command, run inside the test's own process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import settings

import sightline
from train.backend import settle_tensorflow

# A test's own `import keras` comes before the command's, and TensorFlow would tell of GPUs that are not there in the
# middle of its output.
settle_tensorflow()

# A shell that starts the tests in the background has them and their children ignore Ctrl-C, which some of them press.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared machine stalls now and then: how long an example takes is no property of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs `sightline ARGS...`; a traceback would surface as the test's own."""

    def run(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["sightline", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            sightline.main()
        return Ended(int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def eager() -> Iterator[None]:
    """TensorFlow without graphs, for tests of a few steps: to trace a detector's takes ten seconds."""
    import tensorflow

    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)
