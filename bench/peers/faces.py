"""Face detectors of others in ONNX Runtime, one thread: YuNet and Ultra-Light RFB-320.

Each takes uint8 (H, W, 3) RGB of any size and gives `edge.results.Faces` in pixels of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.pixels import Image
from edge.results import Faces
from edge.tasks.faces import nms

Floats = NDArray[np.float32]
SCORE_FLOOR = 0.02


def open_session(path: Path) -> Any:
    """An ONNX Runtime session on the processor, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class YuNet:
    """YuNet as OpenCV's FaceDetectorYN runs it: BGR 0 to 255, padded at the right and the bottom to 32.

    Attributes:
        session: of the dynamic model; long_side: pixels that the picture's longer side is brought to.
    """

    session: Any
    long_side: int

    def pixels(self, picture: Image) -> Floats:
        """float32 (1, 3, H, W), sides multiples of 32."""
        scale = self.long_side / max(picture.shape[:2])
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        padded = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)
        padded[:height, :width] = cv2.resize(picture, (width, height), interpolation=method)[..., ::-1]
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None])

    def infer(self, pixels: Floats) -> dict[str, Floats]:
        """The raw heads, by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, {"input": pixels}), strict=True))

    def detect(self, picture: Image) -> Faces:
        """The faces of a picture, best first."""
        pixels = self.pixels(picture)
        heads = self.infer(pixels)
        levels = [_yunet_level(heads, stride, pixels.shape[3]) for stride in (8, 16, 32)]
        boxes, scores = (np.concatenate(parts) for parts in zip(*levels, strict=True))
        return _faces(boxes, scores, picture, max(picture.shape[:2]) / self.long_side, 0.45)


def _yunet_level(heads: dict[str, Floats], stride: int, width: int) -> tuple[Floats, Floats]:
    """Boxes (n, 4) in pixels of the input and scores (n,): cls * obj, of which OpenCV takes the root."""
    score = (heads[f"cls_{stride}"] * heads[f"obj_{stride}"]).reshape(-1)
    cell = np.arange(len(score))
    corner = np.column_stack([cell % (width // stride), cell // (width // stride)])
    delta = heads[f"bbox_{stride}"].reshape(-1, 4)
    centre, half = (corner + delta[:, :2]) * stride, np.exp(delta[:, 2:]) * stride / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32), score


@dataclass(frozen=True)
class Rfb320:
    """Ultra-Light-Fast-Generic-Face-Detector RFB-320: RGB, stretched to 320x240, (x - 127) / 128."""

    session: Any

    def pixels(self, picture: Image) -> Floats:
        """float32 (1, 3, 240, 320)."""
        resized = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA).astype(np.float32)
        return np.ascontiguousarray(((resized - 127) / 128).transpose(2, 0, 1)[None])

    def infer(self, pixels: Floats) -> tuple[Floats, Floats]:
        """Scores (1, 4420, 2), background and face, and boxes (1, 4420, 4), corners as parts of the sides."""
        scores, boxes = self.session.run(["scores", "boxes"], {"input": pixels})
        return scores, boxes

    def detect(self, picture: Image) -> Faces:
        """The faces of a picture, best first."""
        scores, boxes = self.infer(self.pixels(picture))
        sides = np.array([picture.shape[1], picture.shape[0]] * 2, np.float32)
        return _faces(boxes[0] * sides, scores[0, :, 1], picture, 1.0, 0.3)


def _faces(boxes: Floats, scores: Floats, picture: Image, scale: float, iou_threshold: float) -> Faces:
    """Above the floor, without doubles, in pixels of the picture and inside it."""
    chosen = scores >= SCORE_FLOOR
    boxes, scores = boxes[chosen] * np.float32(scale), scores[chosen]
    kept = nms(boxes, scores, iou_threshold)
    edges = np.array([picture.shape[1], picture.shape[0]] * 2, np.float32)
    return Faces(np.clip(boxes[kept], 0, edges), scores[kept])
