"""Events: told once, with hysteresis in time, whatever flickers in between."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from stage import animal, faces, frame_at

from edge.results import FrameResult
from edge.sinks.happenings import BEGINNINGS, Event, EventRules, Watch

RULES = EventRules(enter_s=0.5, leave_s=1.0, score_threshold=0.6, release_threshold=0.4, hold_s=1.0)


def told(moments: list[tuple[float, FrameResult]], camera: str = "") -> list[Event]:
    watch = Watch(RULES)
    return [event for at, result in moments for event in watch.update(frame_at(at, camera), result)]


def brief(events: list[Event]) -> list[tuple[str, str, int | None, float]]:
    return [(event.kind, event.label, event.track, round(event.seconds, 3)) for event in events]


def test_a_face_enters_after_a_while_and_leaves_after_a_longer_while() -> None:
    moments = [(t / 10, faces(7)) for t in range(11)] + [(t / 10, faces()) for t in range(11, 30)]
    events = told(moments)
    assert brief(events) == [("face_entered", "", 7, 0.0), ("face_left", "", 7, 1.0)]
    assert events[1].began == events[0].id
    assert events[1].at_s - events[0].at_s == pytest.approx(1.0, abs=0.1)


def test_a_face_that_is_missed_for_a_moment_has_not_left() -> None:
    assert len(told([(t / 10, faces(7) if t % 8 else faces()) for t in range(1, 60)])) == 1


def test_a_face_of_a_moment_is_no_event() -> None:
    assert told([(0.0, faces(7)), (0.1, faces(7))] + [(t / 10, faces()) for t in range(2, 40)]) == []


def test_faces_without_a_number_are_no_events() -> None:
    assert told([(t / 10, faces(0)) for t in range(40)]) == []


def test_two_cameras_with_the_same_track_are_two_people() -> None:
    watch = Watch(RULES)
    events = []
    for t in range(10):
        for camera in ("front", "back"):
            events += watch.update(frame_at(t / 10, camera), faces(1))
    assert sorted(event.camera for event in events) == ["back", "front"]
    assert len({event.id for event in events}) == 2


def test_who_is_before_a_camera_that_stands_still_has_left_when_another_goes_on() -> None:
    watch = Watch(RULES)
    for t in range(7):
        watch.update(frame_at(t / 10, "front"), faces(1))
    events = [e for t in range(7, 30) for e in watch.update(frame_at(t / 10, "back"), faces())]
    assert [(event.kind, event.camera) for event in events] == [("face_left", "front")]


def test_a_class_begins_when_it_stays_above_the_threshold() -> None:
    events = told([(t / 10, animal(0.7)) for t in range(15)])
    assert brief(events) == [("class_began", "cat", None, 0.0)]


def test_a_class_that_falls_below_for_one_frame_begins_anew() -> None:
    assert told([(t / 10, animal(0.55 if t == 9 else 0.7)) for t in range(19)]) == []
    assert len(told([(t / 10, animal(0.55 if t == 9 else 0.7)) for t in range(21)])) == 1


def test_a_class_goes_on_above_the_release_threshold_even_when_another_is_better() -> None:
    moments = [(t / 10, animal(0.7)) for t in range(12)]
    moments += [(t / 10, animal(0.42, dog=0.5)) for t in range(12, 40)]  # dog is best, but below 0.6
    moments += [(t / 10, animal(0.1, dog=0.5)) for t in range(40, 60)]
    assert brief(told(moments)) == [("class_began", "cat", None, 0.0), ("class_ended", "cat", None, 3.9)]


def test_only_the_best_class_begins_though_two_reach_the_threshold() -> None:
    rules = EventRules(score_threshold=0.4, release_threshold=0.4, hold_s=0.0)
    assert [event.label for event in Watch(rules).update(frame_at(0), animal(0.5, dog=0.45))] == ["cat"]


def test_an_end_tells_the_best_score_of_all() -> None:
    scores = [0.7, 0.9, *[0.65] * 12]
    (_, ended) = told([*((t / 10, animal(score)) for t, score in enumerate(scores)), (9.0, NOTHING)])
    assert ended.score == pytest.approx(0.9)


def test_what_another_camera_sees_does_not_interrupt_a_class() -> None:
    watch = Watch(RULES)
    events = []
    for t in range(12):
        events += watch.update(frame_at(t / 10, "front"), animal(0.7))
        events += watch.update(frame_at(t / 10, "back"), NOTHING)
    assert [(event.kind, event.camera) for event in events] == [("class_began", "front")]


def test_a_class_of_a_face_that_falls_below_for_one_frame_begins_anew() -> None:
    """Beside one of the whole frame."""

    def seen(mask: float) -> FrameResult:
        (pets,) = animal(0.3, dog=0.35).by_model.values()
        (mask_found,) = animal(mask).by_model.values()
        (found,) = faces(7).by_model.values()
        return FrameResult({"face": found.classified("mask", (mask_found,)), "pets": pets})

    def began(masks: list[float]) -> list[tuple[str, str, int | None]]:
        events = told([(t / 10, seen(mask)) for t, mask in enumerate(masks)])
        return [(event.model, event.label, event.track) for event in events if event.kind == "class_began"]

    assert began([0.7] * 11) == [("mask", "cat", 7)]
    assert began([*[0.7] * 9, 0.5, *[0.7] * 9]) == []


NOTHING = animal(0.3, dog=0.35)


def held(result: FrameResult, name: str) -> FrameResult:
    return replace(result, held_ms={name: 100.0})


def test_a_result_that_is_held_begins_no_event() -> None:
    """One inference every ten seconds, held on the frames between."""
    glimpse = [(0.0, animal(0.7)), *((t / 10, held(animal(0.7), "pets")) for t in range(1, 100))]
    assert told([*glimpse, (10.0, NOTHING), (20.0, NOTHING)]) == []
    assert brief(told([*glimpse, (10.0, animal(0.7))])) == [("class_began", "cat", None, 0.0)]
    assert told([(t / 10, held(animal(0.7), "pets")) for t in range(100)]) == []
    assert told([(0.0, held(animal(0.7), "pets")), (1.0, animal(0.7))]) == [], "seen once"


def test_what_has_begun_goes_on_with_a_result_that_is_held() -> None:
    moments = [(t / 10, animal(0.7)) for t in range(12)]
    moments += [(t / 10, held(animal(0.7), "pets")) for t in range(12, 100)]
    assert brief(told(moments)) == [("class_began", "cat", None, 0.0)]
    assert len(told([*moments, (10.0, NOTHING), (12.0, NOTHING)])) == 2


def test_faces_that_are_held_enter_when_they_are_seen_again() -> None:
    glimpse = [(0.0, faces(7)), *((t / 10, held(faces(7), "face")) for t in range(1, 30))]
    assert told([*glimpse, (3.0, faces()), (9.0, faces())]) == []
    assert brief(told([*glimpse, (3.0, faces(7))])) == [("face_entered", "", 7, 0.0)]


def test_the_end_of_the_stream_ends_what_is_there() -> None:
    watch = Watch(RULES)
    for t in range(8):
        watch.update(frame_at(t / 10), faces(1))
    watch.update(frame_at(0.8), faces(1, 2))
    assert brief(watch.finish()) == [("face_left", "", 1, 0.8)]
    assert watch.finish() == []


def test_the_wall_clock_is_for_display_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, begin_s = Watch(RULES), time.time()
    for t in range(8):
        watch.update(frame_at(t / 10), faces(1))
    monkeypatch.setattr(time, "time", lambda: begin_s + 10 * 365 * 86_400)
    assert watch.update(frame_at(0.9), faces(1)) == []
    (left,) = [e for t in range(10, 30) for e in watch.update(frame_at(t / 10), faces())]
    assert left.seconds == pytest.approx(0.9)


def test_a_record_is_json_with_what_there_is() -> None:
    event = Event("ab" * 16, "face_left", 0.25, "door", "face", "", 3, 0.87654, 1.5, "cd" * 16)
    assert event.as_record() == {
        "id": "ab" * 16,
        "kind": "face_left",
        "time": "1970-01-01T00:00:00.250+00:00",
        "model": "face",
        "score": 0.8765,
        "seconds": 1.5,
        "camera": "door",
        "track": 3,
        "began": "cd" * 16,
    }


def test_a_release_above_the_threshold_is_refused() -> None:
    with pytest.raises(ValidationError, match="must not be above"):
        EventRules(score_threshold=0.3, release_threshold=0.5)
    assert EventRules(score_threshold=0.5, release_threshold=0.5)


moments = st.lists(
    st.tuples(
        st.floats(0.0, 3.0),
        st.sampled_from(["", "a", "b"]),
        st.one_of(
            st.sets(st.integers(0, 3)).map(lambda tracks: faces(*tracks)),
            st.floats(0, 1).flatmap(lambda p: st.floats(0, 1 - p).map(lambda q: animal(p, q))),
        ),
    ),
    max_size=60,
)


@given(moments)
def test_every_beginning_has_one_end_and_every_end_one_beginning(moments: list[tuple]) -> None:
    watch, at, events = Watch(RULES), 0.0, []
    for step, camera, result in moments:
        at += step
        events += watch.update(frame_at(at, camera), result)
    events += watch.finish()
    open_ids: dict[str, Event] = {}
    for event in events:
        if event.kind in BEGINNINGS:
            assert event.id not in open_ids
            assert not any(
                (e.camera, e.model, e.track, e.label) == (event.camera, event.model, event.track, event.label)
                for e in open_ids.values()
            ), "told twice"
            open_ids[event.id] = event
        else:
            began = open_ids.pop(str(event.began))
            wanted_s = RULES.hold_s if event.label else RULES.enter_s
            assert event.seconds >= wanted_s - 1e-6
            assert event.score >= began.score
    assert open_ids == {}
