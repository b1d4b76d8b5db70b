"""What `sightline doctor` says of one part of a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: `absent` is no fault: not everything is needed everywhere; `problem` is one.
        found: version, model or what went wrong.
        fix: what to do, empty where there is nothing to do.
    """

    part: str
    state: State
    found: str
    fix: str = ""


def guarded(part: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What `look` finds; a check that fails itself is a finding too.

    A doctor that dies of an odd machine is of no use exactly where it is needed, so any error is taken.
    """
    try:
        yield from look()
    except Exception as error:
        yield Finding(
            part,
            "problem",
            f"could not be checked: {type(error).__name__}: {error}",
            "Report this line with the file it names: the check does not know this machine.",
        )
