"""Runs a command with the lowest priority, and ends it when the program that wanted it ends.

python -m edge.lowly COMMAND...
"""

from __future__ import annotations

import os
import signal
import sys

from edge.children import end_with_parent


def main() -> None:
    """Become COMMAND."""
    parent = os.getppid()
    os.setpriority(os.PRIO_PROCESS, 0, 19)  # not `nice`, which adds to what a service with Nice=-10 hands on
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before it could be watched
        return
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
