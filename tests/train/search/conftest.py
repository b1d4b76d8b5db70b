"""A recipe that is trained in a second, so that whole searches can be tested."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from stage import file_size_limit

NETWORK = """
import keras

def tiny(height, width, classes):
    inputs = keras.Input((height, width, 3))
    outputs = keras.layers.Dense(classes, kernel_initializer="zeros", name="logits")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, outputs)
"""

RECIPE = """
from train.recipe import Recipe

RECIPE = Recipe(
    name="tiny", model="search_network:tiny", data="digits", epochs=4, height=8, width=8, learning_rate=0.01,
    batch_size=128, hold_out=300,
)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a recipe: a linear classifier of the embedded digits, which learning rates from 1000 on throw off."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "search_network.py").write_text(NETWORK)
    (folder / "tiny.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    return folder / "tiny.py"


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """Within it no file of this process grows beyond so many bytes, as on a full disk."""
    return file_size_limit
