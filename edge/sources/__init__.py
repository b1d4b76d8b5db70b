"""Where frames come from. `open_source` chooses the source by its URI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from edge.errors import SourceError
from edge.protocols import Source
from edge.secret import resolved
from edge.tables import SOURCES, resolve

if TYPE_CHECKING:
    from edge.config import StreamSettings

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

CAMERAS = ("v4l2", "csi", "rtsp", "rtsps", "http", "https", "gst")
"""Schemes that `edge.camera` reads."""

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".wmv")
"""What over HTTP is a file with an end, and not a live camera."""

READS = (
    "demo://, a camera (rtsp://, http://, 0, /dev/video0, csi://0, gst://PIPELINE), a video file, "
    "an image, a folder of images, or a glob of images such as 'shots/*.jpg'"
)


def open_source(uri: str, decode_threads: int = 1, keep_trying: bool = False) -> Source:
    """The source that `uri` names, not yet opened.

    Args:
        uri: `demo://`, a camera, a video file, an image, a folder of images or a glob of images.
        decode_threads: of the decoder of a video or a camera.
        keep_trying: of a camera: `open` waits for as long as it takes until it answers.

    Raises:
        SourceError: a scheme that is unknown, a camera's address that cannot be read, or a path that does
            not exist.
    """
    kind = _kind(uri)
    options: dict[str, Any] = {"decode_threads": decode_threads} if kind in ("video", "camera") else {}
    if kind == "camera":
        options |= {"keep_trying": keep_trying, "live": not _is_file_over_http(uri)}
    return cast(Source, resolve(SOURCES[kind])(uri, **options))


def source_of(settings: StreamSettings) -> Source:
    """The one source of a stream's settings, not yet opened, with what its secrets stand for.

    Raises:
        SourceError: as `open_source`. InputError: a secret that is not there.
    """
    return open_source(resolved(settings.source), settings.decode_threads)


def _is_file_over_http(uri: str) -> bool:
    return _scheme(uri) in ("http", "https") and urlsplit(uri).path.lower().endswith(VIDEO_SUFFIXES)


def _kind(uri: str) -> str:
    scheme = _scheme(uri)
    if scheme in ("demo", "fault"):
        return scheme
    if scheme in CAMERAS:
        return "camera"
    if scheme:
        raise SourceError(f"Unknown kind of source '{scheme}://'. Expected {READS}.")
    return _kind_of_path(uri)


def _scheme(uri: str) -> str:
    """The part before `://` in lower case; `v4l2` of a bare number or device; empty for another path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match:
        return match.group(1).lower()
    return "v4l2" if is_device(uri) else ""


def is_device(uri: str) -> bool:
    """Whether it names a V4L2 camera by its number or by its path below /dev."""
    return uri.isdecimal() or uri.startswith(("/dev/video", "/dev/v4l/"))


def _kind_of_path(text: str) -> str:
    path = Path(text)
    if path.is_file():
        return "images" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
    if path.is_dir() or any(sign in text for sign in "*?["):
        return "images"
    raise SourceError(f"No such source: '{text}'. Expected {READS}.")
