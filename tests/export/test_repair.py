"""The gate's three answers, and the repair loop on a real network that plain int8 ruins."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from plans import make_plan

from bench.hard import out_of_scale
from calibration.fold import fold
from calibration.graph import read
from calibration.plan import Plan
from edge.bundle import FORMATS, Bundle, Format, Metrics
from edge.errors import CheckFailed
from export.gate import images_needed, in_words, verdict
from export.parity import paired_interval
from export.proof import Judge
from export.repair import Record, repaired

Command = Callable[..., Any]


def _metrics(n: int, drop: float, low: float, high: float) -> Metrics:
    figures = {"value": 90 - drop, "reference": 90.0, "agreement": 99.0, "max_error": 0.1, "mean_error": 0.1}
    return Metrics(metric="top1", n=n, drop=drop, drop_ci95=(low, high), **figures)


@pytest.mark.parametrize(
    ("n", "drop", "low", "high", "answer"),
    [
        (10_000, -0.05, -0.26, 0.15, "passed"),
        (10_000, 0.4, 0.2, 0.6, "passed"),
        (10_000, 0.6, 0.4, 0.8, "failed"),
        (625, 0.45, -0.14, 1.12, "undecided"),
        (600, 0.0, 0.0, 0.0, "passed"),
        (599, 0.0, 0.0, 0.0, "undecided"),
        (20, 5.0, -5.0, 15.0, "failed"),
    ],
)
def test_verdicts_at_half_a_point(n: int, drop: float, low: float, high: float, answer: str) -> None:
    assert verdict(_metrics(n, drop, low, high), 0.5) == answer


def test_an_interval_of_what_is_allowed_on_either_side_tells() -> None:
    """(0.4 + 0.2) / 2 is a last binary digit more than 0.3."""
    assert verdict(_metrics(1000, 0.0, -0.2, 0.4), 0.3) == "passed"


def test_the_words_say_how_many_images_it_takes() -> None:
    # Half the interval is 0.63 points; to bring it to 0.5 takes (0.63 / 0.5)^2 times the images.
    assert images_needed(_metrics(625, 0.45, -0.14, 1.12), 0.5) == math.ceil(625 * (0.63 / 0.5) ** 2)
    assert "takes about 993 images" in in_words(_metrics(625, 0.45, -0.14, 1.12), 0.5)
    assert "failed its gate" in in_words(_metrics(625, 0.75, -0.14, 1.12), 0.5)


@pytest.mark.parametrize("error", [math.inf, math.nan])
def test_an_artefact_that_overflows_fails_though_its_metric_is_kept(error: float) -> None:
    """A manifest could not even hold its figures: JSON has no infinity."""
    overflowed = _metrics(10_000, 0.0, 0.0, 0.0).model_copy(update={"max_error": error})
    assert verdict(overflowed, 0.5) == "failed"
    assert "infinite values" in in_words(overflowed, 0.5)


@given(n=st.integers(1, 20_000), max_drop=st.floats(0.05, 20), data=st.data())
def test_the_gate_keeps_its_rules(n: int, max_drop: float, data: st.DataObject) -> None:
    """From any counts of images won and lost, with the interval that an export gives them."""
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    right, still = np.zeros(n, bool), np.zeros(n, bool)
    right[:lost] = True
    still[lost : lost + won] = True
    metrics = _metrics(n, 100 * (lost - won) / n, *paired_interval(right, still))
    found, needed = verdict(metrics, max_drop), images_needed(metrics, max_drop)
    assert (found == "failed") == (metrics.drop > max_drop)
    if found == "passed":
        assert n * max_drop >= 300 - 1e-6
        low, high = metrics.drop_ci95
        assert high <= max_drop or high - low <= 2 * max_drop * (1 + 1e-9)
    if found == "undecided":
        assert needed > n
        # So many images with the same shares, whose interval is narrower by the root of their number, do tell.
        narrow = math.sqrt(n / needed)
        interval = (metrics.drop + narrow * (bound - metrics.drop) for bound in metrics.drop_ci95)
        assert verdict(_metrics(needed, metrics.drop, *interval), max_drop) == "passed"


@given(n=st.integers(1, 1000), drop=st.floats(-5, 5))
def test_without_an_allowance_the_measured_drop_decides(n: int, drop: float) -> None:
    for max_drop in (0.0, -0.5):
        wanted = "failed" if drop > max_drop else "passed"
        assert verdict(_metrics(n, drop, drop - 9, drop + 9), max_drop) == wanted


Drops = dict[str, tuple[float, float]]


def _climbed(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Record, list[Any]]:
    """The loop with `drops` for what is lost by each method, in TFLite and ONNX, 'else' by any other.

    And by layer that went to float, those before it, the target, and the images that chose it.
    """
    pixels = keras.Input((8, 8, 3))
    graph = fold(read(keras.Model(pixels, layers.Conv2D(2, 1)(pixels))))
    images = np.arange(130, dtype=np.uint8).repeat(8 * 8 * 3).reshape(130, 8, 8, 3)
    first, chosen = make_plan(graph, images, "made", "minmax"), []

    def relieving(_: object, plan: Plan, images: np.ndarray, target: Format) -> str:
        chosen.append((plan.float_layers, target, images[:, 0, 0, 0].tolist()))
        return f"layer{len(plan.float_layers)}"

    def drop(simulation: tuple[Plan, Format]) -> float:
        plan, target = simulation
        return drops.get(plan.method, drops["else"])[FORMATS.index(target)]

    monkeypatch.setattr("export.repair.simulate", lambda graph, plan, target: (plan, target))
    monkeypatch.setattr("export.repair.most_relieving", relieving)
    proof = SimpleNamespace(judge=lambda _: Judge(100, drop), samples=SimpleNamespace(images=images))
    job: Any = SimpleNamespace(
        proof=proof, reference=None, repair=True, graph=graph, formats=FORMATS, max_drop=1
    )
    job.calibrated = lambda settings, *_: first.model_copy(update={"settings": settings})
    return *repaired(job, first, lambda _: None, lambda _: None), chosen


def test_each_attempt_goes_on_from_the_best_and_the_worse_target_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    equalised = "minmax, equalise, bias correction"
    drops = {
        "minmax": (3.0, 9.0),
        "mse": (1.0, 10.0),
        equalised: (1.0, 5.0),
        "mse, equalise, bias correction": (0.5, 5.0),
        "minmax, equalise, adaround, bias correction": (0.0, 6.0),
        f"{equalised}, in float: layer0": (0.6, 0.2),
        f"{equalised}, in float: layer0, layer1": (0.5, 0.4),  # half of what is allowed in the end
        "else": (0.0, 0.0),
    }
    plan, record, chosen = _climbed(drops, monkeypatch)
    assert [attempt.method for attempt in record.attempts] == list(drops)[:-1]
    assert [attempt.enough for attempt in record.attempts] == [False] * 6 + [True]
    assert plan.float_layers == ("layer0", "layer1")
    spread = list(range(0, 130, 3))
    assert chosen == [((), "onnx", spread), (("layer0",), "onnx", spread)]


def test_where_nothing_helps_the_cheapest_goes_to_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, record, chosen = _climbed({"else": (2.0, 2.0)}, monkeypatch)
    assert plan.method == record.attempts[0].method == "minmax"
    assert len(chosen) == 2
    assert record.attempts[-1].float_layers == ("layer0", "layer1")


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A depthwise network for the digits, trained, then brought out of scale, which changes nothing in float."""
    model = out_of_scale.trained(epochs=12)
    out_of_scale.sabotage(model, octaves=4)
    path = tmp_path_factory.mktemp("hard") / "hard.keras"
    model.save(path)
    return path


def _export(command: Command, model: Path, out: Path, *options: object) -> Any:
    # The digits' test split has 360 images: of the drops that are allowed, 1.5 points is one they can prove.
    args = ("--data", "digits", "--out", out, "--max-drop", "1.5", "--precisions", "int8", "--samples", "256")
    return command("export", model, *args, *options)


def test_without_repair_it_fails_at_the_gate(
    command: Command, hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the golden vectors: where int8 is noise two runtimes differ, and the message would blame one."""

    def blames_the_runtime(*_: object) -> None:
        raise CheckFailed("Golden vectors: tflite int8 differs. The runtime computes something else.")

    monkeypatch.setattr("export.pack.check", blames_the_runtime)
    ended = _export(command, hard, tmp_path / "b", "--no-repair", "--formats", "tflite")
    assert ended.code == 1
    assert "failed its gate: top-1" in ended.err
    assert "Without --no-repair, what may help is tried" in ended.err
    assert "repairing" not in ended.out
    assert not (tmp_path / "b" / "model.int8.tflite").exists()


def test_it_repairs_both_formats_by_itself_and_repeats_exactly(
    command: Command, hard: Path, tmp_path: Path
) -> None:
    ended = _export(command, hard, tmp_path / "b")
    assert ended.code == 0, ended.err
    assert "Repaired: the next export repeats it exactly with --plan" in ended.out
    said = [line for line in ended.out.splitlines() if "gained" in line]
    attempts = json.loads((tmp_path / "b" / "repairs.json").read_text())["attempts"]
    assert [a["enough"] for a in attempts] == [False] * (len(attempts) - 1) + [True]
    assert len(said) == len(attempts) - 1
    for line, attempt in zip(said, attempts[1:], strict=True):
        assert attempt["name"] in line
        assert f"{attempt['drop']['onnx']:+.2f}" in line
    assert attempts[-1]["name"] == "equalise, bias correction"
    bundle = Bundle.open(tmp_path / "b")
    bundle.verify()
    assert {a.format for a in bundle.manifest.artefacts} == {"tflite", "onnx"}
    plan = tmp_path / "b" / "plan.json"
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration.method == Plan.read(plan).method
    assert "equalise" in bundle.manifest.calibration.method
    text = plan.read_text()
    again = _export(command, hard, tmp_path / "b", "--plan", plan)
    assert again.code == 0, again.err
    assert "repairing" not in again.out
    assert plan.read_text() == text, "a third export repeats it too"
    for artefact in Bundle.open(tmp_path / "b").manifest.artefacts:
        assert artefact.metrics == bundle.artefact(artefact.format, "int8").metrics


def test_what_nothing_else_repairs_stays_in_float(
    command: Command, hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.repair.SETTINGS", ())
    ended = _export(command, hard, tmp_path / "b", "--formats", "onnx")
    bundle = Bundle.open(tmp_path / "b")
    # It does not say so where the gate refused it for all that.
    assert ("Repaired: " in ended.out) == bool(bundle.manifest.artefacts)
    attempts = json.loads((tmp_path / "b" / "repairs.json").read_text())["attempts"]
    kept = [attempt["float_layers"] for attempt in attempts]
    assert [len(layers) for layers in kept] == list(range(len(kept)))
    assert len(kept) > 1
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(kept))
    assert set(kept[-1]) <= {*out_of_scale.CHAIN, "head"}
    best = min(attempts, key=lambda attempt: attempt["drop"]["onnx"])
    assert best["drop"]["onnx"] < attempts[0]["drop"]["onnx"] - 1
    assert list(Plan.read(tmp_path / "b" / "plan.json").float_layers) == best["float_layers"]
    calibration = bundle.manifest.calibration
    assert calibration is not None
    assert all(name in calibration.method for name in best["float_layers"])


def test_what_passes_at_once_is_left_alone(lenet_bundle: Path) -> None:
    assert not (lenet_bundle / "repairs.json").exists()
    assert not (lenet_bundle / "plan.json").exists()


def test_too_few_images_are_an_answer_of_their_own(command: Command, lenet: Path, tmp_path: Path) -> None:
    args = ("--formats", "tflite", "--precisions", "fp32", "--limit", "50")
    ended = command("export", lenet, "--out", tmp_path / "b", "--data", "digits", *args)
    assert ended.code == 0
    assert "tflite fp32 ?" in ended.out
    assert "? undecided" in ended.out
    assert "not enough images to tell" in ended.err
    assert "takes about 600 images" in ended.err
    artefact = Bundle.open(tmp_path / "b").artefact("tflite", "fp32")
    assert artefact.undecided is not None
    assert artefact.undecided in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
