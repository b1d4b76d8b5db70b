"""What Keras's backend says of itself on the way."""

from __future__ import annotations

import subprocess
import sys

SIX_TRACES = """
from train.backend import import_keras
import_keras()
import tensorflow as tf
same = tf.function(lambda value: value)
for value in range(6):
    same(value)
"""


def test_a_search_of_many_trials_is_not_told_to_change_its_tensorflow_code() -> None:
    """From the fifth function on that is traced anew, as each trial's training is, TensorFlow warns."""
    done = subprocess.run([sys.executable, "-c", SIX_TRACES], capture_output=True, text=True, check=True)
    assert "retracing" not in done.stderr
