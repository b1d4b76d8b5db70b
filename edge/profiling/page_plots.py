"""Plots that scale: curves in an SVG that stretches with the page, words and dots laid over it in HTML.

An SVG that is scaled as a whole is unreadable on a phone; here only the curves stretch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

UNITS = 1000
"""Width and height of every SVG, in its own units."""


@dataclass(frozen=True)
class Scale:
    """One axis.

    Attributes:
        low, high: at its ends; of a logarithmic one both above zero.
        log: whether equal distances are equal factors.
    """

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 1; what lies outside is put on the edge."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.0

    def ticks(self) -> list[float]:
        """Round values, four to eight: powers of ten with 2 and 5 between them where there is room."""
        if not self.log:
            return self._linear_ticks()
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if len(decades) <= 3 else (1,)
        ticks = (step * 10.0**decade for decade in decades for step in steps)
        return [tick for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001]

    def _linear_ticks(self) -> list[float]:
        rough = (self.high - self.low) / 5 or 1.0
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class Plot:
    """An area with two axes.

    Attributes:
        x_name, y_name: what the axes show, with the unit.
        percent: whether the y axis shows shares, 0 to 1.
    """

    x: Scale
    y: Scale
    x_name: str
    y_name: str
    percent: bool = False

    def curve(self, points: Iterable[tuple[float, float]], style: str) -> str:
        """A line through the points; `style` is a CSS class."""
        path = " L".join(self._place(x, y) for x, y in points)
        return f'<path class="curve {style}" d="M{path}"/>' if path else ""

    def bars(self, spans: Iterable[tuple[float, float, float]], style: str) -> str:
        """Upright strokes at x from one y to another; one of no height is a dot."""
        path = "".join(f"M{self._place(x, low)}L{self._place(x, high)}" for x, low, high in spans)
        return f'<path class="curve {style}" d="{path}"/>' if path else ""

    def band(self, begin: float, end: float, style: str) -> str:
        """The area between two x."""
        left, right = self.x.at(begin) * UNITS, self.x.at(end) * UNITS
        return f'<rect class="{style}" x="{left:.1f}" width="{right - left:.1f}" y="0" height="{UNITS}"/>'

    def dot(
        self, x: float, y: float, text: str, *, style: str = "", size_px: float = 7, word: str = ""
    ) -> str:
        """A round dot with a text that shows on pointing, and a word beside it, on the roomier side."""
        left, bottom = self.x.at(x) * 100, self.y.at(y) * 100
        side = "leftward" if left > 70 else ""
        label = f'<b class="{side}">{escape(word)}</b>' if word else ""
        return (
            f'<i class="dot {style}" title="{escape(text)}" style="left:{left:.2f}%;bottom:{bottom:.2f}%;'
            f'width:{size_px:.1f}px;height:{size_px:.1f}px">{label}</i>'
        )

    def html(self, curves: str, dots: str = "", label: str = "") -> str:
        """The plot with its grid and its axes' figures; `label` tells what it shows to who cannot see it."""
        vertical, horizontal = self.x.ticks(), self.y.ticks()
        grid = "".join(f"M{self.x.at(t) * UNITS:.1f} 0V{UNITS}" for t in vertical)
        grid += "".join(f"M0 {UNITS - self.y.at(t) * UNITS:.1f}H{UNITS}" for t in horizontal)
        words = "".join(
            f'<span class="x" style="left:{self.x.at(t) * 100:.2f}%">{_tick(t)}</span>' for t in vertical
        ) + "".join(
            f'<span class="y" style="bottom:{self.y.at(t) * 100:.2f}%">{_tick(t, self.percent)}</span>'
            for t in horizontal
        )
        return (
            f'<div class="yname">{escape(self.y_name)}</div><div class="plot">'
            f'<svg viewBox="0 0 {UNITS} {UNITS}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(label)}"><path class="grid" d="{grid}"/>{curves}</svg>{dots}{words}</div>'
            f'<div class="xname">{escape(self.x_name)}</div>'
        )

    def _place(self, x: float, y: float) -> str:
        return f"{self.x.at(x) * UNITS:.1f} {UNITS - self.y.at(y) * UNITS:.1f}"


def log_scale(values: Sequence[float], decades: float = 9.0) -> Scale:
    """From the least to the largest positive value with a little room; at most so many decades."""
    positive = [value for value in values if value > 0] or [1.0]
    high = max(positive) * 1.15
    return Scale(max(min(positive) / 1.15, high / 10**decades), high, log=True)


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with their colours; an entry is a text and a CSS class."""
    items = "".join(f'<li><i class="{style}"></i>{escape(text)}</li>' for text, style in entries)
    return f'<ul class="legend">{items}</ul>'


def bar_row(
    name: str, value: str, parts: Sequence[tuple[float, float, str]], mark: float | None = None
) -> str:
    """A line of a bar chart: parts are begin and width (0 to 1) with a CSS class; `mark` a thin upright line."""
    spans = "".join(
        f'<i class="{style}" style="left:{begin * 100:.2f}%;width:{width * 100:.2f}%"></i>'
        for begin, width, style in parts
    )
    line = f'<u style="left:{min(mark, 1) * 100:.2f}%"></u>' if mark is not None else ""
    return f'<div class="bar"><span>{name}</span><em>{spans}{line}</em><span>{escape(value)}</span></div>'


def ms(value: Any) -> str:
    """Milliseconds for people: three digits that count; a dash where there is no figure."""
    if not isinstance(value, int | float):
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first column is text, the others figures."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _tick(value: float, percent: bool = False) -> str:
    if percent:
        return f"{value * 100:g} %"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"
