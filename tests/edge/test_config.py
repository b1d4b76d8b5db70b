"""Settings: from TOML and the command line, and what is wrong with them in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bundle import shipped
from edge.config import DEFAULT_MODELS, StreamSettings
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
    first, _, rest = edge.config.__doc__.partition("Several models")
    second, _, third = rest.partition("Several cameras")
    settings = StreamSettings.read(written(tmp_path, first.partition("\n\n")[2]))
    assert settings.sinks.latency == Path("out/latency.json")
    assert settings.seconds == 10.0
    detector, classifier = StreamSettings.read(written(tmp_path, second.partition("\n\n")[2])).chosen()
    assert (detector.bundle, detector.input, detector.backend) == ("face-320x192", "frame", "auto")
    assert (classifier.name, classifier.input, classifier.precision) == ("masks", "faces", "fp16")
    door, yard = StreamSettings.read(written(tmp_path, third.partition("\n\n")[2])).all_cameras()
    assert (door.name, door.max_age_ms, yard.max_age_ms, yard.interval) == ("door", 500, 200, 2)


TWO = """
backend = "onnx"
[[models]]
bundle = "faces"
score_threshold = 0.4
[[models]]
bundle = "pets"
backend = "tflite"
"""


def test_a_table_takes_from_the_stream_what_it_leaves_out(tmp_path: Path) -> None:
    faces, pets = StreamSettings.read(written(tmp_path, TWO)).chosen()
    assert (faces.bundle, faces.backend, faces.score_threshold) == ("faces", "onnx", 0.4)
    assert (pets.bundle, pets.backend, pets.score_threshold) == ("pets", "tflite", None)


def test_the_command_line_overrides_the_tables_too(tmp_path: Path) -> None:
    changed = StreamSettings.read(written(tmp_path, TWO)).changed({}, backend="auto", score_threshold=0.7)
    assert [model.backend for model in changed.chosen()] == ["auto", "auto"]
    assert [model.score_threshold for model in changed.chosen()] == [None, None]
    assert changed.score_threshold == 0.7


def test_a_camera_takes_from_the_stream_what_it_leaves_out(tmp_path: Path) -> None:
    text = "lossless = true\nmax_age_ms = 500\ndecode_threads = 4\n" + TWO_CAMERAS
    door, yard = StreamSettings.read(
        written(tmp_path, text + "max_age_ms = 200\ndecode_threads = 2")
    ).all_cameras()
    assert (door.lossless, door.max_age_ms, door.decode_threads) == (True, 500, 4)
    assert (yard.lossless, yard.max_age_ms, yard.decode_threads) == (True, 200, 2)


@pytest.mark.parametrize("text", [TWO, 'model = "cats"'])
def test_bundles_of_the_command_line_take_the_place_of_the_files(tmp_path: Path, text: str) -> None:
    changed = StreamSettings.read(written(tmp_path, text)).changed({}, ("a", "b"))
    assert [model.bundle for model in changed.chosen()] == ["a", "b"]


def test_without_a_word_the_shipped_models_are_taken() -> None:
    assert tuple(model.bundle for model in StreamSettings().chosen()) == DEFAULT_MODELS
    assert set(DEFAULT_MODELS) <= set(shipped())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source = ", "is not a TOML file"),
        ('sorce = "demo://"', "'sorce' in .*: there is no such key"),
        ("frames = 0", "'frames' in .*: Input should be greater than 0"),
        ("[sinks]\nmqtt = true", r"'sinks\.mqtt' in "),
        (
            'model = "a"\n[[models]]\nbundle = "b"',
            r"'model' in .*stream.toml, line 1: take either `model` or \[\[models\]\], not both",
        ),
        ('[[models]]\nbundle = "b"\ninput = "hands"', r"'models\.0\.input' in .*'frame' or 'faces'"),
        ('[[models]]\ninput = "faces"', r"'models\.0\.bundle' in .*missing"),
        (
            '[[models]]\nbundle = "b"\nevery_s = inf',
            r"'models\.0\.every_s' in .*, line 3: Input should be a finite number",
        ),
        ("max_age_ms = inf", "'max_age_ms' in .*finite number"),
        ("seconds = nan", "'seconds' in .*finite number"),
        ('[[cameras]]\nname = "a"\nsource = "b"\nbacklog_ms = inf', "finite number"),
        ('[sinks.events]\npath = "e"\nleave_s = inf', "finite number"),
        ("score_threshold = 1.5", "'score_threshold' in .*less than or equal to 1"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreamSettings.read(written(tmp_path, text))


EVENTS = '[sinks.events]\npath = "same"\n'
TWO_CAMERAS = (
    '[[cameras]]\nname = "door"\nsource = "c-door.mp4"\n[[cameras]]\nname = "yard"\nsource = "c.mp4"\n'
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'source = "c.mp4"\n[sinks]\nvideo = "c.mp4"',
            r"'sinks\.video' in .*, line 3: c\.mp4 is that of 'source'",
        ),
        ('source = "c.mp4"\n[sinks]\nlatency = "link"', "link is that of 'source'"),
        ('[sinks]\njsonl = "same"\nlatency = "a/../same"', r"'sinks\.latency' in .*, line 3: .* of 'jsonl'"),
        (
            '[sinks]\njsonl = "same"\n' + EVENTS,
            r"'sinks\.events\.path' in .*, line 4: same is that of 'jsonl'",
        ),
        (
            EVENTS + '[sinks.mqtt]\nhost = "broker"\noutbox = "./same"',
            r"same is that of 'events\.path', too: give",
        ),
        (TWO_CAMERAS + '[sinks]\nvideo = "c.mp4"', "c-door.mp4 is that of 'source'"),
    ],
    ids=["source", "link", "each other", "events", "outbox", "camera"],
)
def test_an_output_takes_no_file_of_the_source_or_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.mp4").touch()
    Path("c-door.mp4").touch()
    Path("link").symlink_to("c.mp4")
    with pytest.raises(InputError, match=message):
        StreamSettings.read(written(tmp_path, text))


def test_several_cameras_do_not_write_the_video_they_are_named_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.mp4").touch()
    text = '[[cameras]]\nname = "yard"\nsource = "c.mp4"\n[sinks]\nvideo = "c.mp4"'
    assert StreamSettings.read(written(tmp_path, text)).sinks.video == Path("c.mp4")


def test_a_byte_order_mark_at_the_beginning_is_none_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "stream.toml"
    path.write_text(TOML, encoding="utf-8-sig")
    assert StreamSettings.read(path).frames == 20


def test_missing_file_and_wrong_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        StreamSettings.read(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="'threads' in the command line"):
        StreamSettings().changed({}, threads=0)
