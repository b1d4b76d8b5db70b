"""uvicorn's protocol with two deadlines that it lacks: for a request to arrive and for a client to read."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""A request must have arrived whole by then; a connection must begin one."""

WRITE_S = 10.0
"""A client that does not read what was sent for so long is dropped, whatever it asked for."""


class DeadlineProtocol(H11Protocol):
    """Drops clients that send or read too slowly. What they left in the buffers goes with them."""

    _request_due: asyncio.TimerHandle | None = None
    _write_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # full means: anything is left that the kernel did not take
        self._request_due = self.loop.call_later(REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """A part of a request, or all of it."""
        super().data_received(data)
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if arriving and self._request_due is None:
            self._request_due = self.loop.call_later(REQUEST_S, self.transport.abort)
        elif not arriving:
            self._request_due = _cancel(self._request_due)

    def pause_writing(self) -> None:
        """The buffer is full: the client reads more slowly than we write."""
        super().pause_writing()
        self._write_due = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._write_due = _cancel(self._write_due)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        self._request_due, self._write_due = _cancel(self._request_due), _cancel(self._write_due)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer; returns None, which is what is left of it."""
    if timer is not None:
        timer.cancel()
    return None
