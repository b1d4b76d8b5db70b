"""What the shipped models must see in the demo: one face on the astronaut, none on the cat, and a cat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from edge.boxes import iou
from edge.bundle import Bundle, shipped
from edge.cascade import Cascade
from edge.config import DEFAULT_MODELS, StreamSettings
from edge.frame import Frame, Stamps
from edge.results import FrameResult
from edge.sources import open_source
from edge.sources.demo import FADE_S, SHOT_S, SHOTS

FPS = 10
FACE_BUNDLES = [name for name in shipped() if Bundle.open(name).manifest.task == "faces"]


def seen(settings: StreamSettings, photograph: str) -> Iterator[FrameResult]:
    """The results of every frame that shows this photograph alone."""
    number = next(index for index, shot in enumerate(SHOTS) if shot.file.startswith(photograph))
    source, frame = open_source(f"demo://?fps={FPS}"), Frame()
    with closing(Cascade.open(settings.chosen())) as models, closing(source):
        models.start(source.open())
        while source.read(frame):
            at_s = frame.index / FPS - number * SHOT_S
            if at_s > SHOT_S - FADE_S:
                return
            frame.stamps = Stamps()
            if at_s >= 0:
                yield models.process(frame)


def share(right: list[bool]) -> float:
    assert len(right) > 20
    return sum(right) / len(right)


@pytest.mark.parametrize("model", ["cifar10-base", "cifar10-convnetjs"])
def test_the_cat_is_a_cat(model: str) -> None:
    results = list(seen(StreamSettings(model=model), "chelsea"))
    assert share([result.summary().startswith("cat") for result in results]) >= 0.9


@pytest.mark.skipif(not FACE_BUNDLES, reason="no face bundle is shipped yet, see edge/bundles")
def test_the_astronaut_has_one_face_and_the_cat_none() -> None:
    for name in FACE_BUNDLES:
        settings = StreamSettings(model=name)
        astronaut = list(seen(settings, "astronaut"))
        assert share([len(result.faces) == 1 for result in astronaut]) == 1, name
        assert {face.track for result in astronaut[1:] for face in result.faces} == {1}, name
        assert share([not result.faces for result in seen(settings, "chelsea")]) == 1, name


@pytest.mark.skipif(not FACE_BUNDLES, reason="no face bundle is shipped yet, see edge/bundles")
def test_the_demo_shows_both_tasks() -> None:
    assert {Bundle.open(name).manifest.task for name in DEFAULT_MODELS} == {"classification", "faces"}


@pytest.mark.skipif(not FACE_BUNDLES, reason="no face bundle is shipped yet, see edge/bundles")
def test_the_astronauts_face_is_where_it_is() -> None:
    """Its place in the photograph, followed along the camera's way: it fills a part of the middle."""
    import numpy as np

    for name in FACE_BUNDLES:
        first = next(seen(StreamSettings(model=name), "astronaut"))
        expected = np.array([[450, 60, 695, 365]], np.float32)
        found = np.array([face.box for face in first.faces], np.float32)
        assert iou(found, expected).max() > 0.5, name
