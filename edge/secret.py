"""Secrets in sources: where they come from, and how they are kept out of what is shown.

A source's address may name its password instead of holding it: `rtsp://admin:${env:DOOR}@10.0.0.5/main`
takes the environment variable DOOR, `${file:/run/credentials/sightline/door}` the content of a file,
without the line break at its end. What a reference inside an address stands for is percent-encoded, so
that a password may hold `@` and `/`; a source that is one reference alone is taken as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from edge.errors import InputError

MASK = "***"

_REFERENCE = re.compile(r"\$\{(\w+):([^{}]*)\}")
_BEGUN = re.compile(r"\$\{")
_USER_INFO = re.compile(r"(?<=://).*@", re.DOTALL)
_USER_INFO_IN_TEXT = re.compile(r"(?<=://)[^\s'\"]*@")
_QUERY = re.compile(
    r"([?&;\s][^=&;\s]*(?:pass|pwd|pw|secret|token|key|auth|user|sig|jwt|cred)[^=&;\s]*\s*=\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^&;\s'\"]*)",
    re.IGNORECASE,
)
"""Of a URI's query, or of an element in a GStreamer pipeline, whose values may be quoted."""
_SHORTEST = 3
"""Shorter values are not looked for in texts: they would be found everywhere."""


def resolved(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """An address with its references replaced by what they stand for.

    Raises:
        InputError: an unset variable, a file that cannot be read, or a reference of another form. The
            message names the reference and no secret.
    """
    alone = _REFERENCE.fullmatch(text)
    if alone:
        return _value(alone, environment)
    replaced = _REFERENCE.sub(lambda found: quote(_value(found, environment), safe=""), text)
    if len(_BEGUN.findall(text)) != len(_REFERENCE.findall(text)):
        raise InputError(f"'{masked(text)}' holds a '${{' that begins no reference. {_FORMS}")
    return replaced


_FORMS = "Write ${env:NAME} for an environment variable, or ${file:/path} for a file's content."


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    kind, name = found.groups()
    if kind == "env":
        if name not in environment:
            raise InputError(
                f"{found[0]}: the environment variable {name} is not set. Set it for this "
                "program, in a service with Environment= or EnvironmentFile=."
            )
        return environment[name]
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(
                f"{found[0]}: the file cannot be read: {reason}. It must hold the secret and be "
                "readable for the user that this program runs as."
            ) from error
    raise InputError(f"{found[0]} is no reference that is known. {_FORMS}")


def masked(address: str) -> str:
    """An address for display: without its user and password, and without secrets in its query.

    Everything up to the last `@` is hidden, whatever it is: a password may hold any sign. In a pipeline that may be in
    the middle of an element's password, whose rest is then hidden as the value that it is.
    """
    if "gst://" in address.lower():
        return _masked_pipeline(address)
    return _QUERY.sub(rf"\1{MASK}", _USER_INFO.sub(f"{MASK}@", address))


def _masked_pipeline(text: str) -> str:
    """All that either pattern finds in the text as it is written; what overlaps becomes one mask."""
    found = [(match.start(), match.end() - 1) for match in _USER_INFO.finditer(text)]  # the `@` stays
    found += [(match.end(1), match.end()) for match in _QUERY.finditer(text)]
    shown, end = "", 0
    for begin, stop in sorted(found):
        if begin > end or not shown:
            shown += text[end:begin] + MASK
        end = max(end, stop)
    return shown + text[end:]


def masked_in_text(text: str) -> str:
    """A text for display; every address in it as by `masked`, as far as one without blanks goes."""
    return _QUERY.sub(rf"\1{MASK}", _USER_INFO_IN_TEXT.sub(f"{MASK}@", text))


class Secrets:
    """The values that references stood for, to be taken out of texts that others write."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def resolve(self, text: str, environment: Mapping[str, str] = os.environ) -> str:
        """As `resolved`; the values and every password of the address are remembered."""
        for found in _REFERENCE.finditer(text):
            self._remember(_value(found, environment))
        address = resolved(text, environment)
        for found in _USER_INFO.finditer(address):
            self._remember(found[0][:-1].partition(":")[2])
        return address

    def scrubbed(self, text: str) -> str:
        """A text without any of them, nor any other address's user and password; the longest goes first."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        return masked_in_text(text)

    def _remember(self, value: str) -> None:
        for form in {value, quote(value, safe=""), unquote(value)}:
            if len(form) >= _SHORTEST:
                self._values.add(form)

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} known)"
