"""The page and its pictures: whole, readable, escaped, needing nothing else; and the commands that write them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from edge.bundle import InputSpec
from edge.errors import InputError
from edge.files import sha256
from train.card import Card, card_path
from train.curves import History
from train.data import LabelledImages
from train.ensemble import Member
from train.job import Job
from train.pictures import draw
from train.pictures.evidence import Drawn, Evidence
from train.pictures.mistakes import confusion, worst
from train.pictures.page import page as page_of
from train.pictures.report import MISTAKES, check_report, folder_of, write_report
from train.recipe import load_recipe

HOSTILE = "<script>alert('x')</script>\"&$\\frac"
HISTORY: History = tuple(
    {"epoch": i + 1, "loss": 2 * 0.7**i, "accuracy": 1 - 0.7 * 0.7**i, "validation_top1": 90 - 60 * 0.7**i}
    for i in range(8)
)
VOID = {"meta", "path", "rect", "img", "br"}


class Page(HTMLParser):
    """What a page holds; fails at a tag that is closed without being open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[tuple[str, bytes]] = []
        self.text = ""
        self.feed(html)
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = {name: str(value) for name, value in attrs}
        source = values.get("src", "")
        if source.startswith("data:image/png;base64,"):
            self.images.append(
                (values.get("alt", ""), base64.b64decode(source.partition(",")[2], validate=True))
            )
        self.links += [
            values[name] for name in ("src", "href", "action", "xlink:href", "srcset") if name in values
        ]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def decoded(content: bytes) -> np.ndarray:
    """A PNG's pixels; fails where it is none."""
    assert content.startswith(b"\x89PNG")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def checked(path: Path) -> Page:
    """The page at `path`, which must need nothing else, and say of every picture what it shows."""
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "script" not in page.tags
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in re.sub("base64,[A-Za-z0-9+/=]*", "", html)
    for alt, content in page.images:
        assert alt
        decoded(content)
    return page


def evidence(classes: int = 3, n: int = 60, history: History = HISTORY, hostile: str = HOSTILE) -> Evidence:
    """A classifier of random answers, right in about half of the cases, without a Keras model."""
    rng = np.random.default_rng(0)
    names = (hostile, *(f"class {index}" for index in range(1, classes)))
    truth = np.arange(n) % classes
    logits = rng.normal(0, 1, (n, classes)) + np.eye(classes)[truth] * 1.5
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    images = LabelledImages(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), truth, names, "made up/test")
    card = Card(
        name="m",
        labels=names,
        input=InputSpec(height=8, width=8, resize="crop"),
        history=tuple(history) or None,
    )
    answers = Member("m", shares.astype(np.float32), truth)
    return Evidence(
        f"m {hostile}",
        "int8",
        "",
        names,
        images,
        answers,
        card,
        None,
        "No model here.",
        images.images[0],
        "image 0",
    )


def test_every_part_is_on_the_page_and_escaped(tmp_path: Path) -> None:
    shown = evidence()
    count = write_report(tmp_path / "out.html", shown)
    page = checked(tmp_path / "out.html")
    titles = re.findall(r"<h2>(.*?)</h2>", (tmp_path / "out.html").read_text())
    assert titles == ["Curves", "Accuracy by class", "Confusion", "The worst mistakes", "First-layer filters"]
    assert HOSTILE not in (tmp_path / "out.html").read_text()
    assert HOSTILE in page.text
    assert "No model here." in page.text
    assert "Overfitting" in page.text  # The history's hint.
    found = worst(shown.answers, MISTAKES)
    assert len(page.images) == len(found)
    for (alt, content), mistake in zip(page.images, found, strict=True):
        names = shown.labels[mistake.truth], shown.labels[mistake.answer]
        assert alt == f"{names[0]}, taken for {names[1]} with {100 * mistake.confidence:.1f} %"
        assert (decoded(content)[..., ::-1] == shown.images.images[mistake.index]).all()
        assert f"number {mistake.index}" in page.text
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["classes.png", "confusion.png", "curves.png", "mistakes.png"]
    assert count == len(files)
    for path in (tmp_path / "out").iterdir():
        assert min(decoded(path.read_bytes()).shape[:2]) > 100


def page_alone(path: Path, shown: Evidence) -> str:
    """The page without the PNG files, which take seconds where there are many classes."""
    drawn = Drawn(confusion(shown.answers), tuple(worst(shown.answers, MISTAKES)), None, (), "", ())
    path.write_text(page_of(shown, drawn), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def test_the_matrix_on_the_page_adds_up(tmp_path: Path) -> None:
    shown = evidence(n=300)
    html = page_alone(tmp_path / "out.html", shown)
    matrix = re.search(r'<table class="matrix">.*?</table>', html)
    assert matrix is not None
    cells = [int(cell) for cell in re.findall(r"<td[^>]*>(\d+)</td>", matrix[0])]
    right = [int(cell) for cell in re.findall(r'<td class="on">(\d+)</td>', matrix[0])]
    assert sum(cells) == 300
    assert sum(right) == shown.answers.top1.right


def test_a_hundred_classes_are_a_picture_and_unfold(tmp_path: Path) -> None:
    html = page_alone(tmp_path / "out.html", evidence(classes=100, n=500))
    found = checked(tmp_path / "out.html")
    assert '<table class="matrix">' not in html
    assert "75 more" in found.text
    matrix = next(decoded(png) for alt, png in found.images if alt.startswith("confusion matrix of 100"))
    assert matrix.shape == (600, 600, 4)


def test_a_classifier_without_mistakes_or_history(tmp_path: Path) -> None:
    shown = evidence(history=())
    sure = np.eye(3, dtype=np.float32)[shown.images.labels]
    write_report(tmp_path / "out.html", replace(shown, answers=Member("m", sure, shown.images.labels)))
    page = checked(tmp_path / "out.html")
    assert "There are none." in page.text
    assert "No history" in page.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["classes.png", "confusion.png"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_short_history_is_a_table(epochs: int, tmp_path: Path) -> None:
    write_report(tmp_path / "out.html", evidence(history=HISTORY[:epochs]))
    page = checked(tmp_path / "out.html")
    assert "Too short to tell" in page.text
    assert "validation_top1" in page.text


def test_epochs_are_whole_numbers_below_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    for epochs in (1, 3):
        draw.curves("name", [{"epoch": 1 + n, "loss": 1.0, "accuracy": 0.5} for n in range(epochs)], [])
    assert all(tick == int(tick) for figure in drawn for axes in figure.axes for tick in axes.get_xticks())


def test_what_fails_half_way_leaves_the_old_report_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path / "out.html", evidence())
    before = {path: sha256(path) for path in tmp_path.rglob("*") if path.is_file()}

    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "mistakes.png":
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write_report(tmp_path / "out.html", evidence(classes=4))
    assert {path: sha256(path) for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "holiday.html"
    check_report(path)
    write_report(path, evidence())
    check_report(path)
    (folder_of(path) / "beach.png").touch()
    with pytest.raises(InputError, match="holds beach"):
        write_report(path, evidence())


# -- the commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution with random weights for digits, with its card and a history."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    parts = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv", activation="relu")]
    network = keras.Sequential([*parts, keras.layers.MaxPooling2D(2, name="pool"), keras.layers.Flatten()])
    network.add(keras.layers.Dense(10))
    network.save(path)
    about = {"name": "tiny", "labels": list("0123456789"), "history": list(HISTORY)}
    card_path(path).write_text(json.dumps(about | {"input": {"height": 8, "width": 8, "resize": "crop"}}))
    return path


PICTURES = {"classes.png", "confusion.png", "curves.png", "mistakes.png", "filters.png"} | {
    "activations-01-conv.png",
    "activations-02-pool.png",
}


def test_evaluate_writes_the_report_of_a_keras_model(
    model: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    picture = np.full((20, 20, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), picture)
    options = ("--data", "digits", "--limit", "40", "--report", tmp_path / "tiny.html")
    ended = command(
        "evaluate", model, *options, "--image", tmp_path / "grey.png", "--json", tmp_path / "a.json"
    )
    assert (ended.code, ended.err) == (0, "")
    assert f"{tmp_path}/tiny.html is written, and 7 pictures in {tmp_path}/tiny/." in ended.out
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == PICTURES
    page = checked(tmp_path / "tiny.html")
    value = json.loads((tmp_path / "a.json").read_text())["value"]
    assert f"{value:.2f}" in page.text
    assert "grey.png: " in page.text
    assert "conv: 4 channels, 6 x 6" in page.text
    assert "the three colours added" in page.text  # All digits are grey.
    # With the report or without it: the same figure.
    assert command("evaluate", model, *options[:4], "--json", tmp_path / "b.json").code == 0
    assert json.loads((tmp_path / "b.json").read_text()) == json.loads((tmp_path / "a.json").read_text())


@pytest.fixture
def bundle(model: Path, tmp_path: Path) -> Path:
    """An ONNX bundle that names `model` as what it was made from; it answers with the first ten pixels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path / "bundle"
    folder.mkdir()
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("Gather", ["flat", "first"], ["logits"], axis=1),
    ]
    first = numpy_helper.from_array(np.arange(10) * 9, "first")
    ends = [
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, (1, 8, 8, 3))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 10))],
    ]
    graph = helper.make_graph(nodes, "first", *ends, [first])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        folder / "model.fp32.onnx",
    )
    np.savez(folder / "golden.npz", inputs=np.zeros((1, 8, 8, 3), np.uint8))
    artefact = {"format": "onnx", "precision": "fp32", "file": "model.fp32.onnx"}
    calibration = dict.fromkeys(("source", "preprocessing", "method"), "-") | {"samples": 1, "tools": {}}
    manifest = {
        "schema_version": 1,
        "name": "tiny",
        "task": "classification",
        "sightline": "0.1.0",
        "input": {"height": 8, "width": 8, "resize": "crop"},
        "outputs": [{"name": "logits", "shape": [1, 10], "role": "logits"}],
        "labels": list("0123456789"),
        "calibration": calibration | {"model_sha256": sha256(model), "samples_sha256": "0" * 64},
        "artefacts": [
            artefact
            | {
                "sha256": sha256(folder / "model.fp32.onnx"),
                "size_bytes": (folder / "model.fp32.onnx").stat().st_size,
            }
        ],
        "golden": {"file": "golden.npz", "sha256": sha256(folder / "golden.npz"), "step": {"logits": 0.1}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("there", [True, False])
def test_a_bundle_shows_layers_where_its_keras_model_is(
    there: bool, bundle: Path, model: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent.parent if there else bundle)
    monkeypatch.setattr("train.pictures.command.MODEL_FOLDERS", (Path(model.parent.name),))
    options = ("--data", "digits", "--limit", "40", "--report", bundle.parent / "out.html")
    assert command("evaluate", bundle, *options).code == 0
    names = {path.name for path in (bundle.parent / "out").iterdir()}
    assert names == (PICTURES if there else {"classes.png", "confusion.png", "mistakes.png"})
    assert ("is not here: looked for" in checked(bundle.parent / "out.html").text) != there
    if not there:
        ended = command("evaluate", bundle, *options, "--image", bundle / "x.png")
        assert ended.code == 2
        assert "--image" in ended.err
        assert "is not here: looked for" in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--image", "x.png"), "Add --report FILE.html"),
        (("--report", "out.pdf"), "ends in .html"),
        (("--report", "out.html", "--image", "missing.png"), "missing.png cannot be read"),
        (("--report", "/proc/nowhere/out.html"), "Cannot write to the folder"),
    ],
)
def test_a_wrong_call_ends_in_one_message(
    options: tuple[str, ...], words: str, model: Path, command: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ended = command("evaluate", model, "--data", "digits", *options)
    assert ended.code == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_detector_has_no_such_report(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("evaluate", "face-320", "--data", tmp_path, "--report", tmp_path / "out.html")
    assert ended.code == 2
    assert "for classifiers only; face-320 is a face detector" in ended.err


@pytest.mark.parametrize(
    ("hold_out", "which"), [(100, "held out of the training"), (0, "it is the test split")]
)
def test_a_training_ends_with_its_report(
    hold_out: int, which: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    ended = command(
        "train",
        "lenet_digits",
        "epochs=1",
        f"hold_out={hold_out}",
        "--no-sanity",
        "--report",
        "--out",
        tmp_path,
    )
    assert ended.code == 0
    assert f"report      {tmp_path}/lenet-digits.report.html" in ended.out
    page = checked(tmp_path / "lenet-digits.report.html")
    assert which in page.text
    assert f"{hold_out or 360} images" in page.text
    assert {"curves.png", "filters.png"} < {
        path.name for path in (tmp_path / "lenet-digits.report").iterdir()
    }


def test_a_lesson_that_no_report_is_made_for_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "lesson", lambda _: object())
    job = Job(load_recipe("lenet_digits"), "digits", tmp_path, "", False, 1.0, report=True)
    with pytest.raises(InputError, match="for the training of classifiers in float"):
        job.run()
