"""The child's side of the ring, see `edge.camera.link`. Standard library only."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import socket

from edge.camera import link
from edge.camera.layout import Layout

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""The parent may map it and need not fear that the pages vanish under its hands."""


class RingWriter:
    """Captures frames: `slot_for`, fill the slot, `publish`.

    Args:
        parent: the socket over which a new ring is sent.
        ready_read, ready_write, free_read: the ends of the two pipes that do not block.
        lossless: wait for a free slot instead of taking a frame back that nobody has read.

    Attributes:
        captured: frames so far.
    """

    def __init__(
        self, parent: socket.socket, ready_read: int, ready_write: int, free_read: int, lossless: bool = False
    ) -> None:
        self.lossless = lossless
        self._parent = parent
        self._ready_read, self._ready_write, self._free_read = ready_read, ready_write, free_read
        self._layout: Layout | None = None
        self._memory: mmap.mmap | None = None
        self._generation = self.captured = 0
        self._writing: int | None = None
        self._free: list[int] = []

    def slot_for(self, layout: Layout) -> memoryview:
        """The bytes of a slot that nobody else uses; a picture of another layout gets a new ring."""
        if layout != self._layout:
            self._renew(layout)
        if self._writing is None:  # else the last one was not published, since filling it failed
            self._writing = self._take_slot()
        begin = link.slot_offset(self._writing, layout.size)
        assert self._memory is not None, "made above"
        return memoryview(self._memory)[begin : begin + layout.size]

    def publish(self, capture_ns: int, decode_ns: int, media_ns: int | None) -> None:
        """Announce the slot that was filled; in place of one that nobody has read yet."""
        slot, self._writing = self._writing, None
        assert self._memory is not None, "slot_for comes first"
        assert slot is not None, "slot_for comes first"
        self.captured += 1
        link.write_count(self._memory, self.captured)
        if not self.lossless:
            self._take_back()
        token = link.Token(self._generation, slot, self.captured, capture_ns, decode_ns, media_ns)
        link.put_token(self._ready_write, token)

    def _renew(self, layout: Layout) -> None:
        """A new ring, sent to the parent before any token of it."""
        size = link.ring_bytes(layout.size)
        descriptor = os.memfd_create("sightline-camera", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            memory = mmap.mmap(descriptor, size)
            link.write_count(memory, self.captured)
            self._generation += 1
            message = {"is": "ring", "generation": self._generation, "layout": layout._asdict()}
            link.send(self._parent, message, (descriptor,))
        finally:
            os.close(descriptor)
        self._memory, self._layout = memory, layout
        self._free, self._writing = list(range(link.SLOTS)), None

    def _take_back(self) -> None:
        while (token := link.take_token(self._ready_read)) is not None:
            self._freed(token)

    def _take_slot(self) -> int:
        """A free slot; raises EOFError when the parent is gone."""
        while True:
            while (token := link.take_token(self._free_read)) is not None:
                self._freed(token)
            if self._free:
                return self._free.pop()
            select.select([self._free_read], [], [])

    def _freed(self, token: link.Token) -> None:
        if token.generation == self._generation:
            self._free.append(token.slot)
