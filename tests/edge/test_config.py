"""Settings: from TOML and the command line, and what is wrong with them in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import StreamSettings
from edge.errors import InputError

TOML = """
source = "clip.mp4"
backend = "onnx"
frames = 20

[sinks]
terminal = false
jsonl = "out/results.jsonl"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stream.toml"
    path.write_text(text)
    return path


def test_command_line_overrides_the_file_and_leaves_the_rest(tmp_path: Path) -> None:
    read = StreamSettings.read(written(tmp_path, TOML))
    changed = read.changed(
        {"video": Path("a.mp4"), "jsonl": None}, source="demo://", frames=None, lossless=True
    )
    assert (changed.source, changed.backend, changed.frames, changed.lossless) == (
        "demo://",
        "onnx",
        20,
        True,
    )
    assert changed.sinks.jsonl == Path("out/results.jsonl")
    assert changed.sinks.video == Path("a.mp4")
    assert not changed.sinks.terminal


def test_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    import edge.config

    assert edge.config.__doc__ is not None
    _, _, example = edge.config.__doc__.partition("\n\n")
    settings = StreamSettings.read(written(tmp_path, example))
    assert settings.sinks.latency == Path("out/latency.json")
    assert settings.seconds == 10.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source = ", "is not a TOML file"),
        ('sorce = "demo://"', "'sorce' in .*: Extra inputs"),
        ("frames = 0", "'frames' in .*: Input should be greater than 0"),
        ("[sinks]\nmqtt = true", r"'sinks\.mqtt' in "),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreamSettings.read(written(tmp_path, text))


def test_missing_file_and_wrong_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        StreamSettings.read(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="'threads' in the command line"):
        StreamSettings().changed({}, threads=0)
