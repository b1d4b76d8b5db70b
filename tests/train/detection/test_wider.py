"""WIDER FACE's protocol on a tiny set of our own, in the official files' form, against hand work."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.errors import InputError
from edge.results import Faces
from train.detection.command import _wider_json
from train.detection.wider import is_wider, load_wider, wider_figures

EVENTS: dict[str, dict[str, list[list[int]]]] = {
    "0--Parade": {"0_Parade_a": [[8, 8, 8, 8], [40, 40, 8, 8]], "0_Parade_jpg.gjp": [[16, 16, 8, 8]]},
    "61--Street_Battle": {"61_Street_b": []},
}
"""By event and picture, x, y, width, height. A name ends in the letters that `rstrip('.jpg')` would eat."""
LISTS = {"easy": [[[1], []], [[]]], "medium": [[[1], [1]], [[]]], "hard": [[[1, 2], [1]], [[]]]}
"""By setting, event and picture, the faces that count, from 1."""


def cells(items: Sequence[Any]) -> np.ndarray:
    """A MATLAB cell column (n, 1)."""
    out = np.empty((len(items), 1), object)
    for index, item in enumerate(items):
        out[index, 0] = item
    return out


def column(rows: Sequence[Any], width: int) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, width)


def write_pictures(folder: Path) -> None:
    for event, pictures in EVENTS.items():
        (folder / "WIDER_val/images" / event).mkdir(parents=True)
        for name, faces in pictures.items():
            picture = np.zeros((64, 64, 3), np.uint8)
            for x, y, width, height in faces:
                picture[y : y + height, x : x + width] = 255
            # PNG content under the official name: lossless, and decoded by its content.
            content = cv2.imencode(".png", picture)[1].tobytes()
            (folder / "WIDER_val/images" / event / f"{name}.jpg").write_bytes(content)


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    """The pictures, and the four .mat files under eval_tools/ground_truth."""
    from scipy.io import savemat

    folder, truth = tmp_path / "wider", tmp_path / "wider/eval_tools/ground_truth"
    truth.mkdir(parents=True)
    write_pictures(folder)
    names = {
        "event_list": cells(list(EVENTS)),
        "file_list": cells([cells(list(pictures)) for pictures in EVENTS.values()]),
    }
    boxes = [cells([column(faces, 4) for faces in pictures.values()]) for pictures in EVENTS.values()]
    savemat(truth / "wider_face_val.mat", {**names, "face_bbx_list": cells(boxes)})
    for setting, events in LISTS.items():
        lists = cells([cells([column(indices, 1) for indices in pictures]) for pictures in events])
        savemat(truth / f"wider_{setting}_val.mat", {**names, "gt_list": lists})
    return folder


def write_text(folder: Path) -> None:
    lines = []
    for event, pictures in EVENTS.items():
        for name, faces in pictures.items():
            lines += [f"{event}/{name}.jpg", str(len(faces))]
            # The second face of a picture is marked invalid.
            lines += [f"{x} {y} {w} {h} 0 0 0 {n} 0 0 " for n, (x, y, w, h) in enumerate(faces)]
            lines += [] if faces else ["0 0 0 0 0 0 0 0 0 0 "]
    (folder / "wider_face_split").mkdir(parents=True)
    (folder / "wider_face_split/wider_face_val_bbx_gt.txt").write_text("\n".join(lines) + "\n")


def faces(*rows: tuple[float, ...]) -> Faces:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Faces(table[:, :4], table[:, 4])


FIRST, SECOND, WRONG = (8.0, 8.0, 16.0, 16.0), (40.0, 40.0, 48.0, 48.0), (0.0, 40.0, 8.0, 48.0)


def test_the_official_files_are_read(wider: Path) -> None:
    assert is_wider(wider)
    images = load_wider(wider)
    assert images.settings == ("easy", "medium", "hard")
    assert [image.path.name for image in images.images] == [
        "0_Parade_a.jpg", "0_Parade_jpg.gjp.jpg", "61_Street_b.jpg",
    ]  # fmt: skip
    assert images.images[0].boxes.tolist() == [list(FIRST), list(SECOND)]
    assert images.images[0].kept["easy"].tolist() == [True, False]
    assert images.images[1].kept["medium"].tolist() == [True]
    assert images.images[2].boxes.shape == (0, 4)
    assert images.images[0].read().shape == (64, 64, 3)


def test_widths_and_heights_count_a_pixel_more(wider: Path) -> None:
    """Of the face's 9x9 pixels one half, and a little less."""
    images = load_wider(wider)
    for bottom, expected in ((11.5, 1.0), (11.4, 0.0)):
        found = [faces((8, 8, 16, bottom, 0.9)), faces(), faces()]
        assert wider_figures(images, found, "easy", repetitions=1).average_precision == expected


def test_scores_are_stretched_and_precision_never_rises_with_recall(wider: Path) -> None:
    """Precision 1, 1/2, 2/3, 3/4 at recall 1/3, 1/3, 2/3, 1."""
    third = (16.0, 16.0, 24.0, 24.0, 0.50001)
    rows = faces((*FIRST, 0.50004), (*WRONG, 0.50003), (*SECOND, 0.50002))
    figures = wider_figures(load_wider(wider), [rows, faces(third), faces()], "hard", repetitions=1)
    assert figures.average_precision == pytest.approx(1 / 3 + 3 / 4 * 2 / 3)


def test_the_protocol_by_hand(wider: Path) -> None:
    """Scores 0.9, 0.7, 0.5, 0.3, 0.1 stretch to 1, .75, .5, .25, 0; the third picture has no faces.

    Picture 1: 1.00 on the second face, .75 wrong, .50 on the first face, .25 on the first face again.
    Picture 2: no detection. Picture 3: one of score 0, never counted.
    easy, 1 face (the first): the second face's detection is ignored; wrong, right, wrong:
        precision 1/2 at recall 1, so 0.5.
    medium, 2 faces: the same detections, the second picture's face is missed: 0.5 * 0.5.
    hard, 3 faces: right, wrong, right, wrong: precision 1 at 1/3, 2/3 at 2/3: (1 + 2/3) / 3.
    """
    images = load_wider(wider)
    found = [
        faces((*FIRST, 0.5), (*SECOND, 0.9), (*WRONG, 0.7), (9, 9, 16, 16, 0.3)),
        faces(),
        faces((*WRONG, 0.1)),
    ]
    found[0] = Faces(found[0].boxes[[1, 2, 0, 3]], found[0].scores[[1, 2, 0, 3]])
    expected = {"easy": (1, 0.5), "medium": (2, 0.25), "hard": (3, (1 + 2 / 3) / 3)}
    for setting, (count, value) in expected.items():
        figures = wider_figures(images, found, setting, repetitions=20)
        assert figures.faces == count
        assert figures.average_precision == pytest.approx(value), setting
        assert 0 <= figures.ci95[0] <= figures.ci95[1] <= 1


def test_equal_scores_and_no_detections_give_no_nan(wider: Path) -> None:
    images = load_wider(wider)
    assert wider_figures(images, [faces()] * 3, "hard", 5).average_precision == 0.0
    same = [faces((*FIRST, 0.4), (*SECOND, 0.4)), faces(), faces()]
    assert wider_figures(images, same, "hard", 5).average_precision == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["keras_detector", "detector_bundle"])
def test_the_command_recognises_the_set(
    kind: str, wider: Path, command: Callable[..., Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    options = ("--json", tmp_path / "r.json", "--plot", tmp_path / "curve.png")
    ended = command("evaluate", request.getfixturevalue(kind), "--data", wider, *options)
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["metric"], result["value"], result["n"], result["data"]) == (
        "wider_hard", 1.0, 3, "wider/val",
    )  # fmt: skip
    assert result["ci95"] == result["hard"]["ci95"]
    assert [result[setting]["faces"] for setting in LISTS] == [1, 2, 3]
    assert result["easy"]["value"] == 1.0
    assert "medium" in ended.out
    assert (tmp_path / "curve.png").is_file()


@pytest.mark.filterwarnings("error")
def test_where_no_face_counts_there_is_no_figure_and_json_says_null(wider: Path) -> None:
    images = load_wider(wider)
    none = replace(images, images=images.images[2:])
    found = _wider_json({"hard": wider_figures(none, [faces((*FIRST, 0.4))], "hard", 5)})
    assert (found["value"], found["ci95"], found["hard"]["ci95"]) == (None, [None, None], [None, None])
    json.dumps(found, allow_nan=False)


def test_a_limit_is_spread_over_the_set_and_told(
    wider: Path, command: Callable[..., Any], detector_bundle: Path, tmp_path: Path
) -> None:
    ended = command(
        "evaluate", detector_bundle, "--data", wider, "--limit", "2", "--json", tmp_path / "r.json"
    )
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["n"], result["data"]) == (2, "wider/val 2 of 3")
    assert result["hard"]["faces"] == 2  # those of the first picture; the last one has none


def test_without_the_lists_the_valid_faces_count(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    write_text(tmp_path)
    assert is_wider(tmp_path)
    images = load_wider(tmp_path)
    assert images.settings == ("valid",)
    assert [image.kept["valid"].tolist() for image in images.images] == [[True, False], [True], []]


def test_what_is_missing_or_damaged_is_named(wider: Path, tmp_path: Path) -> None:
    truth = wider / "eval_tools/ground_truth"
    (wider / "WIDER_val/images/61--Street_Battle/61_Street_b.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 3 pictures .* missing, the first is .*61_Street_b\.jpg"):
        load_wider(wider)
    (truth / "wider_easy_val.mat").write_bytes(b"no mat")
    with pytest.raises(InputError, match=r"wider_easy_val\.mat is not a MATLAB file"):
        load_wider(wider)
    (truth / "wider_easy_val.mat").unlink()
    with pytest.raises(InputError, match=r"lacks wider_easy_val\.mat and wider_face_val_bbx_gt\.txt"):
        load_wider(wider)
    (truth / "wider_face_val_bbx_gt.txt").write_text("0--Parade/a.jpg\nmany\n")
    with pytest.raises(InputError, match="are not WIDER FACE's"):
        load_wider(wider)
    assert not is_wider(tmp_path)
