"""The fit on made figures against hand-computed numbers; the page against the code."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest

from edge.bundle import Bundle
from edge.errors import InputError
from edge.profiling import predict as module
from edge.profiling.devices import Device
from edge.profiling.predict import (
    WARNING,
    fit_cycles,
    left_out_errors,
    predict,
    predict_command_output,
    works_of,
)
from edge.profiling.predict_doc import document
from edge.profiling.published import FIGURES, NETWORKS, Figure, Work

PAGE = Path(__file__).parents[3] / "docs/prediction.md"

MADE = {
    # 1e12 MACs and 1e9 bytes a second, 1 GHz.
    "a": Device("A", "Made", 1.0, 2.0, 1.0, None, 1.0, (), True, "made"),
    "b": Device("B", "Made", 2.0, 4.0, None, None, 2.0, (), False, "made"),
    "c": Device("C", "Alone", 1.0, 2.0, None, None, 1.0, (), True, "made"),
}
# 1 ms of arithmetic, then 2 ms of memory, on A; half of it on B. Three kernels.
NET = (Work("x", 10**9, 1000, 2), Work("y", 0, 2 * 10**6, 1), Work("z", 0, 0, 0))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices of one family on which a kernel takes exactly a million cycles, and one alone."""
    figures = (
        Figure("a", "net", 6.0, "made"),
        Figure("b", "net", 3.0, "made"),
        Figure("c", "net", 9.0, "made"),
    )
    monkeypatch.setattr("edge.profiling.devices.DEVICES", MADE)
    monkeypatch.setattr(module, "FIGURES", figures)
    monkeypatch.setattr(module, "NETWORKS", {"net": lambda: NET})


@pytest.mark.usefixtures("made")
def test_the_fit_finds_what_made_the_figures() -> None:
    assert fit_cycles((module.FIGURES[0],)) == pytest.approx(1e6)
    assert fit_cycles(module.FIGURES[:2]) == pytest.approx(1e6)


@pytest.mark.usefixtures("made")
def test_the_fit_weighs_relative_errors() -> None:
    """r = 3, x = 3e-6 ms a cycle on A: t = 6 wants 1e6 cycles, t = 12 wants 3e6.

    c = (3/6 * (1 - 3/6) + 3/12 * (1 - 3/12)) / ((3/6)^2 + (3/12)^2) = 0.4375 / 0.3125 = 1.4e6.
    """
    figures = (Figure("a", "net", 6.0, ""), Figure("a", "net", 12.0, ""))
    assert fit_cycles(figures) == pytest.approx(1.4e6)


@pytest.mark.usefixtures("made")
def test_figures_below_the_roofline_give_no_negative_time() -> None:
    assert fit_cycles((Figure("a", "net", 2.0, ""),)) == 0


@pytest.mark.usefixtures("made")
def test_a_prediction_by_hand() -> None:
    found = predict((Work("w", 10**9, 10**6, 4),), "b")
    assert found.bound_ms == pytest.approx(0.5)
    assert found.ms == pytest.approx(0.5 + 4 * 1e6 / 2e9 * 1e3)
    assert [figure.device for figure in found.fitted_to] == ["a"]
    assert found.layers == (("w", 10**9, pytest.approx(0.5), "arithmetic"),)


@pytest.mark.usefixtures("made")
def test_a_device_of_which_nothing_is_published_is_fitted_to_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.profiling.devices.DEVICES", MADE | {"d": MADE["a"]})
    assert [figure.device for figure in predict(NET, "d").fitted_to] == ["a", "b"]


@pytest.mark.usefixtures("made")
def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(InputError, match="no published figure of another device with a Alone"):
        predict(NET, "c")
    with pytest.raises(InputError, match=r"gives B a rate in fp16.*Known: int8"):
        predict(NET, "b", "fp16")
    with pytest.raises(InputError, match="No device 'e'"):
        predict(NET, "e")


def test_the_networks_have_the_published_sizes() -> None:
    """ResNet-50 v1.5 has 4.1 G MACs and 25.5 M weights; MLPerf gives SSD-MobileNet 2.47 G operations."""
    macs = {name: sum(work.macs for work in network()) for name, network in NETWORKS.items()}
    assert macs["ResNet-50"] == pytest.approx(4.09e9, rel=0.005)
    assert 2 * macs["SSD-MobileNet-v1"] == pytest.approx(2.47e9, rel=0.005)


def test_every_published_figure_is_predicted_without_its_device() -> None:
    errors = left_out_errors()
    assert [error.figure for error in errors] == list(FIGURES)
    found = {f"{e.figure.device} {e.figure.network}": round(100 * e.relative, 1) for e in errors}
    assert found == {
        "agx-orin-64 ResNet-50": 0.3,
        "orin-nx-16 ResNet-50": 2.6,
        "agx-xavier ResNet-50": -21.1,
        "xavier-nx ResNet-50": 8.5,
        "agx-orin-64 SSD-MobileNet-v1": -6.5,
        "xavier-nx SSD-MobileNet-v1": 37.1,
    }


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == document()
    assert "No device was run" in document()


def test_the_shipped_bundle_on_an_orin_nano() -> None:
    prediction, table = predict_command_output(Bundle.open("cifar10-convnetjs"), "orin-nano")
    low, high = prediction.range_ms
    assert low < prediction.ms < high
    assert prediction.kernels == 7  # four convolutions, three poolings
    text = rendered(table)
    assert "PREDICTION, not a measurement" in text
    assert WARNING in text
    content = json.loads(json.dumps(prediction.as_json()))
    assert content["prediction"] is True
    assert content["warning"] == WARNING


def test_notes_of_a_prediction_that_nothing_checks() -> None:
    bundle = Bundle.open("cifar10-convnetjs")
    assert "All published figures are int8" in rendered(
        predict_command_output(bundle, "orin-nx-8", "fp16")[1]
    )
    assert "does not run on Jetson Xavier NX" in rendered(predict_command_output(bundle, "xavier-nx")[1])


def test_layers_come_from_the_tflite_file() -> None:
    works = works_of(Bundle.open("cifar10-convnetjs"))
    # Three 5x5 convolutions on 32, 16 and 8 pixels a side, and a dense layer.
    convolutions = 25 * (32 * 32 * 3 * 16 + 16 * 16 * 16 * 20 + 8 * 8 * 20 * 20)
    assert sum(work.macs for work in works) == convolutions + 4 * 4 * 20 * 10


def rendered(table: object) -> str:
    from rich.console import Console

    out = StringIO()
    Console(file=out, width=200).print(table)
    return out.getvalue()
