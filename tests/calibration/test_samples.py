"""The pictures that calibration watches."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.samples import (
    By,
    boxed_samples,
    every_nth,
    k_centre,
    labelled_samples,
    pixels_sha256,
    read_samples,
    thumbnails,
)
from edge.bundle import InputSpec
from edge.errors import InputError
from train.data import load
from train.detection.data import load_boxed

LETTERBOX = InputSpec(height=32, width=64, resize="letterbox")


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """Ten training pictures of 40x40, each of one grey value, and one test picture."""
    (tmp_path / "images").mkdir()
    rows = []
    for index in range(11):
        name = f"{index}.png"
        cv2.imwrite(str(tmp_path / "images" / name), np.full((40, 40, 3), 10 * index, np.uint8))
        split = "test" if index == 10 else "train"
        rows.append({"id": index, "file_name": name, "width": 40, "height": 40, "split": split})
    (tmp_path / "annotations.json").write_text(json.dumps({"images": rows, "annotations": []}))
    return tmp_path


def test_boxed_pictures_are_letterboxed_and_evenly_spaced(boxed: Path) -> None:
    samples = read_samples(str(boxed), LETTERBOX, 4)
    assert samples.images.shape == (4, 32, 64, 3)
    pixels = samples.images[:]
    assert pixels[:, 16, 32, 0].tolist() == [0, 30, 60, 90]
    assert (pixels[:, :, :16] == 128).all()
    assert samples.source.endswith("/train, 4 evenly spaced")


def test_there_are_no_more_pictures_than_there_are(boxed: Path) -> None:
    train = load_boxed(boxed, "train")
    assert every_nth(train, 10) is train
    samples = read_samples(str(boxed), LETTERBOX, 500)
    assert len(samples.images) == 10
    assert samples.held_out is None
    digits = load("digits", "train", 16, 16)
    samples = labelled_samples(digits, 10**6)
    assert samples.source.endswith(f", {len(digits)} by class")
    assert samples.held_out is None


def test_labelled_images_are_chosen_by_class() -> None:
    samples = read_samples("digits", InputSpec(height=32, width=32, resize="crop"), 50)
    assert samples.images.shape == (50, 32, 32, 3)
    assert samples.source.endswith(", 50 by class")


def test_k_centre_takes_the_picture_least_like_those_before_it() -> None:
    """Nine of ten points lie together; the lonely ones come first after the middle."""
    rng = np.random.default_rng(0)
    crowd = rng.normal(0, 0.01, (90, 2))
    lonely = np.array([[9.0, 0], [-9, 0], [0, 9], [0, -9]])
    features = np.concatenate([lonely, crowd]).astype(np.float32)
    chosen = k_centre(features, 5)
    assert chosen[0] >= 4
    assert set(chosen[1:]) == {0, 1, 2, 3}


def test_k_centre_compares_mean_colours() -> None:
    stripes = np.zeros((1, 16, 16, 3), np.uint8)
    stripes[:, :, ::2] = 200
    assert (thumbnails(stripes) == 100).all()


def test_k_centre_chooses_among_pictures_drawn_from_the_whole_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so few that all are chosen, they are those that would be drawn at random."""
    monkeypatch.setattr("calibration.samples.POOL", 60)
    train = load("digits", "train", 16, 16)
    assert labelled_samples(train, 60, "k-centre").ids == labelled_samples(train, 60, "random").ids


def test_k_centre_chooses_among_more_boxed_pictures_than_it_takes(boxed: Path) -> None:
    """The grey of the middle, both ends, and the middle between two; in the order of the split."""
    assert boxed_samples(load_boxed(boxed, "train"), LETTERBOX, 4, "k-centre").ids == ("0", "2", "4", "9")


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_k_centre_never_repeats_and_halves_the_radius_at_best(seed: int, total: int, count: int) -> None:
    features = np.random.default_rng(seed).integers(0, 3, (total, 2)).astype(np.float32)
    chosen = k_centre(features, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(total, count)
    distances = ((features[:, None] - features[chosen]) ** 2).sum(axis=2).min(axis=1)
    if len(chosen) < total:
        # Greedy: what is left is no further away than the last one was when it was chosen.
        before = ((features[chosen[-1]] - features[chosen[:-1]]) ** 2).sum(axis=1)
        assert len(before) == 0 or distances.max() <= before.min()


@pytest.mark.parametrize(("by", "note"), [("random", "at random"), ("k-centre", "by k-centre")])
def test_labelled_images_are_chosen_in_other_ways_too(by: By, note: str) -> None:
    train = load("digits", "train", 16, 16)
    samples = labelled_samples(train, 60, by)
    assert samples.source.endswith(f", 60 {note}")
    places = [int(name) for name in samples.ids]
    assert len(set(places)) == 60
    np.testing.assert_array_equal(samples.images[:], train.images[places])
    again = labelled_samples(train, 60, by)
    assert again.ids == samples.ids


def test_k_centre_spreads_wider_than_chance() -> None:
    train = load("digits", "train", 16, 16)
    features = thumbnails(train.images)

    def radius(by: By) -> float:
        chosen = [int(name) for name in labelled_samples(train, 60, by).ids]
        return float(((features[:, None] - features[chosen]) ** 2).sum(axis=2).min(axis=1).max())

    assert radius("k-centre") < 0.9 * radius("random")


def test_held_out_images_are_others() -> None:
    train = load("digits", "train", 16, 16)
    samples = labelled_samples(train, 100)
    assert samples.held_out is not None
    watched = {image.tobytes() for image in samples.images[:]}
    assert len(samples.held_out) == 128
    assert not watched & {image.tobytes() for image in samples.held_out[:]}


def test_held_out_images_are_from_all_over_the_split(boxed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it stands by class, or by source, the first ones would be alike."""
    digits = load("digits", "train", 16, 16)
    by_class = digits.take(np.argsort(digits.labels, kind="stable"), "")
    labels = {image.tobytes(): label for image, label in zip(digits.images, digits.labels, strict=True)}
    held_out = labelled_samples(by_class, 100).held_out
    assert held_out is not None
    assert len({labels[image.tobytes()] for image in held_out[:]}) == 10
    monkeypatch.setattr("calibration.samples.HELD_OUT", 2)
    held_out = read_samples(str(boxed), LETTERBOX, 4).held_out
    assert held_out is not None
    assert held_out[:][:, 16, 32, 0].tolist() == [10, 80]


@pytest.mark.parametrize("by", ["random", "k-centre"])
def test_boxed_pictures_are_chosen_in_other_ways_too(boxed: Path, by: By) -> None:
    train = load_boxed(boxed, "train")
    samples = boxed_samples(train, LETTERBOX, 4, by)
    assert samples.images.shape == samples.images[:].shape == (4, 32, 64, 3)
    assert len(set(samples.ids)) == 4
    assert samples.held_out is not None
    assert len(samples.held_out) == len(train) - 4


def test_boxed_pictures_are_decoded_slice_by_slice(boxed: Path) -> None:
    images = read_samples(str(boxed), LETTERBOX, 4).images
    np.testing.assert_array_equal(images[1:3], images[:][1:3])
    np.testing.assert_array_equal(images[::2], images[:][::2])
    assert images[4:].shape == (0, 32, 64, 3)
    assert pixels_sha256(images, batch=3) == pixels_sha256(images[:])


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one image, 0"):
        read_samples("digits", InputSpec(height=32, width=32, resize="crop"), 0)
