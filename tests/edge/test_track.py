"""Who is who from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.boxes import Floats
from edge.results import Faces
from edge.track import Tracker


def at(*centres: tuple[float, float], side: float = 40) -> Floats:
    """Square boxes around centres."""
    xy = np.array(centres, np.float32).reshape(-1, 2)
    return np.concatenate([xy - side / 2, xy + side / 2], axis=1)


def tracks(frames: list[Floats]) -> list[list[int]]:
    tracker = Tracker()
    return [tracker.update(boxes).tolist() for boxes in frames]


def test_a_face_gets_its_number_when_it_was_seen_twice_and_keeps_it() -> None:
    assert tracks([at((50 + 4 * i, 60)) for i in range(6)]) == [[0], [1], [1], [1], [1], [1]]


def test_a_false_alarm_of_one_frame_takes_no_number() -> None:
    steady = (50.0, 60.0)
    frames = [at(steady), at(steady, (300, 300)), at(steady), at(steady, (200, 90)), at(steady, (200, 90))]
    assert tracks(frames) == [[0], [1, 0], [1], [1, 0], [1, 2]]


def test_no_faces_at_all() -> None:
    assert tracks([at(), at(), at((5, 5))]) == [[], [], [0]]


def test_numbers_follow_the_faces_not_their_order() -> None:
    a, b = (50.0, 60.0), (200.0, 60.0)
    assert tracks([at(a, b), at(b, a), at(a, b), at(b, a)]) == [[0, 0], [1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize(("gap", "found"), [(3, 1), (8, 1), (9, 2)])
def test_a_gap_is_bridged_as_long_as_the_patience_lasts(gap: int, found: int) -> None:
    still = at((50, 60))
    assert tracks([still] * 3 + [at()] * gap + [still] * 2)[-1] == [found]


def test_a_gap_after_another_has_the_same_patience() -> None:
    still = at((50, 60))
    assert tracks([still, still, *[at()] * 8, still, *[at()] * 8, still])[-1] == [1]


def test_a_face_of_no_number_is_given_up_at_once() -> None:
    here = at((50, 60))
    assert tracks([here, at(), here]) == [[0], [], [0]]


def test_one_step_while_unseen_is_no_speed() -> None:
    before, after = at((50, 60)), at((70, 60))
    assert tracks([before] * 2 + [at()] * 7 + [after] * 2 + [at()] * 8 + [after])[-1] == [1]


def test_a_trembling_face_has_half_the_speed_of_its_last_step() -> None:
    assert tracks([at((50, 60)), at((50, 60)), at((53, 60)), *[at()] * 8, at((50, 60))])[-1] == [1]


def test_a_face_that_comes_nearer_stays_in_its_place() -> None:
    nearer = [at((150, 160), side=40 + 8 * i) for i in range(6)]
    assert tracks([*nearer, *[at()] * 8, nearer[-1]])[-1] == [1]


def test_in_smaller_pictures_a_face_is_smaller_and_slower() -> None:
    tracker = Tracker()
    for i in range(8):
        tracker.update(at((50 + 12 * i, 60)))
    tracker.scale(0.5, 0.25)
    for _ in range(5):
        tracker.update(at())
    assert tracker.update(np.float32([[93, 10, 113, 20]])).tolist() == [1]


def test_a_moving_face_is_expected_where_it_should_be_after_a_gap() -> None:
    way = [at((50 + 12 * i, 60)) for i in range(20)]  # after 4 unseen frames it is 60 pixels on
    seen = way[:8] + [at()] * 4 + way[12:]
    assert [found for found in tracks(seen)[8:] if found] == [[1]] * 8


def test_faces_that_cross_keep_their_numbers() -> None:
    """They pass at different heights, so that they overlap by more than half, but can be told apart."""
    frames = [at((50 + 8 * i, 60), (290 - 8 * i, 72)) for i in range(31)]
    found = tracks(frames)
    assert found[1:] == [[1, 2]] * 30


def test_faces_that_are_seen_as_one_while_they_cross_come_out_with_their_numbers() -> None:
    frames = []
    for i in range(31):
        a, b = (50 + 8.0 * i, 60.0), (290 - 8.0 * i, 66.0)
        frames.append(at(a) if abs(a[0] - b[0]) < 17 else at(a, b))  # suppression has removed one
    found = tracks(frames)
    assert found[1] == [1, 2]
    assert found[-1] == [1, 2]


def test_one_leaves_and_another_enters_at_the_same_place_later() -> None:
    here = at((50, 60))
    found = tracks([here] * 3 + [at()] * 12 + [here] * 3)
    assert [number for frame in found for number in frame] == [0, 1, 1, 0, 2, 2]


@st.composite
def walks(draw: st.DrawFn) -> list[Floats]:
    """Up to five faces, far apart, each moving by a few pixels a frame in random directions."""
    count, frames = draw(st.integers(1, 5)), draw(st.integers(3, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    centres = np.arange(count)[:, None] * np.array([300.0, 0.0]) + 100
    steps = rng.uniform(-4, 4, (frames, count, 2)).cumsum(axis=0)
    return [at(*map(tuple, centres + step)) for step in steps]


@given(walks())
def test_faces_that_move_little_keep_their_numbers(frames: list[Floats]) -> None:
    count = len(frames[0])
    assert tracks(frames)[1:] == [list(range(1, count + 1))] * (len(frames) - 1)


@given(st.lists(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300)), max_size=6), max_size=30))
def test_numbers_are_unique_in_a_frame_and_new_ones_are_the_next(
    centres: list[list[tuple[float, float]]],
) -> None:
    frames, highest = [at(*frame) for frame in centres], 0
    found = tracks(frames)
    assert found == tracks(frames), "the same every time"
    for frame, boxes in zip(found, frames, strict=True):
        numbers = [number for number in frame if number]
        assert len(frame) == len(boxes)
        assert len(set(numbers)) == len(numbers)
        new = sorted(number for number in numbers if number > highest)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)


def test_a_weak_face_counts_from_its_second_frame_on_and_a_sure_one_at_once() -> None:
    tracker, boxes = Tracker(), at((50, 60), (200, 60))
    faces = Faces(boxes, np.float32([0.9, 0.55]))
    first, second = (faces.tracked(tracker.update(boxes)) for _ in range(2))
    assert (first.scores.tolist(), first.tracks.tolist()) == ([np.float32(0.9)], [0])
    assert (len(second), second.tracks.tolist()) == (2, [1, 2])
