"""A detector's loss: which cells answer for which face, and what each of them did wrong.

Assignment is SimOTA (Ge et al. 2021, YOLOX, arXiv 2107.08430, section 2.1), as YuNet uses it. The score
learns the overlap of its own box (quality focal loss, Li et al. 2020, arXiv 2006.04388, equation 2), the
box learns by distance-IoU (Zheng et al. 2020, arXiv 1911.08287). Written in `keras.ops`, for any backend.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from train.models.face import STRIDES

Tensor = Any

CENTRE_RADIUS = 2.5
"""A cell may answer for a face when it lies within so many strides of its centre."""

CANDIDATES = 10
"""At most so many cells answer for one face."""

IOU_COST = 3.0
FAR = 1e5
IMPOSSIBLE = 1e9
BOX_WEIGHT = 2.0
LARGEST_LOG_SIZE = 5.0
"""Boxes are at most exp(5) strides wide while training: the exponential must not run away."""

EPSILON = 1e-7
FACE, IGNORED = 1.0, -1.0
"""The fifth value of a target: a face, or a place that is neither face nor background; 0 is padding."""


@keras.saving.register_keras_serializable("sightline")
class WithCells(keras.layers.Layer):
    """The two heads of a level, with where each value stands.

    Scores (N, H/stride, W/stride, 1) and boxes (N, H/stride, W/stride, 4) to (N, cells, 8): logit, dx, dy,
    log w, log h, and the cell's centre x, y and stride in pixels. Computed from the heads' own shape, so
    that one network trains on crops of several sizes.
    """

    def __init__(self, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def get_config(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {**super().get_config(), "stride": self.stride}

    def call(self, heads: list[Tensor]) -> Tensor:
        """[scores, boxes] to one list of cells, row by row."""
        score, box = heads
        ones = ops.ones_like(score)
        x = (ops.cumsum(ones, axis=2) - 0.5) * self.stride
        y = (ops.cumsum(ones, axis=1) - 0.5) * self.stride
        level = ops.concatenate([score, box, x, y, ones * self.stride], axis=-1)
        return ops.reshape(level, (ops.shape(level)[0], -1, 8))


def joined_heads(heads: list[Tensor]) -> Tensor:
    """Six heads in the model's order to one tensor (N, cells, 8), see `WithCells`."""
    levels = zip(STRIDES, heads[0::2], heads[1::2], strict=True)
    return keras.layers.Concatenate(axis=1)([WithCells(stride)([s, b]) for stride, s, b in levels])


@keras.saving.register_keras_serializable("sightline")
class DetectionLoss(keras.losses.Loss):
    """The loss of a batch: targets (faces, 6), predictions (N, cells, 8) of `joined_heads`.

    A target is x0, y0, x1, y1 in pixels of the crop, then FACE, IGNORED or 0 for padding, and the index
    of its image in the batch: one list for all images, since assignment costs as much as there are
    rows, and rows by image would be padding for the most part.
    """

    def __init__(self, name: str = "detection", **kwargs: Any) -> None:
        super().__init__(name=name, reduction="sum", **kwargs)

    def get_config(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"name": self.name}

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Scalar: the batch's loss by face."""
        cells = y_pred[0, :, 5:]
        logits, boxes = y_pred[..., 0], decoded(y_pred[..., 1:5], cells)
        taken, target, ignored = assign(ops.stop_gradient(logits), ops.stop_gradient(boxes), y_true, cells)
        overlap, penalty = overlap_and_distance(boxes, target)
        quality = ops.stop_gradient(ops.where(taken, overlap, 0.0))
        count = ops.maximum(ops.sum(ops.cast(taken, "float32")), 1.0)
        keep = ops.cast(ops.logical_or(taken, ops.logical_not(ignored)), "float32")
        score_loss = ops.sum(quality_focal(logits, quality) * keep) / count
        wrong = ops.where(taken, 1.0 - overlap + penalty, 0.0)
        box_loss = ops.sum(wrong * quality) / ops.maximum(ops.sum(quality), 1.0)
        return score_loss + BOX_WEIGHT * box_loss


def decoded(raw: Tensor, cells: Tensor) -> Tensor:
    """(N, cells, 4) of dx, dy, log w, log h to x0, y0, x1, y1 in pixels, as the edge decodes them."""
    strides = cells[:, 2:]
    centres = cells[:, :2] + raw[..., :2] * strides
    halves = ops.exp(ops.clip(raw[..., 2:], -LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)) * strides / 2
    return ops.concatenate([centres - halves, centres + halves], axis=-1)


def quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """|quality - p|^2 times the cross-entropy of p = sigmoid(logit) with the soft target."""
    entropy = ops.softplus(logits) - quality * logits
    return ops.square(quality - ops.sigmoid(logits)) * entropy


def assign(logits: Tensor, boxes: Tensor, truth: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SimOTA: each face takes the cheapest of the cells near it, as many as its overlaps add up to.

    Args:
        logits: (N, cells); boxes: (N, cells, 4), both as predicted now, without gradient.
        truth: (faces, 6); cells: (cells, 3).

    Returns:
        taken bool (N, cells), the box each taken cell answers for (N, cells, 4), and ignored bool
        (N, cells): cells inside an IGNORED place.
    """
    faces, image = truth[:, :5], ops.cast(truth[:, 5], "int32")
    inside, near = _placed(faces, cells)
    possible = (inside | near) & (faces[:, 4:] == FACE)
    overlaps = overlap_and_distance(ops.take(boxes, image, axis=0), ops.expand_dims(faces[:, :4], 1))[0]
    overlaps = ops.where(possible, overlaps, 0.0)
    cost = (
        ops.take(ops.softplus(-logits), image, axis=0)
        - IOU_COST * ops.log(overlaps + EPSILON)
        + ops.where(inside & near, 0.0, FAR)
    )
    cost = ops.where(possible, cost, IMPOSSIBLE)
    cost = ops.where(cost <= _dearest_allowed(cost, overlaps), cost, IMPOSSIBLE)
    count = ops.shape(logits)[0]
    cheapest = -ops.segment_max(-cost, image, num_segments=count)
    mine = ops.cast((cost < IMPOSSIBLE) & (cost <= ops.take(cheapest, image, axis=0)), "float32")
    owners = ops.segment_sum(mine, image, num_segments=count)
    corners = ops.expand_dims(mine, -1) * ops.expand_dims(faces[:, :4], 1)
    # Two faces that want one cell at the very same cost share it: their mean.
    corners = ops.segment_sum(corners, image, num_segments=count)
    target = corners / ops.expand_dims(ops.maximum(owners, 1.0), -1)
    blind = ops.cast(inside & (faces[:, 4:] == IGNORED), "float32")
    return owners > 0, target, ops.segment_sum(blind, image, num_segments=count) > 0


def _dearest_allowed(cost: Tensor, overlaps: Tensor) -> Tensor:
    """The cost of each face's last cell (faces, 1): it takes sum(best overlaps) cells, at least one."""
    best, _ = ops.top_k(overlaps, CANDIDATES)
    count = ops.clip(ops.cast(ops.sum(best, axis=-1), "int32"), 1, CANDIDATES)
    cheapest, _ = ops.top_k(-cost, CANDIDATES)
    return -ops.take_along_axis(cheapest, ops.expand_dims(count - 1, -1), axis=-1)


def _placed(faces: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a cell's centre lies inside a face's box, and near its centre: bool (faces, cells)."""
    x, y, stride = cells[:, 0], cells[:, 1], cells[:, 2]
    left, top, right, bottom = (faces[:, i : i + 1] for i in range(4))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    reach = CENTRE_RADIUS * stride
    near = (ops.abs(x - (left + right) / 2) < reach) & (ops.abs(y - (top + bottom) / 2) < reach)
    return inside, near


def overlap_and_distance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of boxes (..., 4), and the squared distance of their centres over the hull's squared diagonal."""
    sizes_a, sizes_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    shared = ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]), 0.0)
    common = shared[..., 0] * shared[..., 1]
    union = sizes_a[..., 0] * sizes_a[..., 1] + sizes_b[..., 0] * sizes_b[..., 1] - common
    hull = ops.maximum(a[..., 2:], b[..., 2:]) - ops.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = ops.sum(ops.square(apart), -1) / (ops.sum(ops.square(hull), -1) + EPSILON)
    return common / (union + EPSILON), distance
