"""COCO folders: what is read, what is mended and said, what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.errors import InputError, SourceError
from train.detection.data import is_boxed, load_boxed, pictures

Coco = Callable[..., Path]


def test_boxes_are_corners_and_images_come_by_id(coco: Coco) -> None:
    folder = coco(
        [
            {"id": 7, "faces": [[8, 16, 4, 2]], "source": "street"},
            {"id": 3, "faces": []},
            {"id": 5, "split": "train"},
        ]
    )
    images = load_boxed(folder, "test")
    assert is_boxed(folder)
    assert [image.image_id for image in images.images] == [3, 7]
    assert [image.boxes.tolist() for image in images.images] == [[], [[8, 16, 12, 18]]]
    assert images.images[0].boxes.shape == (0, 4)
    assert [image.source for image in images.images] == ["", "street"]
    assert (len(images), images.faces, images.source, images.notes) == (2, 1, "coco/test", ())
    assert len(load_boxed(folder, "train")) == 1


def test_an_image_without_a_split_is_for_training(coco: Coco) -> None:
    folder = coco([{}])
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    del content["images"][0]["split"]
    path.write_text(json.dumps(content))
    assert len(load_boxed(folder, "train")) == 1
    with pytest.raises(InputError, match=r"no images of the split 'test'; it has: train 1\."):
        load_boxed(folder, "test")


def test_boxes_are_cut_at_the_edge_or_left_out_and_counted(coco: Coco) -> None:
    faces = [[-4, -4, 8, 8], [60, 0, 9, 5], [1, 1, 0, 5], [1, 1, 5, -2], [70, 70, 5, 5], [1, 2, 3, 4]]
    images = load_boxed(coco([{"faces": faces}]), "test")
    assert images.images[0].boxes.tolist() == [[0, 0, 4, 4], [60, 0, 64, 5], [1, 2, 4, 6]]
    assert images.notes == (
        "boxes cut at the picture's edge: 2",
        "boxes left out, without area in the picture: 3",
    )


def test_a_byte_order_mark_is_no_part_of_the_json(coco: Coco) -> None:
    path = coco([{"faces": [(1, 2, 3, 4)]}]) / "annotations.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert load_boxed(path.parent, "test").faces == 1


def test_crowds_and_ignored_faces_are_marked(coco: Coco) -> None:
    faces = [
        {"image_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        {"image_id": 1, "bbox": [9, 9, 5, 5], "ignore": 1},
        {"image_id": 1, "bbox": [0, 0, 0, 5]},
        {"image_id": 1, "bbox": [20, 20, 5, 5]},
    ]
    images = load_boxed(coco([{}], annotations=faces), "test")
    assert images.images[0].ignored.tolist() == [True, True, False]
    assert images.faces == 1


ROW = {"id": 1, "file_name": "1.png", "width": 64, "height": 64, "split": "test"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"annotations": [{"id": 4, "image_id": 99, "bbox": [0, 0, 5, 5]}]}, "annotation 4 names the image 99"),
    ({"images": [ROW, ROW]}, "the image id 1 stands more than once"),
    (
        {"annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 5, 5]}] * 2},
        "the annotation id 1 stands more than once",
    ),
    ({"images": [ROW | {"file_name": "gone.png"}]}, "lists gone.png, but .* does not exist"),
    ({"images": [ROW | {"file_name": "x.png?signature=" + 300 * "0"}]}, "x.png.* does not exist"),
    ({"images": [ROW, ROW | {"id": 2}]}, "lists the picture 1.png 2 times, for test"),
    (
        {"images": [ROW, ROW | {"id": 2, "split": "train", "file_name": "./1.png"}]},
        "lists the picture 1.png 2 times, for test and train",
    ),
    (
        {"annotations": [{"image_id": 1, "category_id": n, "bbox": [0, 0, 5, 5]} for n in (3, 3, 7)]},
        r"boxes of 2 categories \(category_id: 2 of 3, 1 of 7\), and all would count as faces",
    ),
    ({"images": "none"}, "not COCO's JSON: images"),
    ({"images": [5]}, "not COCO's JSON: images.0"),
    ({"images": [ROW | {"width": 0}]}, "not COCO's JSON: images.0.width"),
    ({"images": [ROW | {"id": None}]}, "not COCO's JSON: images.0.id"),
    ({"annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}, "not COCO's JSON: annotations.0.bbox"),
    ({"annotations": [{"image_id": 1, "bbox": [1, 2, 3, float("nan")]}]}, r"annotations.0.bbox.3: .*finite"),
    ({"annotations": [{"image_id": [1], "bbox": [1, 2, 3, 4]}]}, "not COCO's JSON: annotations.0.image_id"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_annotations_that_do_not_hold_together_end_with_2(
    coco: Coco, command: Callable[..., Any], detector_bundle: Path, changes: dict[str, Any], words: str
) -> None:
    ended = command("evaluate", detector_bundle, "--data", coco([{}], **changes))
    assert ended.code == 2
    assert re.search(words, ended.err), ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"{}", b'"text"', b"\xff\xfe", b"null", b"3"])
def test_what_is_not_coco_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "annotations.json").write_bytes(content)
    with pytest.raises(InputError, match=r"annotations\.json is not COCO's JSON"):
        load_boxed(tmp_path, "test")


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    assert not is_boxed(tmp_path)
    with pytest.raises(InputError, match=r"No annotations at .*: expected COCO's JSON beside images/"):
        load_boxed(tmp_path, "test")
    with pytest.raises(InputError, match="Unknown split 'dev'; there are train, val, test"):
        load_boxed(tmp_path, "dev")


# -- pictures -------------------------------------------------------------------------------------


def test_grey_rgba_and_one_pixel_pictures_are_rgb(coco: Coco) -> None:
    folder = coco(
        [
            {"file_name": "grey.png"},
            {"file_name": "rgba.png"},
            {"file_name": "one.png", "width": 1, "height": 1},
        ]
    )
    cv2.imwrite(str(folder / "images/grey.png"), np.full((64, 64), 77, np.uint8))
    blue_green_red_alpha = np.tile(np.array([10, 20, 30, 99], np.uint8), (64, 64, 1))
    cv2.imwrite(str(folder / "images/rgba.png"), blue_green_red_alpha)
    cv2.imwrite(str(folder / "images/one.png"), np.full((1, 1, 3), 5, np.uint8))
    grey, rgba, one = pictures(load_boxed(folder, "test").images)
    assert (grey.shape, grey.dtype, int(grey[0, 0].min())) == ((64, 64, 3), np.uint8, 77)
    assert rgba[0, 0].tolist() == [30, 20, 10]
    assert one.shape == (1, 1, 3)


def turned_jpeg(path: Path) -> None:
    """80x40 pixels as stored, to be turned a quarter (EXIF orientation 6): upright 40x80."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), (200, 30, 30)).save(path, exif=exif)


def test_pictures_are_turned_upright_and_the_size_must_be_the_upright_one(coco: Coco) -> None:
    folder = coco([{"file_name": "a.jpg", "width": 40, "height": 80}])
    turned_jpeg(folder / "images/a.jpg")
    assert load_boxed(folder, "test").images[0].read().shape == (80, 40, 3)
    folder = coco([{"file_name": "a.jpg", "width": 80, "height": 40}])
    turned_jpeg(folder / "images/a.jpg")
    with pytest.raises(InputError, match=r"a.jpg is 40x80 upright, .* say 80x40: probably the boxes .* EXIF"):
        load_boxed(folder, "test").images[0].read()


def test_a_resized_picture_is_refused(coco: Coco) -> None:
    folder = coco([{"width": 128, "height": 128, "faces": [[100, 100, 20, 20]]}])
    with pytest.raises(InputError, match=r"1.png is 64x64 upright, .*\(image 1\) say 128x128: .* resized"):
        load_boxed(folder, "test").images[0].read()


def test_a_picture_that_cannot_be_decoded_is_named(coco: Coco) -> None:
    folder = coco([{}, {}])
    (folder / "images/2.png").write_bytes(b"not a picture")
    with pytest.raises(SourceError, match=r"2\.png is not an image"):
        list(pictures(load_boxed(folder, "test").images))


def test_more_pictures_than_are_read_ahead_stay_in_order(coco: Coco) -> None:
    folder = coco([{"width": side, "height": side} for side in range(1, 31)])
    for side in range(1, 31):
        cv2.imwrite(str(folder / f"images/{side}.png"), np.zeros((side, side, 3), np.uint8))
    read = pictures(load_boxed(folder, "test").images)
    assert [picture.shape[0] for picture in read] == list(range(1, 31))


def test_the_hash_changes_with_boxes_and_pictures(coco: Coco) -> None:
    first = load_boxed(coco([{"faces": [[1, 1, 5, 5]]}]), "test").sha256()
    assert load_boxed(coco([{"faces": [[1, 1, 5, 5]]}]), "test").sha256() == first
    assert load_boxed(coco([{"faces": [[1, 1, 5, 6]]}]), "test").sha256() != first
