"""What is wrong with a configuration, in one sentence: the key, its line, and the nearest valid key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

Path = tuple[str | int, ...]
"""Where a value stands: names of tables and keys, and numbers in arrays of tables, from 0."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_PAIR = re.compile(rf"\s*({_DOTTED})\s*=(.*)$")
_QUOTES = ('"""', "'''")

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Of a camera's name, which stands in addresses and in files' names."""

_IN_WORDS = {
    NAME: "expected letters, digits, '_', '-' and '.', the first of them a letter or a digit",
    "extra_forbidden": "there is no such key",
    "missing": "it is needed and missing",
    "tuple_type": "expected a list, or tables in double brackets",
    "model_type": "expected a table of keys",
}
"""By pydantic's type of error, or the pattern that does not match, what is said in place of its own words."""


def wrong(message: str, *path: str | int) -> PydanticCustomError:
    """For a validator of several values at once: what is wrong, and the one whose line is to be named."""
    return PydanticCustomError("wrong", "{message}", {"message": message, "path": path})


def explained(error: ValidationError, schema: Mapping[str, Any], where: str, text: str = "") -> str:
    """The first error as a sentence; first of all a key that is none, since one that is missing may be meant by it.

    Args:
        schema: the JSON schema of the whole configuration, for the keys that would have been right.
        where: the file, or `the command line`.
        text: the file's content, for the line.
    """
    errors = error.errors(include_url=False, include_input=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    context = first.get("ctx", {})
    path = tuple(context.get("path", first["loc"]))
    message = _IN_WORDS.get(context.get("pattern", first["type"]), first["msg"].removeprefix("Value error, "))
    line = line_of(text, path)
    place = f"{where}, line {line}" if line else where
    subject = f"'{'.'.join(map(str, path))}' in {place}" if path else place
    near = _nearest(path, schema) if first["type"] == "extra_forbidden" else ""
    return f"{subject}: {message}{near}."


def line_of(text: str, path: Path) -> int | None:
    """The line, from 1, on which the value of `path` stands; of its table where it is missing itself.

    Inline tables and arrays count as standing where they begin. None where nothing of the path is there.
    """
    own, inside = dict[Path, int](), dict[Path, int]()
    for number, found in _places(text.splitlines()):
        own.setdefault(found, number)
        for length in range(1, len(found)):
            inside.setdefault(found[:length], number)
    lines = inside | own
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), None)


def _places(lines: Sequence[str]) -> Iterator[tuple[int, Path]]:
    """The line and path of each table and key. Knows as much of TOML as that takes."""
    table: Path = ()
    counts: dict[Path, int] = {}
    inside = ""  # the quotes of a text of several lines
    for number, line in enumerate(lines, 1):
        if inside:
            inside = "" if line.count(inside) % 2 else inside
            continue
        if header := _HEADER.match(line):
            table = _table(_names(header[2]), header[1] == "[[", counts)
            yield number, table
        elif pair := _PAIR.match(line):
            yield number, table + _names(pair[1])
            inside = next((quotes for quotes in _QUOTES if pair[2].count(quotes) % 2), "")


def _table(names: Path, is_array: bool, counts: dict[Path, int]) -> Path:
    """The path of a header's table: names of arrays are followed by the number of their latest table."""
    path: Path = ()
    for depth, name in enumerate(names, 1):
        path += (name,)
        if is_array and depth == len(names):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path


def _names(dotted: str) -> Path:
    return tuple(name.strip("\"'") for name in re.findall(_KEY, dotted))


def _nearest(path: Path, schema: Mapping[str, Any]) -> str:
    """` here; [sinks] has it`, `; the nearest key is 'source'`, or the keys that there are."""
    *above, name = path
    inside = [table for table in _tables(schema) if list(table[: len(above)]) == above]
    around = [path[:length] for length in range(len(above))]
    homes = [_written(table) for table in (*around, *inside) if str(name) in _keys(table, schema)]
    if homes:
        return f" here; {' and '.join(homes)} {'has' if len(homes) == 1 else 'have'} it"
    known = list(_keys(path[:-1], schema))
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    if near:
        return f"; the nearest key is '{near[0]}'"
    return f"; there are {', '.join(known)}" if known else ""


def _tables(schema: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    """The paths of all tables inside one; of those in double brackets, of the first."""
    for key in _keys(above, schema):
        for path in ((*above, key), (*above, key, 0)):
            if any(_keys(path, schema)):
                yield path
                yield from _tables(schema, path)


def _written(table: Path) -> str:
    """`[sinks.events]`, or `[[cameras]]`."""
    if not table:
        return "the file's beginning, above all tables,"
    name = ".".join(part for part in table if isinstance(part, str))
    return f"[[{name}]]" if isinstance(table[-1], int) else f"[{name}]"


def _keys(path: Path, schema: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a table may have."""
    at = [_followed(schema, schema)]
    for part in path:
        inner = (
            node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
            for node in at
        )
        at = [followed for node in inner if node for followed in _choices(node, schema)]
    for node in at:
        yield from node.get("properties", {})


def _choices(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for choice in node.get("anyOf", [node]):
        yield _followed(choice, schema)


def _followed(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(node.get("$ref", "")).removeprefix("#/$defs/")
    found: Mapping[str, Any] = schema["$defs"][reference] if reference else node
    return found
