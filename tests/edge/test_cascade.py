"""Several models on each frame: what goes to whom, whose time it was, and what cannot be."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.cascade import Cascade, Member, Stream, crops
from edge.config import ModelSettings
from edge.errors import InputError
from edge.frame import MODEL_STAGES, Frame
from edge.pixels import Halves, Image
from edge.profiler import StageRecorder
from edge.protocols import SourceInfo
from edge.results import Classification, Faces

CAMERA = SourceInfo("camera", 160, 120, 30.0, None, "arrival")
ALBUM = SourceInfo("album/", 0, 0, 0.0, 3, "file")


@dataclass
class Finder:
    """A detector that finds what it is told to."""

    boxes: Any
    finds_faces: bool = True

    def prepare(self, picture: Image, shared: Halves | None = None) -> Image:
        return picture

    def infer(self, pixels: Image) -> Any:
        return {}

    def decode(self, heads: Any, picture: Image) -> Faces:
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        return Faces(boxes, np.linspace(0.9, 0.6, len(boxes), dtype=np.float32))


@dataclass
class Namer:
    """A classifier whose label is the size of what it was given; it keeps the pictures."""

    finds_faces: bool = False
    closed: bool = False

    def prepare(self, picture: Image, shared: Halves | None = None) -> Image:
        self.seen = [*getattr(self, "seen", []), picture]
        return picture

    def infer(self, pixels: Image) -> Any:
        return {}

    def decode(self, heads: Any, picture: Image) -> Classification:
        return Classification(np.ones(1, np.float32), 0, f"{picture.shape[1]}x{picture.shape[0]}")

    def close(self) -> None:
        self.closed = True


def members(*given: tuple[str, Any, Any]) -> list[Member]:
    return [Member(name, model, input) for name, model, input in given]


def frame_of(height: int = 120, width: int = 160) -> Frame:
    frame = Frame()
    frame.buffer(height, width)[:] = 50
    frame.stamps.mark("capture")
    frame.stamps.mark("decode")
    frame.stamps.mark("dequeue")
    return frame


def test_each_model_sees_the_frame_and_crops_go_to_their_classifier() -> None:
    finder, whole, faces = Finder([[40, 30, 60, 60], [100, 50, 110, 60]]), Namer(), Namer()
    cascade = Cascade(members(("face", finder, "frame"), ("crop", faces, "faces"), ("pets", whole, "frame")))
    frame = frame_of()
    result = cascade.process(frame)
    assert list(result.by_model) == ["face", "pets"]
    assert result.classification is not None
    assert result.classification.label == "160x120"
    assert [face.classes["crop"].label for face in result.faces] == ["42x42", "14x14"]
    assert all(np.shares_memory(crop, frame.pixels) for crop in faces.seen), "views, not copies"


def test_only_the_best_faces_are_classified() -> None:
    finder = Finder([[10 * i, 10, 10 * i + 8, 18] for i in range(12)])
    cascade = Cascade([Member("face", finder), Member("crop", Namer(), "faces", most_faces=3)])  # type: ignore[arg-type]
    faces = cascade.process(frame_of()).faces
    assert [bool(face.classes) for face in faces] == [True] * 3 + [False] * 9


boxes = st.tuples(st.floats(0, 159), st.floats(0, 119), st.floats(0.01, 160), st.floats(0.01, 120))


@given(st.lists(boxes, max_size=5))
def test_a_crop_is_never_empty_and_holds_its_face(given: list[tuple[float, float, float, float]]) -> None:
    corners = [[x, y, min(160, x + w), min(120, y + h)] for x, y, w, h in given]
    pixels = np.zeros((120, 160, 3), np.uint8)
    found = Faces(np.array(corners, np.float32).reshape(-1, 4), np.ones(len(corners), np.float32))
    for crop, (x0, y0, x1, y1) in zip(crops(found, pixels, 9), found.boxes, strict=True):
        assert min(crop.shape) > 0
        assert crop.shape[1] >= min(160, np.floor(x1 - x0))
        assert crop.shape[0] >= min(120, np.floor(y1 - y0))


def test_the_stages_add_up_to_the_age_exactly_and_to_each_models_part() -> None:
    cascade = Cascade(members(("face", Finder([[40, 30, 60, 60]] * 3), "frame"), ("crop", Namer(), "faces")))
    cascade.start(CAMERA)
    frame = frame_of()
    cascade.process(frame)
    frame.stamps.mark("publish")
    stamps = frame.stamps
    assert list(stamps.models) == ["face", "crop"]
    spent = sum(ns for laps in stamps.models.values() for ns in laps.spent_ns.values())
    assert stamps.dequeue + spent == stamps.postprocess == stamps.models["crop"].last_ns
    assert stamps.dequeue <= stamps.preprocess <= stamps.infer <= stamps.postprocess <= stamps.publish
    stages = stamps.stages_ms()
    for stage in MODEL_STAGES:
        parts = sum(laps.stages_ms()[stage] for laps in stamps.models.values())
        assert stages[stage] == pytest.approx(parts, abs=1e-9)
    assert sum(stages.values()) == pytest.approx(stamps.age_ms, abs=1e-9)


def test_faces_are_numbered_in_a_stream_anew_in_the_next_and_not_among_pictures() -> None:
    cascade = Cascade(members(("face", Finder([[40, 30, 60, 60]]), "frame")))
    for source, expected in ((CAMERA, [None, 1, 1]), (CAMERA, [None, 1, 1]), (ALBUM, [None] * 3)):
        cascade.start(source)
        assert [cascade.process(frame_of()).faces[0].track for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([("crop", Namer(), "faces")], "no detector stands before it"),
        ([("crop", Namer(), "faces"), ("face", Finder([]), "frame")], "no detector stands before it"),
        ([("face", Finder([]), "frame"), ("again", Finder([]), "faces")], "finds faces itself"),
        ([("pets", Namer(), "frame"), ("pets", Namer(), "frame")], "Two models are called 'pets'"),
    ],
)
def test_orders_that_cannot_be(order: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cascade(members(*order))


def wanted(bundle: Path, **options: Any) -> ModelSettings:
    return ModelSettings(bundle=str(bundle), backend="auto", precision="auto", threads=1, **options)


def red_marker(height: int = 480, width: int = 640) -> Frame:
    """A grey picture with one red square; in the detector's 64x64 it fills the cell of row 3, column 2."""
    frame = frame_of(height, width)
    frame.pixels[160:240, 160:240] = (255, 0, 0)
    return frame


def test_real_bundles_one_after_the_other(faces_bundle: Path, colour_bundle: Path) -> None:
    settings = [
        wanted(faces_bundle),
        wanted(colour_bundle),
        wanted(colour_bundle, name="skin", input="faces"),
    ]
    cascade = Cascade.open(settings, score_threshold=0.9)
    cascade.start(CAMERA)
    result = cascade.process(red_marker())
    cascade.close()
    # 640x480 becomes 64x48 with 8 rows above it: ten pixels of the picture are one of the input.
    (face,) = result.faces
    assert face.box == pytest.approx((80, 80, 320, 320), abs=0.1)
    assert face.score > 0.99
    assert face.classes["skin"].label == "red"
    assert result.as_record()["models"].keys() == {"markers", "mean-colour"}
    assert cascade.title == "markers + mean-colour + skin  onnx fp32"


def test_a_model_that_does_not_open_closes_those_before_it(
    faces_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr("edge.runners.onnx.OnnxRunner.close", lambda self: closed.append(self))
    with pytest.raises(InputError, match="No bundle at"):
        Cascade.open([wanted(faces_bundle), wanted(tmp_path / "gone")])
    assert len(closed) == 1


def test_a_threshold_needs_a_detector(faces_bundle: Path, colour_bundle: Path) -> None:
    with pytest.raises(InputError, match="A score threshold is for detectors, and there is none"):
        Cascade.open([wanted(colour_bundle)], score_threshold=0.5)
    with pytest.raises(InputError, match="mean-colour is a model for classification"):
        Cascade.open([wanted(faces_bundle), wanted(colour_bundle, score_threshold=0.5)])


def test_each_detectors_own_threshold_goes_first(faces_bundle: Path) -> None:
    blind, seeing = wanted(faces_bundle, name="blind", score_threshold=1.0), wanted(faces_bundle)
    cascade = Cascade.open([blind, seeing], score_threshold=0.5)
    cascade.start(ALBUM)
    record = cascade.process(red_marker()).as_record()["models"]
    assert (len(record["blind"]["faces"]), len(record["markers"]["faces"])) == (0, 1)
    json.dumps(record)


def stamped(capture_ms: int, camera: str = "") -> Frame:
    frame = frame_of()
    frame.camera, frame.stamps.capture = camera, capture_ms * 1_000_000
    return frame


def test_model_with_an_interval_sees_each_nth_frame_and_its_result_is_held() -> None:
    every, third = Namer(), Namer()
    cascade = Cascade([Member("every", every), Member("third", third, interval=3)])  # type: ignore[arg-type]
    cascade.start(CAMERA)
    results = [cascade.process(stamped(33 * index)) for index in range(7)]
    assert [len(model.seen) for model in (every, third)] == [7, 3]
    assert [result.held_ms.get("third") for result in results] == [None, 33, 66, None, 33, 66, None]
    assert all("every" not in result.held_ms for result in results)
    record = results[1].as_record()["models"]
    assert record["third"]["held_ms"] == 33.0
    assert "held_ms" not in record["every"]
    assert record["third"]["label"] == record["every"]["label"]


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(0, 1000))
@example([1, 67], 67)  # 0.067 seconds are a little more than 67 million nanoseconds in floating point
def test_model_with_a_period_never_sees_two_frames_within_it(steps: list[int], every_ms: int) -> None:
    seen, clock = Namer(), 1000
    cascade = Cascade([Member("model", seen, every_s=every_ms / 1e3)])  # type: ignore[arg-type]
    cascade.start(CAMERA)
    looked = []
    for step in steps:
        clock += step
        before = len(getattr(seen, "seen", []))
        cascade.process(stamped(clock))
        if len(seen.seen) > before:
            looked.append(clock)
        else:
            assert clock - looked[-1] < every_ms, "it was due"
    assert all(later - earlier >= every_ms for earlier, later in pairwise(looked))


def test_held_faces_keep_their_classes_and_their_classifier_waits() -> None:
    crop = Namer()
    cascade = Cascade(
        [
            Member("face", Finder([[40, 30, 60, 60]]), interval=2),  # type: ignore[arg-type]
            Member("crop", crop, "faces"),  # type: ignore[arg-type]
        ]
    )
    cascade.start(CAMERA)
    results = [cascade.process(stamped(33 * index)) for index in range(4)]
    assert len(crop.seen) == 2
    assert [face.classes["crop"].label for result in results for face in result.faces] == ["42x42"] * 4
    assert [dict(result.held_ms) for result in results] == [{}, {"face": 33.0}, {}, {"face": 33.0}]


def test_classes_of_faces_that_are_not_due_are_left_out() -> None:
    cascade = Cascade(
        [Member("face", Finder([[40, 30, 60, 60]])), Member("crop", Namer(), "faces", interval=2)]  # type: ignore[arg-type]
    )
    cascade.start(CAMERA)
    results = [cascade.process(stamped(33 * index)) for index in range(4)]
    assert [bool(result.faces[0].classes) for result in results] == [True, False, True, False]


@pytest.mark.parametrize("pace", [{"every_s": 10.0}, {"interval": 9}], ids=["every_s", "interval"])
def test_frames_without_faces_take_no_turn_and_no_time_of_their_classifier(pace: dict[str, Any]) -> None:
    finder, crop = Finder([]), Namer()
    cascade = Cascade([Member("face", finder), Member("crop", crop, "faces", **pace)])  # type: ignore[arg-type]
    cascade.start(CAMERA)
    recorder = StageRecorder()
    for index in range(6):
        finder.boxes = [] if index < 4 else [[40, 30, 60, 60]]
        frame = stamped(33 * index)
        result = cascade.process(frame)
        recorder.write(frame, result)
        assert [bool(face.classes) for face in result.faces] == [[], [], [], [], [True], [False]][index]
    assert len(crop.seen) == 1
    assert {name: of["infer"].n for name, of in recorder._of_models.items()} == {"face": 6, "crop": 1}


def test_each_camera_has_its_own_tracks_and_turns() -> None:
    model = Namer()
    cascade = Cascade([Member("face", Finder([[40, 30, 60, 60]])), Member("slow", model, interval=2)])  # type: ignore[arg-type]
    for name in ("a", "b"):
        cascade.start(replace(CAMERA, camera=name))
    tracks = {"a": [], "b": []}  # type: ignore[var-annotated]
    for index, name in enumerate("aababb"):
        tracks[name].append(cascade.process(stamped(33 * index, name)).faces[0].track)
    assert tracks == {"a": [None, 1, 1], "b": [None, 1, 1]}
    assert len(model.seen) == 4
    cascade.forget("a")
    assert cascade.process(stamped(999, "a")).faces[0].track is None


def test_cascade_that_takes_over_goes_on_with_the_tracks() -> None:
    before = Cascade([Member("face", Finder([[40, 30, 60, 60]]))])  # type: ignore[arg-type]
    before.start(replace(CAMERA, camera="a"))
    for index in range(3):
        before.process(stamped(index, "a"))
    after = Cascade([Member("face", Finder([[40, 30, 60, 60]])), Member("new", Namer())])  # type: ignore[arg-type]
    after.continue_from(before)
    assert after.process(stamped(4, "a")).faces[0].track == 1
    larger = Cascade([Member("face", Finder([[400, 300, 600, 600]]))])  # type: ignore[arg-type]
    larger.continue_from(after)
    frame = frame_of(1200, 1600)
    frame.camera = "a"
    assert larger.process(frame).faces[0].track == 1, "another size at the same moment"
    without, again = (Cascade([Member(name, Finder([[400, 300, 600, 600]]))]) for name in ("other", "face"))  # type: ignore[arg-type]
    without.continue_from(larger)
    again.continue_from(without)
    assert again.process(frame).faces[0].track is None, "where it was when it was removed is long ago"


def test_cascade_that_takes_over_holds_no_result_of_another_model() -> None:
    before, after = (Cascade([Member("slow", Namer(), interval=9)]) for _ in range(2))  # type: ignore[arg-type]
    before.start(CAMERA)
    before.process(frame_of())
    assert list(before.process(frame_of()).held_ms) == ["slow"]
    after.continue_from(before)
    assert after.process(frame_of()).held_ms == {}


def test_a_stream_that_changes_its_size_keeps_its_tracks_and_holds_no_box_of_the_old_one() -> None:
    finder = Finder([[10, 10, 30, 30], [40, 40, 70, 70]])
    cascade = Cascade([Member("face", finder, interval=3)])  # type: ignore[arg-type]
    cascade.start(CAMERA)
    for _ in range(4):  # the first and the last of them are looked at
        numbers = {face.box: face.track for face in cascade.process(frame_of()).faces}
    finder.boxes = (np.array(finder.boxes) * 2)[::-1]  # the first one of them lies where the second was
    result = cascade.process(frame_of(240, 320))
    found = {tuple(np.array(face.box) / 2): face.track for face in result.faces}
    assert (found, result.held_ms) == (numbers, {})


def test_faces_stay_who_they_are_in_pictures_of_another_shape() -> None:
    stream = Stream(follows=True)
    for size, box in (((100, 200), (10, 20, 30, 60)),) * 2 + (((50, 400), (20, 10, 60, 30)),):
        stream.next(size)
        found = stream.tracker("faces").update(np.float32([box])).tolist()
    assert found == [1]
