"""Arithmetic of boxes: float32 (n, 4), x0, y0, x1, y1 in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def areas(boxes: Floats) -> Floats:
    """Area of each box, float32 (n,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of each of `a` (n, 4) with each of `b` (m, 4): float32 (n, m), 0 to 1; 0 for two
    empty boxes."""
    a_x0, a_y0, a_x1, a_y1 = a.T[:, :, None]
    b_x0, b_y0, b_x1, b_y1 = b.T
    width = np.minimum(a_x1, b_x1) - np.maximum(a_x0, b_x0)
    height = np.minimum(a_y1, b_y1) - np.maximum(a_y0, b_y0)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = areas(a)[:, None] + areas(b) - shared
    np.divide(shared, union, out=shared, where=union > 0)
    return np.asarray(shared, np.float32)
