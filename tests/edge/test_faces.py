"""From a detector's heads to boxes: against the formula, a naive suppression, and broken models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boxes import Floats, iou
from edge.bundle import Golden, InputSpec, Manifest, OutputSpec
from edge.errors import BundleError
from edge.pixels import ResizeRule
from edge.tasks.faces import FacesTask, Grid, candidates, nms, sigmoid

STRIDES = (8, 16, 32)
GRID = Grid.of_size(64, 96)


def heads_of(height: int, width: int, low: float = -20.0) -> dict[str, Floats]:
    """Heads that see nothing."""
    heads = {}
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        heads[f"score_{stride}"] = np.full((1, rows, columns, 1), low, np.float32)
        heads[f"box_{stride}"] = np.zeros((1, rows, columns, 4), np.float32)
    return heads


def test_a_score_of_the_threshold_is_enough() -> None:
    heads = heads_of(64, 96)
    heads["score_16"][0, 1, 2] = 0.0
    assert candidates(heads, GRID, 0.5)[1].tolist() == [0.5]


def test_the_best_candidates_are_taken_equal_ones_in_the_order_of_the_cells() -> None:
    heads = heads_of(64, 96, low=0.0)
    heads["score_32"][0, 1, 2] = 3.0
    boxes, _ = candidates(heads, GRID, 0.1, most=40)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_array_equal(centres, GRID.cells[[-1, *range(39)], :2])


def put(
    heads: dict[str, Floats],
    stride: int,
    row: int,
    column: int,
    box: tuple[float, float, float, float],
    logit: float,
) -> None:
    """Encode a box, in pixels of the input, at a cell: the formula backwards."""
    x0, y0, x1, y1 = box
    heads[f"score_{stride}"][0, row, column] = logit
    heads[f"box_{stride}"][0, row, column] = (
        (x0 + x1) / 2 / stride - column - 0.5,
        (y0 + y1) / 2 / stride - row - 0.5,
        math.log((x1 - x0) / stride),
        math.log((y1 - y0) / stride),
    )


def manifest(height: int = 64, width: int = 96, rule: ResizeRule = "letterbox", **changes: Any) -> Manifest:
    outputs = [
        OutputSpec(name=name, shape=head.shape, role=name[:-2].rstrip("_"), stride=int(name.split("_")[1]))  # type: ignore[arg-type]
        for name, head in heads_of(height, width).items()
    ]
    content: dict[str, Any] = {
        "name": "faces",
        "task": "faces",
        "sightline": "0.1.0",
        "input": InputSpec(height=height, width=width, resize=rule),
        "outputs": tuple(outputs),
        "labels": ("face",),
        "artefacts": (),
        "golden": Golden(file="golden.npz", sha256="0" * 64, step={}),
    }
    return Manifest(**(content | changes))


sides = st.floats(1, 300)
places = st.floats(-50, 150)


@given(st.sampled_from(STRIDES), st.integers(0, 1), st.integers(0, 2), places, places, sides, sides)
def test_what_is_encoded_is_decoded(
    stride: int, row: int, column: int, x: float, y: float, width: float, height: float
) -> None:
    heads, box = heads_of(64, 96), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    put(heads, stride, row, column, box, logit=1.5)
    boxes, scores = candidates(heads, GRID, 0.5)
    np.testing.assert_allclose(boxes, [box], atol=1e-3)
    np.testing.assert_allclose(scores, [1 / (1 + math.exp(-1.5))], rtol=1e-5)
    assert boxes.dtype == scores.dtype == np.float32


def test_a_manifests_grid_is_that_of_its_size() -> None:
    grid = Grid.of(manifest().outputs)
    assert (grid.scores, grid.boxes) == (GRID.scores, GRID.boxes)
    np.testing.assert_array_equal(grid.cells, GRID.cells)
    assert len(grid.cells) == 8 * 12 + 4 * 6 + 2 * 3


@pytest.mark.parametrize("kept", ["score", "box"])
def test_heads_that_do_not_match_are_refused(kept: str) -> None:
    outputs = tuple(output for output in manifest().outputs if output.role == kept or output.stride == 8)
    with pytest.raises(BundleError, match="needs a score head and a box head for each stride"):
        FacesTask(manifest(outputs=outputs))


@given(st.lists(st.floats(-30, 30, width=32), min_size=8 * 12, max_size=8 * 12), st.floats(0.01, 0.99))
def test_candidates_are_those_above_the_threshold_in_order(logits: list[float], threshold: float) -> None:
    heads = heads_of(64, 96, low=-40)
    heads["score_8"][0] = np.array(logits, np.float32).reshape(8, 12, 1)
    _, scores = candidates(heads, GRID, threshold)
    all_scores = sigmoid(np.array(logits, np.float32))
    assert (np.diff(scores) <= 0).all()
    close = int((abs(all_scores - threshold) < 1e-5).sum())  # float32 need not agree there
    assert abs(len(scores) - int((all_scores >= threshold).sum())) <= close


@pytest.mark.parametrize(("threshold", "found"), [(0.0, 100), (1.0, 0)])
def test_thresholds_at_the_ends_and_the_cap(threshold: float, found: int) -> None:
    boxes, _ = candidates(heads_of(64, 96), GRID, threshold, most=100)
    assert len(boxes) == found


def naive_nms(boxes: Floats, scores: Floats, iou_threshold: float) -> list[int]:
    left, kept = sorted(range(len(scores)), key=lambda index: (-scores[index], index)), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [index for index in left if naive_iou(boxes[best], boxes[index]) <= iou_threshold]
    return kept


def naive_iou(a: Floats, b: Floats) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return float(width * height / union) if union else 0.0


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Boxes on whole pixels, whose areas are exact, and scores that differ."""
    count = draw(st.integers(0, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    corner, size = rng.integers(0, 25, (count, 2)), rng.integers(1, 16, (count, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    return boxes, 1 + rng.permutation(count).astype(np.float32)


# Square roots, which no fraction of whole pixels comes close to: at equality float32 may fall on either side.
@given(crowds(), st.sampled_from([97**-0.5, 11**-0.5, 5**-0.5, 2**-0.5, 0.8**0.5]))
def test_suppression_is_the_naive_one(crowd: tuple[Floats, Floats], threshold: float) -> None:
    boxes, scores = crowd
    assert nms(boxes, scores, threshold).tolist() == naive_nms(boxes, scores, threshold)


@given(crowds())
def test_suppression_keeps_the_best_and_nothing_that_overlaps(crowd: tuple[Floats, Floats]) -> None:
    boxes, scores = crowd
    kept = nms(boxes, scores, 0.45)
    assert list(kept[:1]) == ([int(scores.argmax())] if len(scores) else [])
    assert (np.diff(scores[kept]) < 0).all()
    overlaps = iou(boxes[kept], boxes[kept])
    np.fill_diagonal(overlaps, 0)
    assert (overlaps <= 0.45 + 1e-6).all()
    dropped = np.setdiff1d(np.arange(len(scores)), kept)
    assert (iou(boxes[dropped], boxes[kept]).max(axis=1, initial=0) >= 0.45 - 1e-6).all()


@given(crowds(), st.integers(0, 2**32))
def test_suppression_does_not_depend_on_the_order(crowd: tuple[Floats, Floats], seed: int) -> None:
    boxes, scores = crowd
    order = np.random.default_rng(seed).permutation(len(scores))
    np.testing.assert_array_equal(order[nms(boxes[order], scores[order])], nms(boxes, scores))


@given(crowds())
def test_iou_is_symmetric_and_between_0_and_1(crowd: tuple[Floats, Floats]) -> None:
    boxes, _ = crowd
    found = iou(boxes, boxes)
    np.testing.assert_array_equal(found, found.T)
    assert ((found >= 0) & (found <= 1)).all()
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    np.testing.assert_array_equal(np.diag(found), solid.astype(np.float32))


def picture(height: int, width: int) -> Any:
    return np.zeros((height, width, 3), np.uint8)


def test_boxes_come_back_in_pixels_of_the_picture() -> None:
    heads = heads_of(64, 96)
    # 1280x720 becomes 96x54 with 5 rows above it: 40 / 3 pixels of the picture are one of the input.
    put(heads, 8, 3, 4, (30.0, 20.0, 45.0, 38.0), logit=3.0)
    put(heads, 16, 1, 2, (31.0, 21.0, 45.0, 38.0), logit=2.0)
    faces = FacesTask(manifest()).decode(heads, picture(720, 1280))
    np.testing.assert_allclose(faces.boxes, [[400, 200, 600, 440]], atol=1e-2)
    np.testing.assert_allclose(faces.scores, [1 / (1 + math.exp(-3))], rtol=1e-5)


def test_faces_are_clipped_to_the_picture_and_dropped_outside_it() -> None:
    heads = heads_of(64, 96)
    put(heads, 8, 0, 0, (-10.0, -10.0, 10.0, 15.0), logit=3.0)
    put(heads, 8, 7, 11, (80.0, 60.0, 94.0, 64.0), logit=2.0)  # in the padding alone
    faces = FacesTask(manifest()).decode(heads, picture(720, 1280))
    assert len(faces) == 1
    assert faces.boxes[0, :2].tolist() == [0, 0]
    assert faces.boxes[0, 2:] == pytest.approx([10 * 40 / 3, 10 * 40 / 3], abs=1e-2)


def test_threshold_is_the_tasks_or_the_callers() -> None:
    heads = heads_of(64, 96)
    put(heads, 8, 3, 4, (30.0, 20.0, 45.0, 38.0), logit=-0.5)
    assert len(FacesTask(manifest()).decode(heads, picture(64, 96))) == 0
    assert len(FacesTask(manifest(), 0.3).decode(heads, picture(64, 96))) == 1


extremes = st.sampled_from(
    [0.0, 1.0, -1.0, 90.0, -90.0, 1e6, -1e6, 3e38, -3e38, math.inf, -math.inf, math.nan]
)


@given(
    st.lists(extremes, min_size=4, max_size=4), st.sampled_from([0.0, 5.0, 100.0, 3e38, math.inf, math.nan])
)
def test_broken_heads_give_real_faces_or_none(deltas: list[float], logit: float) -> None:
    heads = heads_of(64, 96)
    heads["score_16"][0, 1, 2], heads["box_16"][0, 1, 2] = logit, deltas
    faces = FacesTask(manifest()).decode(heads, picture(48, 77))
    assert np.isfinite(faces.boxes).all()
    assert ((faces.scores >= 0.5) & (faces.scores <= 1)).all()
    assert ((faces.boxes >= 0) & (faces.boxes <= [77, 48, 77, 48])).all()
    assert ((faces.boxes[:, 2] > faces.boxes[:, 0]) & (faces.boxes[:, 3] > faces.boxes[:, 1])).all()


def test_a_model_that_sees_faces_everywhere_gives_a_bounded_number() -> None:
    heads = heads_of(512, 512, low=4.0)
    for stride in STRIDES:
        heads[f"box_{stride}"][..., 2:] = math.log(0.5)
    faces = FacesTask(manifest(512, 512)).decode(heads, picture(512, 512))
    assert len(faces) == 300
    everything = FacesTask(manifest(512, 512), most_candidates=10**4, most_faces=10**4)
    assert len(everything.decode(heads, picture(512, 512))) == 64 * 64 + 32 * 32 + 16 * 16
