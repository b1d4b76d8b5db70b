"""Classes taught from a few pictures: named, told from what is none of them, private, and forgotten."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge.bundle import Bundle
from edge.enrolment.classifier import UNKNOWN, Examples, ExemplarClassifier, embedding, likeness, threshold
from edge.enrolment.store import Store
from edge.enrolment.task import with_enrolled
from edge.errors import InputError
from edge.model import Model
from edge.results import Classification

ORANGE, VIOLET, TEAL = (240, 120, 10), (130, 20, 220), (10, 200, 180)


def picture(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    """uint8 (40, 40, 3) RGB of one colour and some noise."""
    chance = np.random.default_rng(seed)
    tint = chance.normal(0, 8, 3)
    noise = chance.normal(0, 10, (40, 40, 3))
    return np.clip(np.array(colour) + tint + noise, 0, 255).astype(np.uint8)


def shots(folder: Path, name: str, colour: tuple[int, int, int], count: int = 6) -> list[Path]:
    paths = [folder / f"{name}{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), picture(colour, index)[:, :, ::-1])
    return paths


@pytest.fixture
def taught(tmp_path: Path, colour_bundle: Path, command: Callable[..., Any]) -> Path:
    """A store with the classes orange and violet."""
    store = tmp_path / "store"
    for name, colour in (("orange", ORANGE), ("violet", VIOLET)):
        ended = command("enroll", colour_bundle, name, *shots(tmp_path, name, colour), "--store", store)
        assert (ended.code, ended.err) == (0, "")
        assert f"'{name}': 6 pictures, 3 numbers each; accepted from a likeness of 0.9" in ended.out
    return store


def test_new_classes_are_named_and_what_is_none_of_them_is_unknown(taught: Path, colour_bundle: Path) -> None:
    model = with_enrolled(Model.open(Bundle.open(colour_bundle)), taught)
    assert model.manifest.labels == ("orange", "violet", UNKNOWN)

    def named(colour: tuple[int, int, int]) -> list[str]:
        results = [model.predict(picture(colour, seed)) for seed in range(100, 140)]
        assert all(isinstance(result, Classification) for result in results)
        assert all(result.scores.sum() == pytest.approx(1, abs=1e-5) for result in results)
        return [result.label for result in results]

    assert named(ORANGE).count("orange") >= 28
    assert named(VIOLET).count("violet") >= 28
    assert "violet" not in named(ORANGE)
    assert named(TEAL) == [UNKNOWN] * 40
    model.close()


def test_a_stream_names_the_enrolled_classes(
    taught: Path, tmp_path: Path, colour_bundle: Path, command: Callable[..., Any]
) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    shots(folder, "a", VIOLET, 3)
    shots(folder, "b", TEAL, 3)
    config = tmp_path / "stream.toml"
    config.write_text(
        f'source = "{folder}"\n[sinks]\nterminal = false\njsonl = "{tmp_path / "out.jsonl"}"\n'
        f'[[models]]\nbundle = "{colour_bundle}"\nenrolled = "{taught}"\n'
    )
    ended = command("run", config, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    labels = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert labels == ["violet"] * 3 + [UNKNOWN] * 3


def test_more_pictures_add_up_and_the_same_ones_do_not(
    taught: Path, tmp_path: Path, colour_bundle: Path, command: Callable[..., Any]
) -> None:
    again = command("enroll", colour_bundle, "orange", *shots(tmp_path, "more", ORANGE, 8), "--store", taught)
    assert "'orange': 8 pictures" in again.out  # six of the eight are known


def test_a_class_is_listed_and_forgotten(taught: Path, command: Callable[..., Any]) -> None:
    assert command("enroll", "--list", "--store", taught).out.splitlines() == [
        "mean-colour  orange  thing  6 pictures",
        "mean-colour  violet  thing  6 pictures",
    ]
    assert "orange.json is gone" in command("enroll", "--forget", "orange", "--store", taught).out
    assert command("enroll", "--list", "--store", taught).out.splitlines() == [
        "mean-colour  violet  thing  6 pictures"
    ]
    assert not [path for path in taught.rglob("*") if "orange" in path.name], "nothing is left of it"
    ended = command("enroll", "--forget", "orange", "--store", taught)
    assert (ended.code, "holds no class 'orange'" in ended.err) == (2, True)


def test_a_damaged_file_can_be_forgotten_and_is_named_otherwise(
    taught: Path, colour_bundle: Path, command: Callable[..., Any]
) -> None:
    (taught / "mean-colour" / "orange.json").write_text("{")
    with pytest.raises(InputError, match=r"orange.json is no enrolled class: .*Remove the file"):
        Store(taught, Bundle.open(colour_bundle).manifest).classifier()
    assert command("enroll", "--forget", "orange", "--store", taught).code == 0


def test_a_class_that_cannot_be_deleted_is_named(
    taught: Path, colour_bundle: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", read_only)
    ended = command("enroll", "--forget", "orange", "--store", taught)
    assert (ended.code, "orange.json cannot be deleted: Read-only file system" in ended.err) == (2, True)
    with pytest.raises(InputError, match=r"violet\.json cannot be deleted"):
        Store(taught, Bundle.open(colour_bundle).manifest).forget("violet")


def face_shots(folder: Path, count: int, markers: int = 1) -> list[Path]:
    """Pictures with red markers, which the tests' detector takes for faces, on blue."""
    paths = [folder / f"face{markers}{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        pixels = picture((20, 20, 200), index).repeat(4, 0).repeat(4, 1)[:64, :64]
        for marker in range(markers):
            pixels[24:32, 8 + 32 * marker : 16 + 32 * marker] = (255, 0, 0)
        cv2.imwrite(str(path), pixels[:, :, ::-1])
    return paths


def test_people_are_cut_out_kept_private_and_used_only_when_switched_on(
    tmp_path: Path, colour_bundle: Path, faces_bundle: Path, command: Callable[..., Any]
) -> None:
    store = tmp_path / "store"
    options = ["--people", "--detector", faces_bundle, "--store", store]
    ended = command("enroll", colour_bundle, "Ada", *face_shots(tmp_path, 4), *options)
    assert (ended.code, ended.err) == (0, "")
    (file,) = store.rglob("*.json")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, store)] == [0o600, 0o700, 0o700]
    assert json.loads(file.read_text())["people"] is True
    assert "Ada  person  4 pictures" in command("enroll", "--list", "--store", store).out
    model = Model.open(Bundle.open(colour_bundle))
    with pytest.raises(InputError, match="People are enrolled, but not switched on"):
        with_enrolled(model, store)
    assert with_enrolled(model, store, people=True).manifest.labels == ("Ada", UNKNOWN)
    as_thing = command("enroll", colour_bundle, "Ada", *face_shots(tmp_path, 4), "--store", store)
    assert (as_thing.code, "enrolled as a person" in as_thing.err) == (2, True)
    model.close()


def test_a_detector_that_finds_no_faces_is_refused(
    tmp_path: Path, colour_bundle: Path, command: Callable[..., Any]
) -> None:
    options = ["--people", "--detector", colour_bundle, "--store", tmp_path / "store"]
    ended = command("enroll", colour_bundle, "Ada", *face_shots(tmp_path, 2), *options)
    assert (ended.code, "finds no faces: --detector needs a bundle" in ended.err) == (2, True)


@pytest.mark.parametrize("markers", [0, 2])
def test_a_picture_without_exactly_one_face_is_refused_by_name(
    tmp_path: Path, colour_bundle: Path, faces_bundle: Path, command: Callable[..., Any], markers: int
) -> None:
    paths = face_shots(tmp_path, 2, markers)
    ended = command("enroll", colour_bundle, "Ada", *paths, "--people", "--detector", faces_bundle)
    assert ended.code == 2
    assert f"{paths[0].name}: expected one face, found {markers}" in ended.err


@pytest.mark.parametrize(
    ("label", "count", "message"),
    [
        ("orange", 1, "needs at least two different pictures"),
        ("unknown", 3, "cannot be a label"),
        ("", 3, "cannot be a label"),
        ("a\nb", 3, "cannot be a label"),
        ("x" * 201, 3, "at most 200 letters"),
        ("日" * 23, 3, "each beyond ASCII counts as 6 or more"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(
    tmp_path: Path, colour_bundle: Path, command: Callable[..., Any], label: str, count: int, message: str
) -> None:
    store = tmp_path / "store"
    ended = command("enroll", colour_bundle, label, *shots(tmp_path, "a", ORANGE, count), "--store", store)
    assert (ended.code, message in ended.err) == (2, True)
    assert not list(store.rglob("*.json"))


def test_a_detector_and_a_missing_argument_are_refused(
    tmp_path: Path, faces_bundle: Path, command: Callable[..., Any]
) -> None:
    ended = command("enroll", faces_bundle, "a", *shots(tmp_path, "a", ORANGE, 2))
    assert (ended.code, "is a model for faces" in ended.err) == (2, True)
    ended = command("enroll", faces_bundle)
    assert (ended.code, "Expected: sightline enroll BUNDLE LABEL IMAGE" in ended.err) == (2, True)


def test_another_network_of_the_same_name_is_refused(taught: Path, colour_bundle: Path) -> None:
    manifest = Bundle.open(colour_bundle).manifest
    artefact = manifest.artefacts[0].model_copy(update={"sha256": "ab" * 32})
    other = manifest.model_copy(update={"artefacts": (artefact,)})
    with pytest.raises(InputError, match="taught to another network"):
        Store(taught, other).classes()


def test_other_heads_are_another_network_and_another_artefact_is_not(tmp_path: Path) -> None:
    manifest, rows = Bundle.open("cifar10-nano").manifest, np.eye(2, 10, dtype=np.float32)
    Store(tmp_path, manifest).add("mug", rows)
    (logits,), (first, *rest) = manifest.outputs, manifest.artefacts
    rebuilt = manifest.model_copy(
        update={"artefacts": (first.model_copy(update={"sha256": "ab" * 32}), *rest)}
    )
    assert [one.label for one in Store(tmp_path, rebuilt).classes()] == ["mug"]
    more = logits.model_copy(update={"name": "last", "role": "embedding"})
    with_embedding = Store(tmp_path, manifest.model_copy(update={"outputs": (logits, more)}))
    assert with_embedding.heads == (logits.name, "last")
    with pytest.raises(InputError, match="taught to another network"):
        with_embedding.classes()


def test_more_pictures_than_are_kept_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, Bundle.open("cifar10-nano").manifest)
    store.add("mug", np.eye(200, dtype=np.float32))
    with pytest.raises(InputError, match="would have 201 pictures; at most 200 are kept"):
        store.add("mug", np.full((1, 200), 0.1, np.float32))


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_no_label_leads_out_of_the_store(label: str) -> None:
    store = Store(Path("/store"), Bundle.open("cifar10-convnetjs").manifest)
    try:
        path = store._path(label)
    except InputError:
        return
    assert path.parent == store.folder
    assert ".." not in path.parts


def test_likeness_is_the_mean_of_the_nearest_three_and_of_the_prototype() -> None:
    """By hand: e1 is like itself alone (1, 0, 0 nearest), and 1/2 like the middle of four at right angles."""
    at_right_angles = np.eye(4, dtype=np.float32)
    assert likeness(at_right_angles, at_right_angles[:1]) == pytest.approx([(1 / 3 + 1 / 2) / 2])


def test_no_head_of_an_embedding_outweighs_the_other() -> None:
    heads = {"a": np.array([[3, 4]], np.float32), "b": np.array([[0, 500, 0]], np.float32)}
    assert embedding(heads, ["a", "b"]) == pytest.approx(np.array([0.6, 0.8, 0, 1, 0]) / 2**0.5)


vectors = arrays.arrays(np.float32, (8, 5), elements=st.floats(-1, 1, width=32))


@given(vectors, st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_the_threshold_lets_the_stated_share_of_the_examples_through(rows: np.ndarray, accept: float) -> None:
    exemplars = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    left_out = [
        likeness(np.delete(exemplars, row, axis=0), exemplars[row : row + 1])[0]
        for row in range(len(exemplars))
    ]
    limit = threshold(exemplars, accept)
    # The quantile lies between two examples: one of them may be on its other side.
    assert sum(found >= limit - 1e-6 for found in left_out) >= accept * len(left_out) - 1
    assert accept < 1 or limit == pytest.approx(min(left_out), abs=1e-6)


@given(vectors)
def test_the_best_class_is_unknown_exactly_where_no_threshold_is_reached(rows: np.ndarray) -> None:
    rows = rows + np.float32(1e-3)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)
    classifier = ExemplarClassifier({"a": Examples(rows[:3], 0.9), "b": Examples(rows[3:6], 0.9)})
    query = rows[6]
    above = [
        likeness(examples, query[None])[0] >= limit
        for examples, limit in zip((rows[:3], rows[3:6]), classifier.thresholds, strict=True)
    ]
    found = classifier.classify(query)
    assert (found.label == UNKNOWN) == (not any(above))
    assert found.score == pytest.approx(found.scores.max())
