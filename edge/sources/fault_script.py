"""The language of the fault camera: which fault comes when.

    fault://SOURCE?FAULT=WHEN[:VALUE]&FAULT=WHEN[:VALUE]...&every=PERIOD

SOURCE is any source, `demo` for `demo://`; the script stands behind the last question mark. WHEN is
`5..8` (from the 5th second until the 8th), `5..` (for good) or, of a jump, `5`. Seconds count from the
moment the source was first open and may have decimals. With an `f` behind each number they are frames
instead, counted from 0 as they leave: `150f..240f`, the same pictures in every run.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from edge.errors import SourceError

Kind = Literal["freeze", "stall", "cut", "short", "corrupt", "black", "size", "jump", "slow"]

KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULTS = {"short": "0.5", "corrupt": "0.2"}
"""The parts of the picture that arrive, and that are noise."""

LARGEST_SIDE = 7680
_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_WHEN = re.compile(rf"({_NUMBER})(f?)(?:(\.\.)(?:({_NUMBER})(f?))?)?")
_VALUES: dict[str, tuple[str, str]] = {
    "short": (_NUMBER, "the part of the picture that arrives, 0 to 1"),
    "corrupt": (_NUMBER, "the part of the picture that is noise, 0 to 1"),
    "size": (r"\d{1,4}x\d{1,4}", f"WIDTHxHEIGHT, 2 to {LARGEST_SIDE} pixels each"),
    "jump": (rf"[+-]?{_NUMBER}", "seconds, -3600 or 3600"),
    "slow": (_NUMBER, "frames a second, above 0"),
}


@dataclass(frozen=True)
class Moment:
    """A place in the stream: seconds since it was first opened, frames that have left."""

    seconds: float
    frames: int


@dataclass(frozen=True)
class Span:
    """From `begin` until just before `end` (infinite: for good), in seconds or in frames."""

    begin: float
    end: float
    in_frames: bool = False

    def __str__(self) -> str:
        unit = "f" if self.in_frames else ""
        end = "" if math.isinf(self.end) else f"{self.end:.12g}{unit}"
        return f"{self.begin:.12g}{unit}..{end}"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        value: of `size` (width, height); of the kinds that have one number (number,); else empty.
    """

    kind: Kind
    span: Span
    value: tuple[float, ...] = ()

    def __str__(self) -> str:
        unit = "f" if self.span.in_frames else ""
        when = f"{self.span.begin:.12g}{unit}" if self.kind == "jump" else str(self.span)
        value = "x".join(f"{number:.12g}" for number in self.value)
        return f"{self.kind}={when}" + (f":{value}" if value else "")


@dataclass(frozen=True)
class Script:
    """All faults of a camera.

    Attributes:
        every: the faults repeat after so many seconds (or frames, if that is how they are given);
            0 for once.
    """

    faults: tuple[Fault, ...] = ()
    every: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Script:
        """Read what stands behind the question mark; raises SourceError naming the item it cannot read."""
        items = [item for item in text.split("&") if item]
        periods = [item for item in items if item.startswith("every=")]
        script = cls(tuple(_fault(item) for item in items if item not in periods))
        return script._repeated(periods) if periods else script

    def __str__(self) -> str:
        unit = "f" if self.faults and self.faults[0].span.in_frames else ""
        period = [f"every={self.every:.12g}{unit}"] if self.every else []
        return "&".join([*map(str, self.faults), *period])

    def active(self, kind: Kind, now: Moment) -> Fault | None:
        """The first fault of a kind whose span holds `now`."""
        of_kind = (fault for fault in self.faults if fault.kind == kind)
        return next((f for f in of_kind if f.span.begin <= self._place(f, now) < f.span.end), None)

    def left_s(self, fault: Fault, now: Moment) -> float:
        """How long an active fault, given in seconds, still lasts; infinite for good."""
        return fault.span.end - self._place(fault, now)

    def jumped_s(self, now: Moment) -> float:
        """By how much the camera's clock is wrong after all jumps so far, in seconds."""
        return sum(fault.value[0] * self._passed(fault, now) for fault in self.faults if fault.kind == "jump")

    def _place(self, fault: Fault, now: Moment) -> float:
        """Where `now` lies in the script, in the fault's unit."""
        at = now.frames if fault.span.in_frames else now.seconds
        return at % self.every if self.every else at

    def _passed(self, fault: Fault, now: Moment) -> int:
        """How often a moment has come."""
        since = (now.frames if fault.span.in_frames else now.seconds) - fault.span.begin
        if since < 0:
            return 0
        return 1 + int(since // self.every) if self.every else 1

    def _repeated(self, periods: list[str]) -> Script:
        found = re.fullmatch(rf"every=({_NUMBER})(f?)", periods[0])
        if len(periods) > 1 or not found or float(found[1]) <= 0:
            raise _unreadable(periods[-1], "`every` stands once and is above 0: every=60, or every=1800f")
        units = {fault.span.in_frames for fault in self.faults} | {found[2] == "f"}
        latest = max((_last_of(fault.span) for fault in self.faults), default=0.0)
        if len(units) > 1 or latest > float(found[1]):
            raise _unreadable(periods[0], "`every` is in the unit of all faults, and they end before it")
        return Script(self.faults, float(found[1]))


def split(uri: str) -> tuple[str, Script]:
    """The inner source's URI and the script of a `fault://` URI.

    Raises:
        SourceError: no script, or one that cannot be read. The message holds nothing of the inner URI,
            which may carry a password.
    """
    inner, mark, text = uri.partition("://")[2].rpartition("?")
    if not mark or not inner:
        raise SourceError(
            "A fault camera is written fault://SOURCE?SCRIPT, for instance "
            "fault://demo?freeze=5..8&black=12..13; the source or the question mark is missing."
        )
    return ("demo://" if inner == "demo" else inner), Script.parse(text)


def _fault(item: str) -> Fault:
    name, _, rest = item.partition("=")
    when, colon, value = rest.partition(":")
    if name not in KINDS:
        raise _unreadable(item, f"the faults are {', '.join(KINDS)}, and every")
    kind: Kind = name
    return Fault(
        kind, _span(item, kind, when), _value(item, kind, value if colon else DEFAULTS.get(kind, ""))
    )


def _span(item: str, kind: Kind, when: str) -> Span:
    found = _WHEN.fullmatch(when)
    if not found:
        raise _unreadable(item, "when is written 5..8, 5.. or 150f..240f")
    begin, unit, dots, end, end_unit = found.groups()
    span = Span(float(begin), float(end) if end else math.inf, unit == "f")
    if (end and unit != end_unit) or span.end <= span.begin:
        raise _unreadable(item, "a span has one unit and ends after it began")
    if bool(dots) == (kind == "jump"):
        raise _unreadable(item, "a jump has one moment (jump=9:3600), every other fault a span (5..8 or 5..)")
    if kind in ("stall", "slow") and span.in_frames:
        raise _unreadable(item, "a fault that holds frames back is given in seconds")
    if span.in_frames and "." in f"{begin}{end or ''}":
        raise _unreadable(item, "frames are whole")
    return span


def _value(item: str, kind: Kind, text: str) -> tuple[float, ...]:
    pattern, wanted = _VALUES.get(kind, ("", "nothing"))
    if not re.fullmatch(pattern, text):
        raise _unreadable(item, f"behind the colon stands {wanted}")
    numbers = tuple(float(part) for part in text.split("x")) if text else ()
    if not all(_allowed(kind, number) for number in numbers):
        raise _unreadable(item, f"behind the colon stands {wanted}")
    return numbers


def _allowed(kind: Kind, number: float) -> bool:
    if kind == "size":
        return 2 <= number <= LARGEST_SIDE
    return number > 0 if kind == "slow" else kind == "jump" or 0 <= number <= 1


def _last_of(span: Span) -> float:
    return span.begin if math.isinf(span.end) else span.end


def _unreadable(item: str, rule: str) -> SourceError:
    return SourceError(f"The fault camera cannot read '{item}': {rule}. See docs/faults.md.")
