"""What every camera child does: take requests, say how they went, end with its parent. Standard library only."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from edge.camera import link
from edge.camera.child.ring import RingWriter
from edge.errors import reason_of

_PR_SET_PDEATHSIG = 1

Request = dict[str, Any]


class Failed(Exception):
    """A camera could not be read.

    Args:
        reason: for people.
        kind: "permanent" where trying again cannot help; "absent" for a device that is not there;
            "passing" else.
    """

    def __init__(self, reason: str, kind: str = "passing") -> None:
        super().__init__(reason)
        self.kind = kind


class Work:
    """The child's end of the link.

    Args:
        on_parent_gone: called from another thread when the parent closed the link or ended.
    """

    def __init__(self, on_parent_gone: Callable[[], None] = lambda: os._exit(0)) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # helps where this process is stopped
        self._parent = socket.socket(fileno=int(sys.argv[1]))
        self._parent.set_inheritable(False)
        self._on_parent_gone = on_parent_gone
        threading.Thread(target=self._watch, daemon=True).start()

    def connected(self, fps: float) -> None:
        """The camera answers; frames follow. `fps` is nominal, 0.0 where it states none."""
        link.send(self._parent, {"is": "connected", "fps": fps})

    def run(self, decode: Callable[[Request, RingWriter], None]) -> None:
        """Do one request after the other, until the parent is gone.

        `decode` returns when the stream has ended, and raises `Failed` or anything else when it was lost.
        """
        ring: RingWriter | None = None
        while (received := link.receive(self._parent)) is not None:
            request, pipes = received
            if ring is None:
                ready_read, ready_write, free_read = pipes
                ring = RingWriter(self._parent, ready_read, ready_write, free_read)
            ring.lossless = request["lossless"]
            link.send(self._parent, {"is": "begun"})  # the start of an interpreter is not the camera's time
            link.send(self._parent, _outcome(decode, request, ring))

    def _watch(self) -> None:
        watching = select.poll()
        watching.register(self._parent, select.POLLRDHUP)
        watching.poll()
        self._on_parent_gone()


def _outcome(decode: Callable[[Request, RingWriter], None], request: Request, ring: RingWriter) -> Request:
    try:
        decode(request, ring)
    except Failed as failed:
        return {"is": "failed", "kind": failed.kind, "reason": str(failed)}
    except Exception as error:  # whatever a library throws: the parent decides whether to try again
        return {"is": "failed", "kind": "passing", "reason": reason_of(error)}
    return {"is": "ended"}
