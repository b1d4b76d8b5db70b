"""Child processes that end when they are asked to, when their parent ends, or by force."""

from __future__ import annotations

import ctypes
import subprocess
from typing import Any

PR_SET_PDEATHSIG = 1
"""Linux, <sys/prctl.h>: the signal that a process gets when its parent ends."""


def end(child: subprocess.Popen[Any], grace_s: float) -> None:
    """Ask a child to end, and kill it when it has not after `grace_s`; it is waited for."""
    child.terminate()
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_with_parent(number: int) -> None:
    """Let the kernel send this process the signal `number` when its parent ends, also when that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
