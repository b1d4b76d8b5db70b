"""The stream on the terminal: a live panel, or one line a second where there is no terminal."""

from __future__ import annotations

import errno
import time
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

from edge.console import leave_terminal, open_console
from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import FrameResult

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

LIVE_PERIOD_S = 0.2
PLAIN_PERIOD_S = 1.0
RECENT = 120
"""Frames over which the rate and the median age are taken."""


class TerminalSink:
    """Source, frames a second, the latest result, the median age, and drops, as they stand.

    Args:
        title: the first line, the model's name for example.
        console: where to print; standard output by default.
    """

    def __init__(self, title: str = "", console: Console | None = None) -> None:
        self._title = title
        self._console = console
        self._live: Live | None = None
        self._published_ns: deque[int] = deque(maxlen=RECENT)
        self._ages_ms: deque[float] = deque(maxlen=RECENT)
        self._seen = 0
        self._shown_s = 0.0

    def open(self, source: SourceInfo) -> None:
        """Start the live panel where there is a terminal."""
        from rich.live import Live

        console = self._console = self._console or open_console()
        size = f"{source.width}x{source.height}" if source.width else "pictures"
        self._source = f"{source.uri} {size}" + (f" {source.fps:.4g} fps" if source.fps else "")
        self._seen, self._shown_s = 0, 0.0
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
        else:
            console.print(f"{self._title} on {self._source}", highlight=False, soft_wrap=True)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take note; print only a few times a second, because printing costs milliseconds."""
        self._seen += 1
        self._published_ns.append(frame.stamps.publish)
        self._ages_ms.append(frame.stamps.age_ms)
        now_s = time.monotonic()
        if now_s - self._shown_s >= (LIVE_PERIOD_S if self._live else PLAIN_PERIOD_S):
            self._shown_s = now_s
            self._show(frame, result)

    def close(self) -> None:
        """Leave the last panel on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, frame: Frame, result: FrameResult) -> None:
        figures = {
            "frame": str(frame.index),
            "fps": f"{self._fps():.1f}",
            **_in_words(result),
            "age p50": f"{median(self._ages_ms):.1f} ms",
            "dropped": str(frame.index + 1 - self._seen),
        }
        try:
            self._print(figures)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            leave_terminal()  # it was closed; whether the stream ends, its signal says

    def _print(self, figures: dict[str, str]) -> None:
        if self._live is not None:
            self._live.update(self._panel(figures), refresh=True)
        elif self._console is not None:
            line = "  ".join(f"{name} {value}" for name, value in figures.items())
            self._console.print(line, highlight=False, soft_wrap=True)

    def _fps(self) -> float:
        """Results a second over the recent frames."""
        span_ns = self._published_ns[-1] - self._published_ns[0]
        return (len(self._published_ns) - 1) * 1e9 / span_ns if span_ns else 0.0

    def _panel(self, figures: dict[str, str]) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table

        table = Table.grid(padding=(0, 3))
        table.add_column(style="dim")
        table.add_column(style="bold")
        table.add_row("source", self._source)
        for name, value in figures.items():
            table.add_row(name, value)
        return Panel(table, title=self._title, title_align="left", width=min(72, self._width()))

    def _width(self) -> int:
        return self._console.width if self._console is not None else 72


def _in_words(result: FrameResult) -> dict[str, str]:
    """What each model says; the name of a single one stands in the title already."""
    models = {name: of_model.summary() for name, of_model in result.by_model.items()}
    return models if len(models) > 1 else {"result": result.summary()}
