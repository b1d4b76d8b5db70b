"""A command in a terminal of its own, which can be closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import sightline

ROOT = Path(sightline.__file__).parent


def in_a_terminal(*arguments: str | Path) -> tuple[subprocess.Popen[bytes], int]:
    """`sightline ARGUMENTS`, and the descriptor of its terminal: what it shows is read there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_take_terminal,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def until_shown(terminal: int, text: str) -> None:
    shown = b""
    while text.encode() not in shown:
        shown += os.read(terminal, 10_000)


def _take_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores in all of its children
    os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first that a session opens controls it
