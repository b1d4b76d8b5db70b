"""Layers on ONNX Runtime and LiteRT, on real models: the sum, the names, the multiplications."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edge.bundle import Bundle
from edge.errors import InputError
from edge.profiling import layers_litert
from edge.profiling.layers import Layer, LayerReport, profile_layers
from edge.profiling.layers_onnx_overhead import overhead_ms
from edge.profiling.layers_report import (
    LESS_THAN_THE_WHOLE,
    MORE_THAN_THE_WHOLE,
    keras_layers,
    middle_mean,
    slowest,
)
from edge.profiling.roofline import Roofline

SHIPPED = "cifar10-convnetjs"
MACS = {
    "conv1": 32 * 32 * 16 * 75,
    "conv2": 16 * 16 * 20 * 400,
    "conv3": 8 * 8 * 20 * 500,
    "logits": 10 * 320,
}
"""Of the shipped network: 5x5 kernels on 32x32x3, 16x16x16 and 8x8x20, and a last one of 4x4."""

ROOF = Roofline(macs_per_s=1e10, bytes_per_s=1e9, source="invented")


def macs_by_layer(report: LayerReport) -> dict[str, int]:
    return {layer.keras[0]: layer.macs for layer in report.layers if layer.macs}


def printed(report: LayerReport, columns: int = 200) -> str:
    console = Console(width=columns, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table())
    console.file.close()
    return console.export_text()


# --- LiteRT


def test_litert_tells_each_operation_of_the_shipped_model() -> None:
    report = profile_layers(Bundle.open(SHIPPED), "tflite", "int8", runs=10)
    assert macs_by_layer(report) == MACS
    assert report.method == "LiteRT's profiler"
    assert [layer.keras for layer in report.layers[:3]] == [
        ("conv1", "relu1"),
        ("pool1",),
        ("conv2", "relu2"),
    ]
    assert "Convolution" in report.layers[0].kernel
    # int8 pixels, weights and activations, int32 biases.
    assert report.layers[0].bytes == 32 * 32 * 3 + 16 * 75 + 4 * 16 + 32 * 32 * 16
    assert report.sum_ms < report.profiled_ms
    assert any(note.startswith("The runner itself") for note in report.remarks)


def test_a_crash_of_the_profiler_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Path(sys.executable)  # no library at all: loading it fails in the child
    monkeypatch.setattr(layers_litert, "library_path", lambda: library)
    with pytest.raises(
        InputError, match=r"LiteRT's profiler ended with 1 .*known from ai-edge-litert 2\.3\.0"
    ):
        profile_layers(Bundle.open(SHIPPED), "tflite", "int8", runs=5)


def test_without_litert_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_litert.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install ai-edge-litert"):
        layers_litert.library_path()


# --- ONNX Runtime


def test_onnx_runtime_tells_each_node_of_the_shipped_model() -> None:
    report = profile_layers(Bundle.open(SHIPPED), "onnx", "fp16", runs=10)
    assert macs_by_layer(report) == MACS
    assert {name for layer in report.layers for name in layer.keras} >= {"pool1", "pool2", "pool3"}
    assert all(layer.macs is not None for layer in report.layers)
    assert report.profiled_ms > 0
    assert len({layer.name for layer in report.layers}) == len(report.layers)


def test_onnx_nodes_without_keras_names_keep_their_own(faces_bundle: Path) -> None:
    report = profile_layers(Bundle.open(faces_bundle), "onnx", "fp32", runs=10)
    assert sum(layer.macs or 0 for layer in report.layers) == 8 * 8 * 64 * 3 * (1 + 4)
    assert not any(layer.keras for layer in report.layers)


def test_without_the_package_onnx_times_remain(faces_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    report = profile_layers(Bundle.open(faces_bundle), "onnx", "fp32", runs=5)
    assert report.sum_ms > 0
    assert any("'onnx' is not installed" in note for note in report.remarks)
    assert {layer.macs for layer in report.layers if "Conv" in layer.kernel} == {None}


def test_what_the_profiler_adds_to_a_node_is_microseconds() -> None:
    assert 0 <= overhead_ms() < 0.1


# --- the call


def test_an_unknown_backend_and_too_few_runs_are_refused(faces_bundle: Path) -> None:
    bundle = Bundle.open(faces_bundle)
    with pytest.raises(InputError, match="there are onnx, tflite, tensorrt"):
        profile_layers(bundle, "auto", "fp32")
    with pytest.raises(InputError, match="at least 5 runs, got 2"):
        profile_layers(bundle, "onnx", "fp32", runs=2)


# --- the report


def report_of(*layers: Layer, whole_ms: float = 10.0) -> LayerReport:
    return LayerReport("onnx", "fp32", "a test", 10, 1, whole_ms, 11.0, layers)


CONV = Layer("n1", "Conv", ("conv1",), 8.0, macs=20_000_000, bytes=1_000_000)
CAST = Layer("n2", "Cast", (), 1.5, macs=0, bytes=3_000_000)
UNKNOWN = Layer("n3", "?", (), 0.1)


def test_sum_rest_and_bounds() -> None:
    report = report_of(CONV, CAST, UNKNOWN).bounded(ROOF)
    assert report.sum_ms == pytest.approx(9.6)
    assert report.rest_ms == pytest.approx(0.4)
    assert report.adds_up
    conv, cast, unknown = report.layers
    assert (conv.bound_ms, conv.over_bound, conv.macs_per_s) == (2.0, 4.0, 2.5e9)
    assert (cast.bound_ms, cast.over_bound, cast.macs_per_s) == (3.0, 0.5, None)
    assert (unknown.bound_ms, unknown.over_bound) == (None, None)


def test_a_sum_that_misses_the_whole_is_said() -> None:
    assert report_of(CONV, whole_ms=7.5).remarks == ()
    assert report_of(CONV, whole_ms=9.0).remarks == (LESS_THAN_THE_WHOLE,)
    assert report_of(CONV, whole_ms=7.0).remarks == (MORE_THAN_THE_WHOLE,)


def test_json_holds_everything_in_plain_types() -> None:
    found = json.loads(json.dumps(report_of(CONV, CAST).bounded(ROOF).as_json()))
    assert found["roofline"] == {"macs_per_s": 1e10, "bytes_per_s": 1e9, "source": "invented"}
    assert found["layers"][0] == {
        "name": "n1",
        "kernel": "Conv",
        "keras": ["conv1"],
        "ms": 8.0,
        "macs": 20_000_000,
        "bytes": 1_000_000,
        "bound_ms": 2.0,
        "macs_per_s": 2.5e9,
        "over_bound": 4.0,
    }
    assert (found["sum_ms"], found["whole_ms"], found["adds_up"]) == (9.5, 10.0, True)


def test_the_table_shows_sum_whole_and_rest() -> None:
    text = printed(report_of(CONV, CAST).bounded(ROOF))
    for words in ("conv1", "sum of layers", "not in any layer", "whole, not profiled", "95.0%"):
        assert words in text


def test_a_narrow_terminal_cuts_no_number() -> None:
    long = replace(CONV, kernel="Convolution (NHWC, QC8) IGEMM", keras=("group1a", "group1a_relu"))
    text = printed(report_of(long).bounded(ROOF), columns=80)
    assert "…" not in text
    for words in ("8.000", "100.0%", "20.00", "1000.0", "2.5", "2.000", "4.0"):
        assert words in text


def test_many_layers_are_cut_to_the_slowest() -> None:
    layers = [Layer(f"n{ms}", "Conv", (), float(ms)) for ms in range(40)]
    assert [layer.ms for layer in slowest(layers, 3)] == [37.0, 38.0, 39.0]
    assert "15 others" in printed(report_of(*layers))


def test_keras_names_are_read_from_both_exporters() -> None:
    tflite = (
        "functional_5_1/stem1_relu_1/Relu;functional_5_1/stem1_1/BiasAdd;functional_5_1/stem1_1/convolution"
    )
    assert keras_layers(tflite) == ("stem1_relu", "stem1")
    assert keras_layers("InsertedPrecisionFreeCast_functional_6_1/box_32_1/convolution:0") == ("box_32",)
    assert keras_layers("functional_4_1/res8_1_add_1/Add:0_nchwc") == ("res8_1_add",)
    assert keras_layers("pixels_cast", "ReorderOutput_token_48") == ()


def test_the_middle_mean_is_deaf_to_outliers_and_finer_than_the_clock() -> None:
    assert middle_mean([1, 1, 2, 2, 2, 1, 1, 900]) == 1.5
    assert middle_mean([7]) == 7
