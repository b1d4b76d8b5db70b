"""The one way to a terminal: what users call their files, classes and models is printed as it is."""

from __future__ import annotations

import errno
import os
import sys
import termios
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDEST = 400
"""Columns that a table may take where the terminal has fewer."""


def open_console(piped_width: int | None = None, **options: Any) -> Console:
    """A console of Rich's that takes nothing for markup.

    Otherwise `[v2]` of a path vanishes, `[/device:CPU:0]` of a message ends in a traceback, and `:cat:` is a picture.

    Args:
        piped_width: columns where standard output is no terminal, of which Rich would think that it has 80.
        options: of `rich.console.Console`.
    """
    from rich.console import Console

    if piped_width is not None and not sys.stdout.isatty():
        options["width"] = piped_width
    return Console(markup=False, emoji=False, **options)


def print_whole(table: Table) -> None:
    """In a narrow terminal lines break; no figure is cut."""
    from rich.measure import Measurement

    console = open_console()
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    open_console(width=max(console.width, needed)).print(table)


def leave_terminal() -> None:
    """Print into nothing from now on where the terminal is gone, and each line would be an error (EIO)."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:  # of a file or a pipe, too, which say that they are no terminals
            if error.args[0] == errno.EIO:
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, descriptor)
                os.close(nothing)
