"""The report's page, section by section: what it says of what was found, and what it does not hide."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from calibration.coverage import Coverage
from calibration.graph import Graph, Node
from calibration.plan import Plan
from calibration.settings import Settings
from edge.bundle import Absent, Artefact, Golden, InputSpec, Manifest, Metrics, OutputSpec, Reference
from export.evidence import Evidence, Int8
from export.repair import Attempt, Record
from export.report import report

METRICS = Metrics(
    metric="top1",
    value=89.5,
    reference=90.0,
    n=1000,
    drop=0.5,
    drop_ci95=(-0.1, 1.1),
    agreement=98.0,
    max_error=0.5,
    mean_error=0.1,
)


def _artefact(format: Any, precision: Any, size: int) -> Artefact:
    file = f"model.{precision}.{format}"
    return Artefact(
        format=format, precision=precision, file=file, sha256="a" * 64, size_bytes=size, metrics=METRICS
    )


PROVEN = (
    _artefact("tflite", "fp32", 4000),
    _artefact("tflite", "int8", 1000),
    _artefact("onnx", "int8", 1200),
)


def _manifest(**update: Any) -> Manifest:
    return Manifest(
        name="m",
        task="classification",
        sightline="0.1.0",
        input=InputSpec(height=8, width=8, resize="crop"),
        outputs=(OutputSpec(name="logits", shape=(1, 2), role="logits"),),
        labels=("cat", "dog"),
        artefacts=PROVEN,
        golden=Golden(file="golden.npz", sha256="b" * 64, step={}),
    ).model_copy(update=update)


def _attempt(name: str, tflite: float, onnx: float, *floats: str, enough: bool = False) -> Attempt:
    drop = {"tflite": tflite, "onnx": onnx}
    return Attempt(name=name, method="mse", float_layers=floats, drop=drop, images=2000, enough=enough)  # type: ignore[arg-type]


def _int8(**update: Any) -> Int8:
    names = ("first", "a<b", "the_layer_with_the_longest_name_of_all")
    graph = Graph(tuple(Node(name, "Conv2D", {}, (), (), (4, 4, 8)) for name in names), {"logits": names[-1]})
    plan = Plan.model_construct(
        settings=Settings(method="mse", float_layers=("a<b",)), ranges=dict.fromkeys(names, (-1.0, 3.0))
    )
    rows = [
        {"name": n, "own_db": 40.0, "accumulated_db": 30.0, "drop": 0.5, "alone_error": e, "rest_error": 1e-3}
        for n, e in zip(names, (1e-4, 0.0, 1e-2), strict=True)
    ]
    covered = {"first": Coverage(0.0, 0.001, 0.9), "a<b": Coverage(0.002, 0.03, 1.4)}
    return replace(Int8(graph, plan, covered, (), rows, 64, "tflite", Record()), **update)


def _page(int8: Int8 | None = None, **update: Any) -> str:
    return report(
        _manifest(**update),
        Evidence(PROVEN, 0.5, 8, int8, {"ai-edge-litert": "2", "onnxruntime": "1"}, "a CPU"),
    )


def test_it_says_in_plain_words_that_no_device_has_run_it() -> None:
    page = _page()
    assert "No device has run this bundle yet" in page
    assert "No device run yet: no Jetson, no GPU and no camera has seen this bundle" in page
    assert "No engine was built or run" in page
    assert "Nothing was timed" in page


def test_what_ran_is_named_with_runtime_machine_and_images() -> None:
    page = _page()
    assert "ai-edge-litert 2, a CPU" in page
    assert "onnxruntime 1, a CPU" in page
    assert "1,000 test images" in page
    assert "TFLite fp32, int8: golden vectors" in page


def test_an_artefact_that_was_left_out_repeated_no_golden_vectors() -> None:
    absent = (Absent(format="onnx", precision="int8", reason="failed its gate: lost"),)
    page = _page(artefacts=PROVEN[:2], absent=absent)
    assert "2 of 3 artefacts passed the gate" in page
    assert "Left out: onnx int8" in page
    assert "ONNX int8: golden vectors" not in page
    assert "ONNX int8: parity" in page


def test_undecided_is_not_counted_as_passed() -> None:
    unsure = PROVEN[0].model_copy(update={"undecided": "not enough images to tell"})
    assert "2 of 3 artefacts passed the gate" in _page(artefacts=(unsure, *PROVEN[1:]))
    assert "for 1 the images were too few to tell" in _page(artefacts=(unsure, *PROVEN[1:]))


@pytest.mark.parametrize(("kind", "led"), [("origin", True), ("trained", True), ("itself", False)])
def test_the_model_compared_with_stands_at_the_top_unless_it_is_the_obvious_one(kind: Any, led: bool) -> None:
    page = _page(compared_with=Reference(kind=kind, words="the one from before", sha256="c" * 64))
    assert ("Compared with the one from before" in page) == led
    assert "c" * 64 in page


def test_sizes_are_shares_of_fp32_where_there_is_one() -> None:
    page = _page()
    assert "<td>4,000 bytes</td><td>100%</td>" in page
    assert "<td>1,000 bytes</td><td>25%</td>" in page
    assert "<td>1,200 bytes</td><td>–</td>" in page
    assert re.findall(r"width:([\d.]+)%", page) == ["100.0", "25.0", "30.0"]  # of the largest file


def test_each_repair_says_what_it_gained_on_the_best_before_it() -> None:
    attempts = (
        _attempt("as asked", 4.0, 9.0),
        _attempt("mse ranges", 1.0, 11.0),
        _attempt("equalise", 0.5, 2.0),
        _attempt("first in float", 0.1, 0.2, "first", enough=True),
    )
    page = _page(_int8(record=Record(attempts=attempts, allowed=0.25)))
    assert "<td>mse ranges</td><td>+1.00</td><td>+11.00</td><td>-2.00</td>" in page
    assert "<td>equalise</td><td>+0.50</td><td>+2.00</td><td>+7.00</td>" in page
    assert (
        '<td>first in float</td><td>+0.10</td><td>+0.20</td><td>+1.80</td><td>1</td><td><span class="good">'
        in page
    )
    assert "2,000 training images that were not calibrated on; 0.25 points are allowed" in page


def test_no_repair_is_an_answer_too() -> None:
    assert "None was tried" in _page(_int8())
    one = Record(attempts=(_attempt("as asked", 0.1, 0.2, enough=True),), allowed=0.25)
    assert "None was needed: int8 as asked loses TFLite +0.10, TensorRT +0.20 points" in _page(
        _int8(record=one)
    )


def test_it_says_whose_channels_were_equalised_and_why_the_others_were_not() -> None:
    chain = Graph(
        (
            Node("pixels", "InputLayer", {}, (), (), (4, 4, 3)),
            Node("first", "Conv2D", {}, (), ("pixels",), (4, 4, 8)),
            Node("bent", "ELU", {}, (), ("first",), (4, 4, 8)),
            Node("a<b", "Conv2D", {}, (), ("bent",), (4, 4, 8)),
            Node("last", "Conv2D", {}, (), ("a<b",), (4, 4, 8)),
        ),
        {"logits": "last"},
    )
    plan = Plan.model_construct(
        settings=Settings(method="mse", equalise=True), ranges={}, equalised={"a<b": (1.0,) * 8}
    )
    page = _page(_int8(graph=chain, plan=plan, layers=[]))
    assert "Layers with equalised channels: 1." in page
    assert "<li>first: it is read by ELU &#x27;bent&#x27;</li><li>last: it is an output</li>" in page
    assert "equalised channels" not in _page(_int8())


def test_layers_stand_in_the_plot_by_order_and_in_the_table_by_harm() -> None:
    page = _page(_int8())
    plot, table = page.split('class="plot"')[1].split("</svg>")
    assert plot.index("first") < plot.index("a&lt;b") < plot.index("the_layer_wit…")
    assert (
        table.index("the_layer_with_the_longest_name_of_all") < table.index("first") < table.index("a&lt;b")
    )
    assert 'class="name kept"' in plot
    assert "a<b" not in page


def test_what_saturates_is_marked_and_what_was_not_watched_is_left_blank() -> None:
    ranges = _page(_int8()).split("Ranges, coverage and saturation")[1]
    assert "<td>90%</td><td>0.000 %</td><td>0.100 %</td>" in ranges
    assert (
        '<td>140%</td><td><span class="bad">0.200 %</span></td><td><span class="bad">3.000 %</span></td>'
        in ranges
    )
    assert "<td>–</td><td>–</td><td>–</td>" in ranges
    doubted = _page(_int8(doubts=("2 of 9 pictures are blank",), covered={}))
    assert "Doubt: 2 of 9 pictures are blank" in doubted
    assert "None were held out" in doubted


def test_layers_without_any_error_still_make_a_plot() -> None:
    rows = [{**row, "alone_error": 0.0} for row in _int8().layers]
    page = _page(_int8(layers=rows))
    assert np.all(["nan" not in part for part in page.split('class="plot"')[1].split("</svg>")[:1]])


def _picture(page: str, begin: str) -> ElementTree.Element:
    content = page[page.index(begin) :]
    return ElementTree.fromstring(content[: content.index("</svg>") + 6])


def test_a_whisker_is_drawn_to_scale_and_the_widest_reaches_the_axis_end() -> None:
    """PROVEN's: 0.5 points, -0.1 to 1.1."""
    page = _page(artefacts=PROVEN[:2])
    picture = _picture(page, "<svg width")
    x = {line.get("class"): [float(line.get(at, "")) for at in ("x1", "x2")] for line in picture.iter("line")}
    (low, high), (zero, _), (begin, end) = x["whisker"], x["zero"], x["axis"]
    (dot,) = (float(circle.get("cx", "")) for circle in picture.iter("circle"))
    assert begin < low < zero < dot < high < end
    assert (zero - low) / (high - zero) == pytest.approx(0.1 / 1.1, abs=0.01)
    assert (dot - zero) / (high - zero) == pytest.approx(0.5 / 1.1, abs=0.01)
    assert high > end - 10
    assert [text.text for text in picture.iter("text")] == ["-1.1", "+1.1"]
    assert re.findall(r'class="(good|bad)">\+0.50', page) == ["good", "good", "bad"]
    assert "<td>3.9 KiB</td>" in page


def test_a_layers_mark_stands_at_its_error_on_the_plots_axis() -> None:
    rows = [{**row, "alone_error": error} for row, error in zip(_int8().layers, (1e-4, 0, 3e-2), strict=True)]
    picture = _picture(_page(_int8(layers=rows)), '<svg class="plot"')
    marks = [float(circle.get("cx", "")) for circle in picture.iter("circle")]
    axis = {text.text: float(text.get("x", "")) for text in picture.iter("text")}
    assert marks[0] == pytest.approx(axis["1e-4"], abs=0.1)
    assert marks[1] == pytest.approx(axis["1e-12"], abs=0.1)  # of none at all
    assert axis["1e-2"] < marks[2] < axis["1e-1"]
