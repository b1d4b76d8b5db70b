"""The fault camera: its language, each fault on real frames, and the real pipeline over it."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.camera.health import CameraHealth
from edge.cascade import Cascade
from edge.config import CameraSettings, StreamSettings
from edge.errors import SourceError
from edge.feeder import Feeder
from edge.frame import Frame
from edge.pipeline import Limits, Pipeline
from edge.sources import open_source
from edge.sources.fault import GREY, FaultSource
from edge.sources.fault_script import KINDS, Fault, Moment, Script, Span, split

DEMO = "demo://?width=96&height=64&fps=100&frames=60"

numbers = st.integers(0, 99_999).map(lambda n: n / 8)
parts = st.integers(0, 64).map(lambda n: n / 64)
VALUES: dict[str, st.SearchStrategy[tuple[float, ...]]] = {
    "short": st.tuples(parts),
    "corrupt": st.tuples(parts),
    "size": st.tuples(st.integers(2, 7680).map(float), st.integers(2, 7680).map(float)),
    "jump": st.tuples(st.integers(-99_999, 99_999).map(float)),
    "slow": st.tuples(numbers.filter(bool)),
}


@st.composite
def faults(draw: Any, in_frames: bool) -> Fault:
    kind = draw(st.sampled_from([k for k in KINDS if not (in_frames and k in ("stall", "slow"))]))
    begin, length = (math.floor(draw(numbers)), 1 + math.floor(draw(numbers)))
    endless = kind == "jump" or draw(st.booleans())
    value = draw(VALUES.get(kind, st.just(())))
    return Fault(kind, Span(float(begin), math.inf if endless else float(begin + length), in_frames), value)


@st.composite
def scripts(draw: Any) -> Script:
    chosen = tuple(draw(st.lists(faults(in_frames=draw(st.booleans())), max_size=6)))
    in_one_unit = len({fault.span.in_frames for fault in chosen}) == 1
    edges = [e for fault in chosen for e in (fault.span.begin, fault.span.end) if math.isfinite(e)]
    every = max(edges, default=0.0) + 1 if in_one_unit and draw(st.booleans()) else 0.0
    return Script(chosen, every)


@given(scripts())
def test_what_a_script_says_can_be_read_again(script: Script) -> None:
    assert Script.parse(str(script)) == script


@given(st.text(alphabet="freezstalckubj=.:&x0159+-, ", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_script_or_a_source_error(text: str) -> None:
    with suppress(SourceError):  # and no other error
        assert str(Script.parse(str(Script.parse(text)))) == str(Script.parse(text))


@given(scripts(), st.integers(0, 10**6).map(lambda n: n / 16), st.integers(0, 10**6))
def test_an_active_fault_is_one_whose_time_has_come(script: Script, seconds: float, frames: int) -> None:
    now = Moment(seconds, frames)
    for kind in KINDS:
        at = [frames if f.span.in_frames else seconds for f in script.faults if f.kind == kind]
        places = [place % script.every if script.every else place for place in at]
        spans = [f.span for f in script.faults if f.kind == kind]
        expected = any(s.begin <= p < s.end for s, p in zip(spans, places, strict=True))
        assert (script.active(kind, now) is not None) == expected


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("frieze=5..8", "the faults are freeze"),
        ("freeze=5", "every other fault a span"),
        ("freeze=8..5", "ends after it began"),
        ("freeze=5..8f", "one unit"),
        ("freeze=150.5f..160f", "frames are whole"),
        ("stall=5f..9f", "in seconds"),
        ("jump=5..8:3", "one moment"),
        ("jump=5", "seconds, -3600"),
        ("size=5..8", "WIDTHxHEIGHT"),
        ("size=5..8:0x20", "WIDTHxHEIGHT"),
        ("slow=5..8:0", "above 0"),
        ("short=5..8:1.5", "0 to 1"),
        ("black=5..8:3", "nothing"),
        ("black=5..70&every=60", "end before it"),
        ("black=5..7&every=60f", "unit of all"),
        ("every=0", "above 0"),
    ],
)
def test_each_mistake_is_named(item: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        Script.parse(item)


def test_the_inner_source_stands_before_the_last_question_mark() -> None:
    assert split("fault://demo?black=1..2")[0] == "demo://"
    assert split("fault://demo://?width=64?black=1..2")[0] == "demo://?width=64"
    assert split("fault://rtsp://host/s?channel=1?")[0] == "rtsp://host/s?channel=1"


@pytest.mark.parametrize("uri", ["fault://", "fault://demo", "fault://?black=1..2"])
def test_a_camera_without_a_source_or_script_is_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="fault://SOURCE"):
        FaultSource(uri)


def test_no_password_of_the_inner_source_stands_in_an_error() -> None:
    with pytest.raises(SourceError) as caught:
        split("fault://rtsp://anna:geheim@host/s?frieze=1..2")
    assert "geheim" not in str(caught.value)


def test_a_script_repeats() -> None:
    script = Script.parse("black=5..8&jump=9:2&every=10")
    assert script.active("black", Moment(26.0, 0))
    assert not script.active("black", Moment(28.0, 0))
    assert [script.jumped_s(Moment(s, 0)) for s in (8.9, 9.0, 18.9, 19.0)] == [0, 2, 2, 4]


def frames_of(script: str, uri: str = DEMO) -> list[Frame]:
    """All frames of a faulty camera."""
    source, frames = open_source(f"fault://{uri}?{script}"), []
    source.open()
    while source.read(frame := Frame()):
        frames.append(frame)
    source.close()
    return frames


@pytest.fixture(scope="module")
def whole() -> list[Frame]:
    """The inner source's frames, without a fault."""
    return frames_of("")


def differing(frames: list[Frame], whole: list[Frame]) -> list[int]:
    """Which frames are not the inner source's."""
    pairs = zip(frames, whole, strict=True)
    return [f.index for f, w in pairs if not np.array_equal(f.pixels, w.pixels)]


def test_without_a_fault_the_camera_is_the_inner_one(whole: list[Frame]) -> None:
    assert len(whole) == 60
    assert [frame.index for frame in whole] == list(range(60))


def test_black_frames_are_black_and_the_others_untouched(whole: list[Frame]) -> None:
    frames = frames_of("black=10f..14f")
    assert differing(frames, whole) == [10, 11, 12, 13]
    assert all(not frame.pixels.any() for frame in frames[10:14])


def test_a_frozen_camera_shows_one_picture_with_new_stamps(whole: list[Frame]) -> None:
    frames = frames_of("freeze=10f..20f")
    assert all(np.array_equal(frame.pixels, whole[10].pixels) for frame in frames[10:20])
    assert differing(frames, whole) == list(range(11, 20))
    stamps = [frame.stamps.capture for frame in frames[10:20]]
    assert stamps == sorted(set(stamps))


def test_a_short_frame_is_grey_below(whole: list[Frame]) -> None:
    frame = frames_of("short=3f..4f:0.25")[3]
    assert (frame.pixels[16:] == GREY).all()
    assert np.array_equal(frame.pixels[:16], whole[3].pixels[:16])


def test_a_corrupt_frame_has_noise_in_about_its_part_and_the_same_in_every_run(whole: list[Frame]) -> None:
    uri = "demo://?width=640&height=480&frames=2"
    clean, first, second = (frames_of(s, uri)[1] for s in ("", "corrupt=1f..2f:0.3", "corrupt=1f..2f:0.3"))
    assert np.array_equal(first.pixels, second.pixels)
    changed = (first.pixels != clean.pixels).any(axis=2).mean()
    assert 0.25 < changed < 0.35


def test_a_camera_that_changes_its_size_gives_frames_of_that_size() -> None:
    shapes = [frame.pixels.shape for frame in frames_of("size=2f..4f:32x24")[:6]]
    assert shapes == [(64, 96, 3)] * 2 + [(24, 32, 3)] * 2 + [(64, 96, 3)] * 2


def test_a_clock_that_jumps_moves_the_streams_stamps_and_not_our_own() -> None:
    frames = frames_of("jump=5f:3600&jump=8f:-3600")[:10]
    off = [(frame.stamps.media or 0) - frame.stamps.capture for frame in frames]
    assert [ns / 3600e9 for ns in off] == [0] * 5 + [1] * 3 + [0] * 2
    assert all(0 <= frame.stamps.decode - frame.stamps.capture < 60e9 for frame in frames)


def test_a_stall_holds_the_next_frame_back_and_loses_none() -> None:
    source, at_s = FaultSource(f"fault://{DEMO}?stall=0.05..1.05"), []
    source.open()
    began_s = time.monotonic()
    while source.read(Frame()):
        at_s.append(time.monotonic() - began_s)
        time.sleep(0.002)
    assert len(at_s) == 60
    assert max(np.diff([0, *at_s])) > 0.5
    assert at_s[-1] > 1.0


def test_a_stalled_camera_can_be_stopped() -> None:
    source, read = FaultSource(f"fault://{DEMO}?stall=0.."), []
    source.open()
    reader = threading.Thread(target=lambda: read.append(source.read(Frame())))
    reader.start()
    reader.join(0.1)
    assert reader.is_alive()
    source.stop()
    reader.join(5)
    assert read == [False]
    source.close()


def test_a_slow_camera_keeps_its_rate() -> None:
    began_s = time.monotonic()
    assert len(frames_of("slow=0..:100", "demo://?width=64&height=64&frames=21")) == 21
    assert time.monotonic() - began_s >= 0.2


def test_a_cut_camera_ends_refuses_and_comes_back() -> None:
    now = [0.0]
    source = FaultSource(f"fault://{DEMO}?cut=12..14", clock=lambda: now[0])
    source.open()
    assert source.read(Frame())
    now[0] = 12.0
    assert not source.read(Frame())
    source.close()
    with pytest.raises(SourceError, match=r"2\.0 s more"):
        source.open()
    now[0] = 14.0
    source.open()
    assert source.read(Frame())
    source.close()


def test_a_fault_camera_in_a_fault_camera(whole: list[Frame]) -> None:
    frames = frames_of("black=1f..2f", f"fault://{DEMO}?black=3f..4f")
    assert differing(frames, whole) == [1, 3]


def test_the_health_of_a_camera_shows_through() -> None:
    camera = FaultSource("fault://rtsp://127.0.0.1:9/door?black=0..")
    assert isinstance(camera.health(), CameraHealth)
    assert FaultSource(f"fault://{DEMO}?black=0..").health() is None


@pytest.fixture
def watch(colour_bundle: Any) -> Callable[..., tuple[Any, list[Frame]]]:
    """Runs the pipeline with a real model over a fault camera; gives its summary and what it published."""

    def run(script: str, **options: Any) -> tuple[Any, list[Frame]]:
        settings = StreamSettings(model=str(colour_bundle), backend="onnx").chosen()
        seen: list[Frame] = []
        with_model = Cascade.open(settings)
        try:
            source = open_source(f"fault://{DEMO}?{script}")
            return Pipeline(source, with_model, [_Keeper(seen)], **options).run(), seen
        finally:
            with_model.close()

    return run


class _Keeper:
    def __init__(self, seen: list[Frame]) -> None:
        self._seen = seen

    def open(self, source: Any) -> None:
        assert source.uri.startswith("fault://demo://")

    def write(self, frame: Frame, result: Any) -> None:
        kept = Frame(frame.pixels.copy(), frame.index)
        kept.stamps = frame.stamps
        self._seen.append(kept)

    def close(self) -> None: ...


def test_the_pipeline_sees_every_fault_in_its_place(watch: Any) -> None:
    summary, seen = watch("black=5f..9f&size=20f..30f:32x24&short=40f..41f", lossless=True)
    assert summary.counts.processed == len(seen) == 60
    assert [frame.index for frame in seen if not frame.pixels.any()] == [5, 6, 7, 8]
    assert [frame.index for frame in seen if frame.pixels.shape == (24, 32, 3)] == list(range(20, 30))


def test_the_pipeline_ends_at_a_cut_with_all_frames_accounted_for(watch: Any) -> None:
    summary, seen = watch("cut=30f..")
    counts = summary.counts
    assert counts.captured == counts.processed + counts.dropped == 30
    assert seen[-1].index == 29


def test_a_stall_makes_no_old_result(watch: Any) -> None:
    _, seen = watch("stall=0.1..1.1", limits=Limits(seconds=20.0))
    published = [frame.stamps.publish / 1e9 for frame in seen]
    assert max(np.diff(published)) > 0.5
    # The frame that the stall held back was captured after it, so it is as fresh as any.
    assert max(frame.stamps.age_ms for frame in seen) < 500


def test_the_daemons_feeder_brings_a_cut_camera_back() -> None:
    uri = "fault://demo://?width=96&height=64&fps=100?cut=0.3..1.0"
    camera = CameraSettings(name="door", source=uri, reopen=True)
    feeder, states, came_s = Feeder(camera, lambda: open_source(uri)), set(), []
    feeder.start()
    deadline_s = time.monotonic() + 20
    while feeder.health().reconnects == 0 or len(came_s) < 2 or max(np.diff(came_s)) < 0.5:
        states.add(feeder.health().state)
        if feeder.ring.take(0.02) is not None:
            came_s.append(time.monotonic())
            feeder.ring.release()
        assert time.monotonic() < deadline_s
    feeder.ask_to_stop()
    assert feeder.join(5)
    assert {"live", "lost"} <= states
    assert "cut" in feeder.health().last_error or "ended" in feeder.health().last_error


PAGE = Path(__file__).parents[2] / "docs/faults.md"


def test_the_page_names_every_fault_and_its_examples_can_be_read() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `([^`|]*)` \|$", text, re.MULTILINE))
    assert set(rows) == {*KINDS, "every"}
    for example in rows.values():
        Script.parse(example)
    uris = re.findall(r"fault://demo[^\s'`]*", text)
    assert len(uris) >= 3
    for uri in uris:
        FaultSource(uri)
