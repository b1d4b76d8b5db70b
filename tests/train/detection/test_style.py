"""Boxes of one style: what moves, what stays, and that the annotations of other sources are not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from train.detection.data import load_boxed
from train.detection.style import BOX_STYLES, with_one_style

FACES = [[20, 10, 20, 30], [0, 0, 10, 12]]


@pytest.fixture
def data(coco: Callable[..., Path]) -> object:
    rows = [{"source": source, "split": "train", "faces": list(FACES)} for source in ("fddb", "street-masks")]
    return load_boxed(coco(rows), "train")


def test_a_head_is_cut_to_the_face_about_its_lowered_centre(data) -> None:
    head, face = data.images[0].boxes[0], with_one_style(data).images[0].boxes[0]
    style = BOX_STYLES["fddb"]
    assert face[2] - face[0] == pytest.approx(20 * style.width)
    assert face[3] - face[1] == pytest.approx(30 * style.height)
    assert (face[0] + face[2]) / 2 == pytest.approx((head[0] + head[2]) / 2)
    assert (face[1] + face[3]) / 2 == pytest.approx(25 + 30 * style.down)


def test_other_sources_stay_and_the_note_counts_what_moved(data) -> None:
    restyled = with_one_style(data)
    assert np.array_equal(restyled.images[1].boxes, data.images[1].boxes)
    assert restyled.notes[-1] == "2 boxes redrawn from brow to chin"


def test_every_box_stays_inside_its_picture_and_keeps_an_area(data) -> None:
    boxes = with_one_style(data).images[0].boxes
    assert (boxes >= 0).all()
    assert (boxes <= 64).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()
