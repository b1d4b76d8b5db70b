"""Pictures on the disk: one image, a folder of them, or a glob."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np

from edge.errors import SourceError
from edge.frame import Frame
from edge.pixels import Image
from edge.protocols import SourceInfo
from edge.sources import IMAGE_SUFFIXES


def read_image(path: Path) -> Image:
    """One picture as uint8 (H, W, 3) BGR, turned upright by its EXIF tag.

    Grey pictures become colour, an alpha channel is dropped, and of 16 bits the upper 8 are kept.

    Raises:
        SourceError: the file cannot be read, is not an image, or is too large for OpenCV (2^30 pixels)
            or for the memory.
    """
    import cv2

    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise SourceError(f"{path} cannot be read: it is no file.")
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "") or "there is not enough memory"
        raise SourceError(
            f"{path} cannot be decoded: {reason}. A picture has at most 2^30 pixels, each takes 3 bytes "
            "of memory. Make it smaller, or remove it."
        ) from error
    if picture is None:
        raise SourceError(
            f"{path} is not an image that can be decoded ({content.size} bytes): "
            "it is damaged, cut short, or of another format. Replace or remove it."
        )
    return np.asarray(picture, np.uint8)


class ImagesSource:
    """Each picture once, in the order of the sorted paths.

    `frame.name` is the file's name; where a glob looks into several folders, its path from the last folder that the
    glob names in full.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._paths: list[Path] = []
        self._root = Path()
        self._index = 0
        self._first: Image | None = None

    def open(self) -> SourceInfo:
        """Find the pictures and read the first.

        Raises:
            SourceError: there is none, or the first one cannot be decoded.
        """
        self._paths, self._root = _find(self._uri), _root(self._uri)
        self._index = 0
        self._first = read_image(self._paths[0])
        alone = len(self._paths) == 1
        height, width = self._first.shape[:2] if alone else (0, 0)
        return SourceInfo(self._uri, width, height, 0.0, len(self._paths), "file")

    def read(self, frame: Frame) -> bool:
        """Decode the next picture; raises SourceError when it is not an image."""
        if self._index >= len(self._paths):
            return False
        import cv2

        frame.stamps.mark("capture")
        path = self._paths[self._index]
        frame.pixels = np.empty(
            (0, 0, 3), np.uint8
        )  # two large pictures at a time could be more than the memory holds
        picture = read_image(path) if self._first is None else self._first
        self._first = None
        frame.pixels = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture), np.uint8)
        name = path.relative_to(self._root).as_posix()
        frame.index, frame.name, frame.capture_clock = self._index, name, "file"
        self._index += 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None:
        """Forget the pictures."""
        self._paths, self._first = [], None


def _root(uri: str) -> Path:
    """The folder from which pictures are named."""
    path = Path(uri)
    if path.is_dir():
        return path
    while glob.has_magic(str(path)) and not path.is_file():
        path = path.parent
    return path.parent if path.is_file() else path


def _find(uri: str) -> list[Path]:
    path = Path(uri)
    if path.is_file():
        return [path]
    # A glob leaves hidden files out too: they are what systems leave beside pictures, not pictures.
    candidates = (
        (p for p in path.iterdir() if not p.name.startswith("."))
        if path.is_dir()
        else map(Path, glob.glob(uri, recursive=True))
    )
    found = sorted(p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise SourceError(
            f"'{uri}' holds no images. Expected files ending in {', '.join(IMAGE_SUFFIXES)}; "
            "for pictures in subfolders, give a glob: 'folder/**/*.jpg'."
        )
    return found
