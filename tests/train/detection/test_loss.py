"""The detector's loss: who answers for a face, held against a slow and plain computation."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edge.tasks.faces import Grid
from train.detection import loss
from train.detection.loss import (
    FACE,
    IGNORED,
    DetectionLoss,
    WithCells,
    assign,
    decoded,
    joined_heads,
    quality_focal,
)
from train.models.face import STRIDES

SIZE = 64
CELLS = Grid.of_size(SIZE, SIZE, STRIDES).cells


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160)])
def test_the_cells_are_those_that_the_edge_decodes_with(height: int, width: int) -> None:
    shapes = [(height // stride, width // stride, depth) for stride in STRIDES for depth in (1, 4)]
    heads = [np.full((2, *shape), index, np.float32) for index, shape in enumerate(shapes)]
    joined = keras.ops.convert_to_numpy(joined_heads(heads))
    expected = Grid.of_size(height, width, STRIDES).cells
    for image in range(2):
        assert np.array_equal(joined[image, :, 5:], expected)
    assert joined[0, 0, :5].tolist() == [0, 1, 1, 1, 1]
    assert joined[0, -1, :5].tolist() == [4, 5, 5, 5, 5]


def boxes_of(raw: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(decoded(raw.astype(np.float32), CELLS))


def test_a_box_does_not_grow_without_end() -> None:
    boxes = boxes_of(np.full((1, len(CELLS), 4), 1e3))
    assert (boxes[0, :, 2] - boxes[0, :, 0]) / CELLS[:, 2] == pytest.approx(math.exp(5), rel=1e-4)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    corner0, corner1 = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.clip(corner1 - corner0, 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared + 1e-7))


def plain_assign(logits: np.ndarray, boxes: np.ndarray, faces: np.ndarray) -> dict[int, list[int]]:
    """SimOTA for one image, cell by cell: {cell: its face, or those that want it at the very same cost}."""
    wanted: dict[int, list[tuple[float, int]]] = {}
    for index, face in enumerate(faces):
        costs, overlaps = {}, []
        for cell, (x, y, stride) in enumerate(CELLS):
            inside = face[0] < x < face[2] and face[1] < y < face[3]
            reach = loss.CENTRE_RADIUS * stride
            near = abs(x - (face[0] + face[2]) / 2) < reach and abs(y - (face[1] + face[3]) / 2) < reach
            if inside or near:
                overlap = iou(boxes[cell], face[:4])
                overlaps.append(overlap)
                entropy = math.log1p(math.exp(-logits[cell]))
                costs[cell] = entropy - 3 * math.log(overlap + 1e-7) + (0 if inside and near else 1e5)
        total = sum(sorted(overlaps)[-10:])
        count = min(10, max(1, int(total)))
        # What float32 cannot tell apart may be decided either way: at 1e5 its steps are 0.008.
        assume(abs(total - round(total)) > 1e-4)
        ranked = sorted(costs.values())
        assume(count >= len(ranked) or ranked[count] - ranked[count - 1] > 0.02)
        for cell in sorted(costs, key=costs.__getitem__)[:count]:
            wanted.setdefault(cell, []).append((costs[cell], index))
    lowest = {cell: min(claims)[0] for cell, claims in wanted.items()}
    return {cell: [f for cost, f in claims if cost == lowest[cell]] for cell, claims in wanted.items()}


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.7, 3.0]))
@example(277, 0.7)  # A cell whose box overlaps neither of two faces that want it.
def test_assignment_is_that_of_the_plain_computation(seed: int, wander: float) -> None:
    """`wander` strides off their cells, boxes of cells that may not answer overlap the faces as well."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 1, (2, len(CELLS))).astype(np.float32)
    boxes = boxes_of(rng.normal(0, [wander, wander, 0.7, 0.7], (2, len(CELLS), 4)))
    truth = np.zeros((10, 6), np.float32)
    for row in range(7):
        corner, size = rng.uniform(0, 45, 2), rng.uniform(4, 30, 2)
        truth[row] = [*corner, *(corner + size), FACE, row % 2]
    taken, target, ignored = (keras.ops.convert_to_numpy(v) for v in assign(logits, boxes, truth, CELLS))
    assert not ignored.any()
    for image in range(2):
        faces = truth[(truth[:, 5] == image) & (truth[:, 4] == FACE)]
        expected = plain_assign(logits[image], boxes[image], faces)
        assert sorted(expected) == np.flatnonzero(taken[image]).tolist()
        for cell, owners in expected.items():
            assert np.allclose(target[image, cell], faces[owners, :4].mean(axis=0), atol=1e-4)


def blank() -> np.ndarray:
    """Raw heads of one image, all zero, with their cells."""
    return np.concatenate([np.zeros((len(CELLS), 5), np.float32), CELLS], axis=1)[None]


def test_ignored_places_are_neither_face_nor_background() -> None:
    truth = np.array([[0, 0, SIZE, SIZE, IGNORED, 0]], np.float32)
    raw = blank()
    assert float(DetectionLoss()(truth, raw)) == 0
    assert float(DetectionLoss()(np.zeros((1, 6), np.float32), raw)) > 1


def perfect(face: np.ndarray) -> np.ndarray:
    """Raw heads whose every box is the face; the score is sure of it everywhere."""
    raw = blank()
    centre, size = (face[:2] + face[2:4]) / 2, face[2:4] - face[:2]
    raw[0, :, 1:3] = (centre - CELLS[:, :2]) / CELLS[:, 2:]
    raw[0, :, 3:5] = np.log(size / CELLS[:, 2:])
    return raw


def test_the_loss_is_zero_for_a_perfect_answer() -> None:
    truth = np.array([[8, 10, 40, 50, FACE, 0]], np.float32)
    raw = perfect(truth[0])
    taken = keras.ops.convert_to_numpy(assign(raw[..., 0], boxes_of(raw[..., 1:5]), truth, CELLS)[0])
    assert taken.sum() >= 10
    raw[..., 0] = np.where(taken, 20, -20)
    assert float(DetectionLoss()(truth, raw)) == pytest.approx(0, abs=1e-3)


def plain_loss(truth: np.ndarray, raw: np.ndarray, overlaps: np.ndarray | None = None) -> float:
    """Of one image, cell by cell; `overlaps` in place of the predictions' own say how good each box is."""
    boxes = boxes_of(raw[:, :, 1:5])
    found = assign(raw[:, :, 0], boxes, truth, CELLS)
    taken, target, ignored = (keras.ops.convert_to_numpy(value)[0] for value in found)
    score = box = total = 0.0
    for cell in range(len(CELLS)):
        quality = 0.0
        if taken[cell]:
            mine, face = boxes[0, cell], target[cell]
            hull = np.maximum(mine[2:], face[2:]) - np.minimum(mine[:2], face[:2])
            apart = (mine[:2] + mine[2:]) / 2 - (face[:2] + face[2:]) / 2
            quality = iou(mine, face) if overlaps is None else overlaps[cell]
            box += quality * (1 - iou(mine, face) + (apart**2).sum() / (hull**2).sum())
            total += quality
        if taken[cell] or not ignored[cell]:
            p = 1 / (1 + math.exp(-raw[0, cell, 0]))
            entropy = quality * math.log(p) + (1 - quality) * math.log(1 - p)
            score -= (quality - p) ** 2 * entropy
    return float(score / max(taken.sum(), 1) + 2 * box / max(total, 1))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_a_face_beside_an_ignored_place_is_that_of_the_plain_computation(seed: int) -> None:
    truth = np.array([[8, 10, 40, 50, FACE, 0], [20, 4, 60, 30, IGNORED, 0]], np.float32)
    raw = perfect(truth[0])
    raw[..., :5] += np.random.default_rng(seed).normal(0, 0.3, raw[..., :5].shape)
    assert float(DetectionLoss()(truth, raw)) == pytest.approx(plain_loss(truth, raw), rel=1e-4)


def test_no_box_grows_worse_for_its_score_to_be_right() -> None:
    """The overlap that a score learns is given: its gradient is none of the box's."""
    truth = np.array([[8, 10, 40, 50, FACE, 0]], np.float32)
    raw = perfect(truth[0])
    raw[..., :5] += np.random.default_rng(0).normal(0, 0.3, raw[..., :5].shape)
    boxes = boxes_of(raw[..., 1:5])
    quality = np.array([iou(box, truth[0, :4]) for box in boxes[0]])
    answer = keras.Variable(raw)
    gradient = gradient_of(answer, truth)
    taken = keras.ops.convert_to_numpy(assign(raw[..., 0], boxes, truth, CELLS)[0])[0]
    for cell in np.flatnonzero(taken):
        for value in range(1, 5):
            moved = [raw.copy(), raw.copy()]
            moved[0][0, cell, value] += 1e-3
            moved[1][0, cell, value] -= 1e-3
            high, low = (plain_loss(truth, one, quality) for one in moved)
            assert gradient[0, cell, value] == pytest.approx((high - low) / 2e-3, abs=2e-3)


def gradient_of(answer: keras.Variable, truth: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = DetectionLoss()(truth, keras.ops.convert_to_tensor(answer))
    return tape.gradient(value, answer.value).numpy()


def test_quality_focal_loss_is_the_papers() -> None:
    logit, quality = 0.4, 0.7
    p = 1 / (1 + math.exp(-logit))
    paper = -((quality - p) ** 2) * ((1 - quality) * math.log(1 - p) + quality * math.log(p))
    found = keras.ops.convert_to_numpy(quality_focal(np.float32([logit]), np.float32([quality])))[0]
    assert found == pytest.approx(paper, rel=1e-5)


def test_what_training_needs_survives_its_checkpoint() -> None:
    assert DetectionLoss.from_config(DetectionLoss().get_config()).name == "detection"
    assert WithCells.from_config(WithCells(16).get_config()).stride == 16
