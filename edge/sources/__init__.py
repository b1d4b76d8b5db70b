"""Where frames come from. `open_source` chooses the source by its URI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from edge.errors import SourceError
from edge.protocols import Source
from edge.tables import SOURCES, resolve

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

LATER = ("v4l2", "csi", "rtsp", "rtsps", "http", "https", "gst")
"""Schemes of the public interface that this version cannot read yet."""

READS = "demo://, a video file, an image, a folder of images, or a glob of images such as 'shots/*.jpg'"


def open_source(uri: str, decode_threads: int = 1) -> Source:
    """The source that `uri` names, not yet opened.

    Args:
        uri: `demo://`, a video file, an image, a folder of images or a glob of images.
        decode_threads: of a video's decoder.

    Raises:
        SourceError: a scheme that is unknown or not supported yet, or a path that does not exist.
    """
    kind = _kind(uri)
    options = {"decode_threads": decode_threads} if kind == "video" else {}
    return cast(Source, resolve(SOURCES[kind])(uri, **options))


def _kind(uri: str) -> str:
    scheme = _scheme(uri)
    if scheme == "demo":
        return "demo"
    if scheme in LATER:
        raise SourceError(f"{scheme}:// sources come with a later version. This one reads {READS}.")
    if scheme:
        raise SourceError(f"Unknown kind of source '{scheme}://'. Expected {READS}.")
    return _kind_of_path(uri)


def _scheme(uri: str) -> str:
    """The part before `://` in lower case; a bare number is a V4L2 camera; empty for a path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match:
        return match.group(1).lower()
    return "v4l2" if uri.isdecimal() else ""


def _kind_of_path(text: str) -> str:
    path = Path(text)
    if path.is_file():
        return "images" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
    if path.is_dir() or any(sign in text for sign in "*?["):
        return "images"
    raise SourceError(f"No such source: '{text}'. Expected {READS}.")
