"""A camera that moves slowly over scikit-image's photographs: a stream without any hardware."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from edge.errors import MissingPackageError, SourceError
from edge.frame import Frame
from edge.pixels import Image
from edge.protocols import SourceInfo

SHOT_S = 4.0
"""How long the camera stays on one photograph, the crossfade to the next included."""

FADE_S = 0.6


@dataclass(frozen=True)
class Shot:
    """One photograph and the camera's way over it.

    Attributes:
        file: in scikit-image's data folder (only files that its wheel carries).
        begin, end: (x, y, zoom): the centre of the view, as parts of the photograph's width and
            height, and the magnification; at 1.0 the view is as large as the photograph allows.
    """

    file: str
    begin: tuple[float, float, float]
    end: tuple[float, float, float]


SHOTS = (
    Shot("chelsea.png", (0.50, 0.60, 1.00), (0.58, 0.48, 1.30)),
    Shot("astronaut.png", (0.50, 0.36, 1.00), (0.46, 0.30, 1.30)),
    Shot("motorcycle_left.png", (0.42, 0.55, 1.05), (0.58, 0.60, 1.20)),
    Shot("rocket.jpg", (0.50, 0.62, 1.25), (0.50, 0.38, 1.05)),
    Shot("coffee.png", (0.50, 0.48, 1.30), (0.50, 0.52, 1.00)),
    Shot("hubble_deep_field.jpg", (0.40, 0.45, 1.00), (0.60, 0.55, 1.25)),
)


@dataclass(frozen=True)
class DemoOptions:
    """The query of the URI: `demo://?frames=300&width=1280&height=720&fps=30`; frames=0 is endless."""

    frames: int = 0
    width: int = 1280
    height: int = 720
    fps: int = 30

    @classmethod
    def parse(cls, uri: str) -> DemoOptions:
        """Read the query; raises SourceError for an unknown key or a value out of range."""
        _, _, query = uri.partition("://")
        pairs = dict(parse_qsl(query.lstrip("/?"), keep_blank_values=True))
        limits = {"frames": (0, 10**9), "width": (16, 7680), "height": (16, 4320), "fps": (1, 1000)}
        for key, text in pairs.items():
            low, high = limits.get(key, (0, -1))
            if not text.isdecimal() or not low <= int(text) <= high:
                ranges = ", ".join(f"{name} {least} to {most}" for name, (least, most) in limits.items())
                raise SourceError(f"'{uri}': '{key}={text}' is not an option of demo://. It takes: {ranges}.")
        return cls(**{key: int(text) for key, text in pairs.items()})


class DemoSource:
    """Frames computed from their index alone, so that every run shows the same stream."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._options = DemoOptions.parse(uri)
        self._photographs: list[Image] = []
        self._fading = np.empty((0, 0, 3), np.uint8)
        self._index = 0

    def open(self) -> SourceInfo:
        """Load and enlarge the photographs; raises MissingPackageError without scikit-image."""
        o = self._options
        folder = _data_folder()
        self._photographs = [_covering(folder / shot.file, o.width, o.height) for shot in SHOTS]
        self._fading = np.empty((o.height, o.width, 3), np.uint8)
        self._index = 0
        return SourceInfo(self._uri, o.width, o.height, float(o.fps), o.frames or None, "file")

    def read(self, frame: Frame) -> bool:
        """Render the next frame. Capture is the moment of this call."""
        if self._options.frames and self._index >= self._options.frames:
            return False
        frame.stamps.mark("capture")
        self._render(self._index, frame.buffer(self._options.height, self._options.width))
        frame.index, frame.name, frame.capture_clock = self._index, "", "file"
        self._index += 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None:
        """Free the photographs."""
        self._photographs = []

    def _render(self, index: int, out: Image) -> None:
        """The picture of frame `index`, in the last moments of a shot mixed with the next one."""
        import cv2

        at_s = index / self._options.fps
        shot, into_s = int(at_s // SHOT_S), at_s % SHOT_S
        self._view(shot, into_s, out)
        fade = (into_s - (SHOT_S - FADE_S)) / FADE_S
        if fade > 0:
            self._view(shot + 1, into_s - SHOT_S, self._fading)
            cv2.addWeighted(out, 1 - fade, self._fading, fade, 0, dst=out)

    def _view(self, shot: int, at_s: float, out: Image) -> None:
        """What the camera sees `at_s` seconds into a shot (negative while it fades in)."""
        import cv2

        number = shot % len(SHOTS)
        progress = (at_s + FADE_S) / (SHOT_S + FADE_S)
        begin, end = np.array(SHOTS[number].begin), np.array(SHOTS[number].end)
        photograph = self._photographs[number]
        matrix = _window(photograph, out, *(begin + (end - begin) * progress))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (out.shape[1], out.shape[0])
        cv2.warpAffine(photograph, matrix, size, dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _window(photograph: Image, out: Image, x: float, y: float, zoom: float) -> NDArray[np.float64]:
    """The 2x3 matrix from a pixel of `out` to one of `photograph`; the view stays inside the photograph."""
    (have_h, have_w), (out_h, out_w) = photograph.shape[:2], out.shape[:2]
    view_w, view_h = out_w / zoom, out_h / zoom
    left = min(max(x * have_w - view_w / 2, 0.0), have_w - view_w)
    top = min(max(y * have_h - view_h / 2, 0.0), have_h - view_h)
    return np.array([[1 / zoom, 0.0, left], [0.0, 1 / zoom, top]])


def _covering(path: Path, width: int, height: int) -> Image:
    """A photograph as RGB, just large enough to cover the view.

    At zoom 1 one of its pixels is one of the view's, so that the camera only ever enlarges and fine
    detail does not shimmer.
    """
    import cv2

    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, path
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.cvtColor(cv2.resize(picture, size, interpolation=method), cv2.COLOR_BGR2RGB))


def _data_folder() -> Path:
    """Where scikit-image keeps its photographs, found without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise MissingPackageError("scikit-image", "demo", "The demo source")
    return Path(spec.origin).parent / "data"
