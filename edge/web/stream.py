"""Live pictures over HTTP: MJPEG for as long as somebody looks, or one picture.

A stream is one coroutine. It sends the newest picture and, when that has left the process, the newest
one of that moment: a slow viewer gets fewer pictures, and none waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge.web.gate import refusal
from edge.web.live import LiveSink, Picture, Viewer

BOUNDARY = "picture"
SNAPSHOT_S = 3.0
"""How long a single picture may take to come."""

LOOK_S = 2.0
"""Without a picture for so long, a stream looks whether its camera is still there."""


class Streams:
    """All that watch; their number is bounded. Lives in the web server's event loop.

    Args:
        most: viewers at a time.
        knows: whether there is a camera of this name; a reload may take it away.
    """

    def __init__(self, live: LiveSink, most: int, knows: Callable[[str], bool]) -> None:
        self._live = live
        self._most = most
        self._knows = knows
        self._open: set[_Watch] = set()

    def __len__(self) -> int:
        return len(self._open)

    def answer(self, camera: str, make: Callable[[Streams, str], Response]) -> Response:
        """A response of the kind `make`; a refusal where there are too many viewers."""
        if len(self._open) >= self._most:
            return refusal(503, f"{self._most} viewers watch already (max_viewers).", {"retry-after": "5"})
        return make(self, camera)

    @contextmanager
    def watch(self, camera: str) -> Iterator[_Watch]:
        """Watch a camera for the duration of the `with`."""
        watch = _Watch(lambda: self._knows(camera))
        with self._live.watch(camera, watch.notify) as viewer:
            watch.viewer = viewer
            self._open.add(watch)
            try:
                yield watch
            finally:
                self._open.discard(watch)

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        for watch in self._open:
            watch.ended = True
            watch.changed.set()


class _Watch:
    """A viewer in the event loop.

    Args:
        has_camera: whether its camera is still there.

    Attributes:
        changed: there may be a new picture, or the end.
        ended: nobody looks any more, or the server stops.
    """

    viewer: Viewer

    def __init__(self, has_camera: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_camera = has_camera
        self.changed = asyncio.Event()
        self.ended = False

    def notify(self) -> None:
        """From the encoder's thread. The loop may be closed already, when nobody watches any more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.changed.set)

    async def next(self) -> Picture | None:
        """The next picture; None at the end."""
        while not self.ended:
            self.changed.clear()
            if (picture := self.viewer.newest()) is not None:
                return picture
            try:
                await asyncio.wait_for(self.changed.wait(), LOOK_S)
            except asyncio.TimeoutError:
                self.ended = self.ended or not self._has_camera()
        return None

    async def until_disconnected(self, receive: Receive) -> None:
        """End when the client goes away. A stream without pictures sends nothing, and would not notice."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.ended = True
        self.changed.set()


class MjpegResponse(Response):
    """Pictures one after the other (multipart/x-mixed-replace), which browsers show in an `<img>`."""

    def __init__(self, streams: Streams, camera: str) -> None:
        super().__init__(media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        del self.headers["content-length"]
        self._streams = streams
        self._camera = camera

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with self._streams.watch(self._camera) as watch:
            leaving = asyncio.create_task(watch.until_disconnected(receive))
            try:
                await send(start)
                await send(_chunk(f"--{BOUNDARY}\r\n".encode()))
                while scope["method"] != "HEAD" and (picture := await watch.next()) is not None:
                    await send(_chunk(_part(picture)))
                    # Returns when the picture has left the process: only then is the next one chosen.
                    await send(_chunk(b""))
            finally:
                leaving.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class SnapshotResponse(Response):
    """One picture, the next that the camera gives; 503 when it gives none for a while."""

    def __init__(self, streams: Streams, camera: str) -> None:
        super().__init__()
        self._streams = streams
        self._camera = camera

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.watch(self._camera) as watch:
            try:
                picture = await asyncio.wait_for(watch.next(), SNAPSHOT_S)
            except asyncio.TimeoutError:
                picture = None
        if picture is None:
            answer = refusal(503, "The camera gives no picture at the moment.", {"retry-after": "2"})
        else:
            answer = Response(picture.jpeg, media_type="image/jpeg")
        await answer(scope, receive, send)


def _part(picture: Picture) -> bytes:
    """With the boundary behind it: browsers show a picture when they see where it ends."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n".encode()
    return head + picture.jpeg + f"\r\n--{BOUNDARY}\r\n".encode()


def _chunk(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}
