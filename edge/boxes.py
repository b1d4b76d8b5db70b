"""Arithmetic of boxes: float32 (n, 4), x0, y0, x1, y1 in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def areas(boxes: Floats) -> Floats:
    """Area of each box, float32 (n,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def shared_areas(a: Floats, b: Floats) -> Floats:
    """Area that each of `a` (n, 4) has in common with each of `b` (m, 4), float32 (n, m).

    Where they lie apart it is 0 or negative, which spares a step in the innermost loop.
    """
    a_x0, a_y0, a_x1, a_y1 = a.T.copy()[:, :, None]  # copied, because columns that lie apart are slow
    b_x0, b_y0, b_x1, b_y1 = b.T.copy()
    shared = np.minimum(a_x1, b_x1)
    shared -= np.maximum(a_x0, b_x0)
    np.maximum(shared, 0, out=shared)  # of one side is enough: then two negative ones cannot make a positive
    down = np.minimum(a_y1, b_y1)
    down -= np.maximum(a_y0, b_y0)
    shared *= down
    return np.asarray(shared, np.float32)


def overlap(a: Floats, b: Floats, iou_threshold: float) -> NDArray[np.bool_]:
    """Whether the intersection over union is larger than the threshold: bool (n, m)."""
    # shared > t * (sum of areas - shared), without a division that two empty boxes would spoil.
    limit = np.float32(iou_threshold / (1 + iou_threshold))
    return np.asarray(shared_areas(a, b) > (areas(a) * limit)[:, None] + areas(b) * limit)


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union, 0 to 1, float32 (n, m); 0 for two empty boxes."""
    shared = np.maximum(shared_areas(a, b), 0)
    union = areas(a)[:, None] + areas(b) - shared
    np.divide(shared, union, out=shared, where=union > 0)
    return shared
