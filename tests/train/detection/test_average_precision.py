"""Average precision: by hand, against pycocotools, and its laws."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.results import Faces
from train.detection.average_precision import (
    COCO_THRESHOLDS,
    Matched,
    Sizes,
    average_precision,
    bootstrap,
    coco_average_precision,
    match,
    paired_bootstrap,
    recall_at_one,
)
from train.detection.data import BoxedImage


def image(boxes: Sequence[Sequence[float]], ignored: Sequence[bool] = (), number: int = 1) -> BoxedImage:
    truths = np.asarray(boxes, np.float32).reshape(-1, 4)
    mask = np.asarray(ignored or [False] * len(truths), np.bool_)
    return BoxedImage(Path("none.png"), number, 100, 100, truths, mask, "")


def faces(*rows: Sequence[float]) -> Faces:
    table = np.asarray(rows, np.float32).reshape(-1, 5)
    return Faces(table[:, :4], table[:, 4])


BOX, OTHER, THIRD = (0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 60, 60)


def test_average_precision_by_hand() -> None:
    """Two pictures, three faces; right, wrong, right, right: precision 1, 1/2, 2/3, 3/4 at recall 1/3 to 1.

    The envelope is 1, 3/4, 3/4, 3/4: the area (1 + 3/4 + 3/4) / 3; of COCO's 101 recalls 0 to 0.33, 34
    of them, take 1 and the others 3/4. One false detection, so recall at one a picture is all.
    """
    matched = [
        match(image([BOX, OTHER]), faces((*BOX, 0.9), (70, 70, 80, 80, 0.8), (*OTHER, 0.6))),
        match(image([THIRD]), faces((*THIRD, 0.7))),
    ]
    assert average_precision(matched) == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert coco_average_precision(matched) == pytest.approx((34 + 67 * 0.75) / 101)
    assert recall_at_one(matched) == 1.0


def test_recall_at_one_false_detection_an_image() -> None:
    """One picture, two faces: the second is found after two false detections, too late."""
    found = faces((*BOX, 0.9), (50, 0, 60, 10, 0.8), (70, 0, 80, 10, 0.7), (*OTHER, 0.6))
    assert recall_at_one([match(image([BOX, OTHER]), found)]) == 0.5


def test_a_face_is_found_once_and_by_the_best_score() -> None:
    matched = match(image([BOX]), faces((*BOX, 0.5), (1, 0, 10, 10, 0.9)))
    assert matched.scores.tolist() == pytest.approx([0.9, 0.5])
    assert matched.hit.tolist() == [True, False]
    assert matched.counted.all()


def test_a_detection_takes_the_free_face_that_it_overlaps_most() -> None:
    truth = image([(0, 0, 10, 10), (0, 2, 10, 12)])
    matched = match(truth, faces((0, 2, 10, 12, 0.9), (0, 2, 10, 11.8, 0.8)))
    assert matched.hit.tolist() == [True, True]


def test_the_threshold_itself_is_enough() -> None:
    """10x10 against 10x5 inside it: an overlap of exactly one half."""
    assert match(image([BOX]), faces((0, 0, 10, 5, 0.9))).hit.tolist() == [True]
    assert match(image([BOX]), faces((0, 0, 10, 4.9, 0.9))).hit.tolist() == [False]
    assert match(image([BOX]), faces((*BOX, 0.9)), 1.0).hit.tolist() == [True]


def test_an_ignored_region_takes_any_number_and_counts_for_nothing() -> None:
    truth = image([BOX, (50, 50, 90, 90)], [False, True])
    found = faces((55, 55, 60, 60, 0.9), (70, 70, 75, 75, 0.8), (*BOX, 0.7), (0, 80, 9, 89, 0.6))
    matched = match(truth, found)
    assert matched.truths == 1
    assert matched.counted.tolist() == [False, False, True, True]
    assert matched.hit.tolist() == [False, False, True, False]


def test_a_face_that_counts_comes_before_an_ignored_one() -> None:
    truth = image([(0, 0, 10, 8), (0, 0, 10, 10)], [False, True])
    assert match(truth, faces((*BOX, 0.9))).hit.tolist() == [True]


def test_sizes_narrow_both_faces_and_false_detections() -> None:
    truth = image([BOX, THIRD])
    found = faces((*BOX, 0.9), (*THIRD, 0.8), (0, 50, 10, 60, 0.7), (0, 70, 29, 99, 0.6))
    small, large = (match(truth, found, 0.5, Sizes(*limits)) for limits in ((0, 15), (15, 100)))
    assert (small.truths, small.hit.tolist()) == (1, [True, False, False, False])
    assert small.counted.tolist() == [True, False, True, False]
    assert (large.truths, large.counted.tolist()) == (1, [False, True, False, True])
    doubled = match(truth, found, 0.5, Sizes(0, 15, scale=2.0))
    assert doubled.truths == 0


def test_a_face_on_the_border_of_two_sizes_is_of_the_larger_alone() -> None:
    box = np.float32([[0, 0, 16, 16]])
    assert not Sizes(0, 16).holds(box)
    assert Sizes(16, 48).holds(box)


def test_without_faces_there_is_no_average_precision() -> None:
    matched = [match(image([]), faces((*BOX, 0.9)))]
    assert np.isnan(
        [average_precision(matched), coco_average_precision(matched), recall_at_one(matched)]
    ).all()
    assert np.isnan(bootstrap(matched, 10)).all()


def test_without_detections_it_is_zero() -> None:
    matched = [match(image([BOX]), faces())]
    assert average_precision(matched) == coco_average_precision(matched) == recall_at_one(matched) == 0.0


def test_equal_scores_are_taken_at_their_expected_places() -> None:
    """Two hits and one false detection of one score: 1/3 and 2/3 of a false one precede the hits."""
    found = faces((*BOX, 0.5), (*OTHER, 0.5), (50, 0, 60, 10, 0.5))
    matched = [match(image([BOX, OTHER, THIRD]), found)]
    assert average_precision(matched) == pytest.approx(2 / 3 * 3 / 4)


def test_pictures_without_faces_cost_precision() -> None:
    found = match(image([BOX]), faces((*BOX, 0.5)))
    empty = match(image([]), faces((*BOX, 0.9)))
    assert average_precision([found, empty]) == 0.5


# -- pycocotools ----------------------------------------------------------------------------------


def random_set(seed: int, crowds: bool) -> tuple[list[BoxedImage], list[Faces]]:
    """40 pictures: most faces found, with some error, some not, and false detections; all scores differ."""
    random = np.random.default_rng(seed)
    images, found = [], []
    for number in range(1, 41):
        corner = random.uniform(0, 400, (random.poisson(4), 2))
        truths = np.concatenate([corner, corner + random.uniform(5, 110, corner.shape)], axis=1)
        ignored = random.random(len(truths)) < (0.3 if crowds else 0.0)
        error = random.normal(0, 0.08, truths.shape)
        moved = truths + error * np.tile(truths[:, 2:] - truths[:, :2], 2)
        corner = random.uniform(0, 400, (random.poisson(5), 2))
        wrong = np.concatenate([corner, corner + random.uniform(5, 110, corner.shape)], axis=1)
        boxes = np.concatenate([moved, moved[::2] + 1, wrong])
        scores = np.concatenate([random.beta(4, 2, len(boxes) - len(wrong)), random.beta(2, 4, len(wrong))])
        images.append(image(truths, ignored.tolist(), number))
        found.append(Faces(boxes.astype(np.float32), scores.astype(np.float32)))
    return images, found


def pycocotools_precision(images: list[BoxedImage], found: list[Faces]) -> np.ndarray:
    """(10 IoU thresholds, 101 recalls, 4 ranges of area: all, below 32, 32 to 96, above), by its own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    annotations, results = [], []
    for one, seen in zip(images, found, strict=True):
        for box, ignored in zip(_xywh(one.boxes), one.ignored, strict=True):
            area, number = box[2] * box[3], len(annotations) + 1
            about = {"id": number, "image_id": one.image_id, "category_id": 1, "iscrowd": int(ignored)}
            annotations.append(about | {"bbox": box, "area": area})
        for box, score in zip(_xywh(seen.boxes), seen.scores, strict=True):
            results.append({"image_id": one.image_id, "category_id": 1, "bbox": box, "score": float(score)})
    truth.dataset = {"images": [{"id": one.image_id} for one in images], "annotations": annotations}
    truth.dataset["categories"] = [{"id": 1}]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.params.maxDets = [1, 10, 10_000]
        judge.params.areaRng = [[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, 0, :, 2]


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    return [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.astype(float).tolist()]


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_as_pycocotools(seed: int, crowds: bool) -> None:
    images, found = random_set(seed, crowds)
    expected = pycocotools_precision(images, found)
    for column, limits in enumerate([(0, 1e6), (0, 32), (32, 96), (96, 1e6)]):
        ours = [
            coco_average_precision(
                [match(one, seen, t, Sizes(*limits)) for one, seen in zip(images, found, strict=True)]
            )
            for t in COCO_THRESHOLDS
        ]
        assert ours == pytest.approx(expected[:, :, column].mean(axis=1), abs=1e-6)


def test_as_pycocotools_with_the_few_scores_of_int8() -> None:
    """It takes equals in the order of the images, which is chance; so the agreement is that of chance."""
    differences = []
    for seed in range(6):
        images, exact = random_set(seed, crowds=False)
        found = [Faces(seen.boxes, (seen.scores * 32).round() / 32) for seen in exact]
        matched = [match(one, seen) for one, seen in zip(images, found, strict=True)]
        expected = pycocotools_precision(images, found)[0, :, 0].mean()
        differences.append(coco_average_precision(matched) - expected)
    assert np.abs(differences).max() < 0.01
    assert abs(np.mean(differences)) < 0.005


# -- laws -----------------------------------------------------------------------------------------

MATCHED = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6), st.integers(0, 3)).map(
        lambda drawn: _matched(*drawn)
    ),
    min_size=1,
    max_size=6,
)
"""Pictures with few distinct scores, so that equal ones are common."""


def _matched(rows: list[tuple[int, bool]], missed: int) -> Matched:
    rows = sorted(rows, reverse=True)
    hit = np.array([right for _, right in rows], np.bool_)
    scores = np.array([score / 10 for score, _ in rows], np.float64)
    return Matched(scores, hit, np.ones(len(rows), np.bool_), int(hit.sum()) + missed)


@given(MATCHED)
def test_it_lies_between_0_and_1(matched: list[Matched]) -> None:
    for value in (average_precision(matched), coco_average_precision(matched), recall_at_one(matched)):
        assert np.isnan(value) == (sum(m.truths for m in matched) == 0)
        assert np.isnan(value) or 0 <= value <= 1 + 1e-12


@given(MATCHED, st.randoms())
def test_the_order_of_the_pictures_does_not_matter(matched: list[Matched], random: object) -> None:
    mixed = list(matched)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert average_precision(mixed) == pytest.approx(average_precision(matched), nan_ok=True)
    assert coco_average_precision(mixed) == pytest.approx(coco_average_precision(matched), nan_ok=True)


@given(MATCHED, st.data())
def test_a_false_detection_of_lowest_score_never_helps(matched: list[Matched], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(matched) - 1))
    old = matched[at]
    worse = replace(
        old,
        scores=np.append(old.scores, 0.05),
        hit=np.append(old.hit, False),
        counted=np.append(old.counted, True),
    )
    changed = [*matched[:at], worse, *matched[at + 1 :]]
    rounding = 1e-12
    assert not average_precision(changed) > average_precision(matched) + rounding
    assert not coco_average_precision(changed) > coco_average_precision(matched) + rounding


@given(st.integers(0, 2**32 - 1))
def test_perfect_detections_are_worth_1(seed: int) -> None:
    random = np.random.default_rng(seed)
    # A grid: no two faces overlap, so that each detection has one face alone.
    cells = random.permutation(25)[: random.integers(1, 25)]
    boxes = np.stack([cells % 5 * 20, cells // 5 * 20, cells % 5 * 20 + 12, cells // 5 * 20 + 15], axis=1)
    found = Faces(boxes.astype(np.float32), random.random(len(boxes)).astype(np.float32))
    for threshold in COCO_THRESHOLDS:
        matched = [match(image(boxes), found, threshold)]
        assert average_precision(matched) == pytest.approx(1)
        assert coco_average_precision(matched) == pytest.approx(1)


# -- intervals ------------------------------------------------------------------------------------


def test_the_interval_holds_the_value_and_narrows_with_pictures() -> None:
    images, found = random_set(5, crowds=False)
    matched = [match(one, seen) for one, seen in zip(images, found, strict=True)]
    low, high = bootstrap(matched)
    assert low < average_precision(matched) < high
    many = bootstrap(matched * 9)
    assert (many[1] - many[0]) == pytest.approx((high - low) / 3, rel=0.15)


def test_a_resampling_is_the_average_precision_of_the_drawn_pictures() -> None:
    images, found = random_set(6, crowds=False)
    matched = [match(one, seen) for one, seen in zip(images, found, strict=True)]
    drawn = np.random.default_rng(7).integers(0, len(matched), len(matched))
    expected = average_precision([matched[index] for index in drawn])
    assert bootstrap(matched, 1, seed=7) == pytest.approx((expected, expected))


def test_paired_intervals_are_tight_where_the_detectors_agree() -> None:
    images, found = random_set(8, crowds=False)
    a = [match(one, seen) for one, seen in zip(images, found, strict=True)]
    assert paired_bootstrap(a, a, 50) == (0.0, 0.0)
    b = [match(one, Faces(seen.boxes[1:], seen.scores[1:])) for one, seen in zip(images, found, strict=True)]
    low, high = paired_bootstrap(a, b, 500)
    assert low < average_precision(a) - average_precision(b) < high
    alone = [bootstrap(part, 500) for part in (a, b)]
    assert high - low < sum(high - low for low, high in alone)
    with pytest.raises(ValueError, match="found 40 and 39"):
        paired_bootstrap(a, b[1:])
