"""Errors of a configuration name the key, its line and the nearest valid key."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import StreamSettings, schema
from edge.config_errors import line_of
from edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "stream.toml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        StreamSettings.read(path)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "rest"),
    [
        ("\n\nsorce = 'x'", 3, "sorce", "the nearest key is 'source'"),
        ("[sinks]\n\njsnl = 'x'", 3, "sinks.jsnl", "the nearest key is 'jsonl'"),
        ("[web]\nprot = 1", 2, "web.prot", "the nearest key is 'port'"),
        ("[web]\nport = 99999", 2, "web.port", "less than or equal to 65535"),
        ("[sinks.events]\npth = 1\npath = 'x'", 2, "sinks.events.pth", "the nearest key is 'path'"),
        (
            "[[models]]\nbundle = 'a'\n[[models]]\n# x\nbundel = 'b'",
            *(5, "models.1.bundel", "there is no such key; the nearest key is 'bundle'"),
        ),
        ("[[models]]\nbundle = 'a'\n[[models]]\nthreads = 2", 3, "models.1.bundle", "needed and missing"),
        ("cameras = 'door'", 1, "cameras", "tables in double brackets"),
        ("web.port = 'x'", 1, "web.port", "valid integer"),
        ("zzz = 1", 1, "zzz", "there are source, cameras,"),
        (
            "[[cameras]]\nname = 'a'\nsource = 'x'\n[[cameras]]\nname = 'b'\nsource = 'y'\nlosless = true",
            *(7, "cameras.1.losless", "the nearest key is 'lossless'"),
        ),
        (
            "[[cameras]]\nname = 'Door'\nsource = 'x'\n\n[[cameras]]\nsource = 'y'\nname = 'door'",
            *(7, "cameras.1.name", "the cameras 0 and 1 (from 0) are both called 'door'"),
        ),
        ("source = 'a'\n[[cameras]]\nname = 'a'\nsource = 'x'", 1, "source", "not both"),
        ("[[cameras]]\nname = '../etc'\nsource = 'x'", 2, "cameras.0.name", "expected letters, digits"),
        ("cameras = ['rtsp://h/x']", 1, "cameras.0", "expected a table of keys"),
        ("\n[[camera]]\nname = 'a'", 2, "camera", "the nearest key is 'cameras'"),
        ("jsonl = 'x'", 1, "jsonl", "there is no such key here; [sinks] has it."),
        ("[mqtt]\nhost = 'x'", 1, "mqtt", "there is no such key here; [sinks] has it."),
        ("[sinks]\npath = 'x'", 2, "sinks.path", "there is no such key here; [sinks.events] has it."),
        (
            "[web]\nport = 1\nseconds = 5",
            3,
            "web.seconds",
            "here; the file's beginning, above all tables, has it.",
        ),
        ("[web]\npassword = 'x'", 2, "web.password", "the nearest key is 'password_hash_file'"),
    ],
)
def test_key_line_and_what_would_be_right(tmp_path: Path, text: str, line: int, key: str, rest: str) -> None:
    message = refused(tmp_path, text)
    assert message.startswith(f"'{key}' in {tmp_path}/stream.toml, line {line}: ")
    assert rest in message


def test_passwords_do_not_stand_in_errors(tmp_path: Path) -> None:
    message = refused(tmp_path, "[[cameras]]\nname = 'a'\nsource = 'rtsp://u:hunter22@h'\nlosless = 1")
    assert "hunter22" not in message


names = st.text("abcdefgh_", min_size=1, max_size=6)


@given(
    st.lists(names, unique=True, max_size=4),
    st.dictionaries(names, st.lists(names, unique=True, min_size=1, max_size=4), max_size=4),
    st.integers(0, 3),
)
def test_lines_of_any_tables(top: list[str], arrays: dict[str, list[str]], blank: int) -> None:
    """Keys, then arrays of two tables each; every value is the number of its own line."""
    arrays = {name: keys for name, keys in arrays.items() if name not in top}
    lines: list[str] = []

    def add(text: str) -> None:
        lines.extend([*["# x = 1"] * blank, text])

    for key in top:
        add(f"{key} = {len(lines) + blank + 1}")
    for name, keys in arrays.items():
        for _ in range(2):
            add(f"[[{name}]]")
            for key in keys:
                add(f'"{key}" = {len(lines) + blank + 1}')
    text = "\n".join(lines)
    content = tomllib.loads(text)
    for key in top:
        assert line_of(text, (key,)) == content[key]
    for name, keys in arrays.items():
        for number in range(2):
            for key in keys:
                assert line_of(text, (name, number, key)) == content[name][number][key]


def test_texts_of_several_lines_hold_no_keys() -> None:
    text = 'a = """\nb = 1\n"""\nb = 2'
    assert line_of(text, ("b",)) == 4


def test_published_schema_is_that_of_the_code() -> None:
    published = (ROOT / "docs" / "schema" / "config.schema.json").read_text()
    assert published == schema(), "python -m edge.config > docs/schema/config.schema.json"


def test_published_schema_says_what_the_code_says() -> None:
    check = jsonschema.Draft202012Validator(json.loads(schema()))
    good = {"cameras": [{"name": "a", "source": "x"}], "web": {"port": 0}, "sinks": {"events": {"path": "e"}}}
    assert check.is_valid(good)
    for bad in ({"sorce": 1}, {"cameras": [{"name": "a"}]}, {"web": {"port": -1}}, {"frames": 0}):
        assert not check.is_valid(bad)


def test_a_table_stands_where_its_own_header_does() -> None:
    text = "[sinks.events]\npath = 'x'\n[sinks]\njsonl = 'y'\n[web.more]\n"
    assert [line_of(text, path) for path in (("sinks",), ("sinks", "events"), ("web",))] == [3, 1, 5]
