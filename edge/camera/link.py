"""What goes between a camera and its child process, and who owns which slot of the ring.

The frames lie in a `memfd`: a head with the number of frames captured so far, then `SLOTS` slots. Which slot
is whose goes through two pipes, of tokens of fixed size, so that the kernel decides every race:

    ready   the child writes a token for each frame. Before it does, it takes back, reading from the same
            pipe, a token that still lies there: the frame gives way to the newer one. A token is read once,
            by the child or by the parent, never by both, and so each frame is either delivered or dropped.
    free    the parent writes a slot back once its pixels are converted.

Requests, answers and the `memfd` itself go over a Unix socket as JSON, one object a message. Nothing of a
camera's address is ever in an argument or in the environment.

Standard library only: the GStreamer child imports it under the system's Python.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from typing import Any, NamedTuple

SLOTS = 3
"""One being written, one ready, one in the parent's hands."""

HEAD_BYTES = 4096
PAGE = 4096
TO_MEMORY = "@to-memory"
"""In a pipeline: here the child puts JetPack's converter where it is there, since JetPack's decoders leave
pictures in the GPU's memory."""

_COUNT = struct.Struct("<Q")
_TOKEN = struct.Struct("<IIQqqq")
_NO_MEDIA = -(2**63)
_MESSAGE_BYTES = 65_536
_TEXT_CHARACTERS = 4_000
"""Of a reason; an address of many thousand signs must not stop a message."""


class Token(NamedTuple):
    """One frame in the ring.

    Attributes:
        generation: of the ring; a new one comes with each change of the pictures' layout.
        slot: of the ring.
        number: of the frame, from 1, counting all that this child captured.
        capture_ns, decode_ns: of the monotonic clock.
        media_ns: the stream's own timestamp, None where it has none.
    """

    generation: int
    slot: int
    number: int
    capture_ns: int
    decode_ns: int
    media_ns: int | None


def slot_bytes(picture_bytes: int) -> int:
    """Of a slot that takes a picture: whole pages."""
    return -(-picture_bytes // PAGE) * PAGE


def ring_bytes(picture_bytes: int) -> int:
    """Of the whole `memfd`."""
    return HEAD_BYTES + SLOTS * slot_bytes(picture_bytes)


def slot_offset(slot: int, picture_bytes: int) -> int:
    """Where a slot begins."""
    return HEAD_BYTES + slot * slot_bytes(picture_bytes)


def write_count(head: Any, captured: int) -> None:
    """Note in the ring's head how many frames were captured."""
    _COUNT.pack_into(head, 0, captured)


def read_count(head: Any) -> int:
    """How many frames were captured, as the head of a ring says."""
    return int(_COUNT.unpack_from(head, 0)[0])


def put_token(pipe: int, token: Token) -> None:
    """Write a token; the pipe holds thousands and never has more than a few."""
    media_ns = _NO_MEDIA if token.media_ns is None else token.media_ns
    os.write(pipe, _TOKEN.pack(*token[:5], media_ns))


def take_token(pipe: int) -> Token | None:
    """The oldest token of a pipe that does not block; None when there is none.

    Raises:
        EOFError: the other side is gone, and nothing is left.
    """
    with suppress(BlockingIOError):
        data = os.read(pipe, _TOKEN.size)
        if len(data) < _TOKEN.size:
            raise EOFError
        token = Token(*_TOKEN.unpack(data))
        return token._replace(media_ns=None) if token.media_ns == _NO_MEDIA else token
    return None


def put_free(pipe: int, token: Token) -> None:
    """Give a token's slot back to the child; a child that is gone needs none."""
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(pipe, _TOKEN.pack(*token[:5], 0))


def send(link: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError when the other side is gone."""
    short = {k: v[:_TEXT_CHARACTERS] if k == "reason" else v for k, v in message.items()}
    socket.send_fds(link, [json.dumps(short).encode()], list(descriptors))


def receive(link: socket.socket, most_descriptors: int = 4) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and the descriptors that came with it; None when the other side is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(
            link, _MESSAGE_BYTES, most_descriptors, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message, descriptors
