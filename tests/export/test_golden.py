"""The tolerance of golden vectors where roundings add up to more than usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bundle import Bundle, Golden
from edge.errors import CheckFailed
from edge.golden import check, replay, tolerance_needed
from edge.runners import open_runner
from export.golden import LARGEST_STEPS, Tolerance, fitted, write_golden, write_part

BUNDLES = Path(__file__).parents[2] / "edge" / "bundles"
INT8 = ("tflite", "int8")


def _needed(bundle: Bundle) -> float:
    return tolerance_needed(bundle, open_runner(bundle, *INT8), *INT8)


def _rougher(name: str, needed: float) -> Bundle:
    """A shipped bundle with output steps so small that its int8 TFLite file lies that many of them from its vectors."""
    bundle = Bundle.open(BUNDLES / name)
    factor = _needed(bundle) / needed
    step = {head: size * factor for head, size in bundle.manifest.golden.step.items()}
    return _with(bundle, bundle.manifest.golden.model_copy(update={"step": step}))


def _with(bundle: Bundle, golden: Golden) -> Bundle:
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"golden": golden}))


@pytest.mark.parametrize("name", ["cifar10-base", "face-320"])
def test_the_tolerance_needed_is_the_smallest_that_passes(name: str) -> None:
    """Of a detector a share of the values must keep it, and the others four times as much."""
    bundle = _rougher(name, 20.0)
    for tolerance, passes in ((20.1, True), (19.9, False)):
        held_to = _with(bundle, bundle.manifest.golden.model_copy(update={"tolerance_steps": tolerance}))
        if passes:
            check(held_to, *INT8)
        else:
            with pytest.raises(CheckFailed, match="differs by"):
                check(held_to, *INT8)


@pytest.mark.parametrize("name", ["cifar10-base", "face-320"])
def test_a_file_that_passed_its_gate_is_given_room(name: str, tmp_path: Path) -> None:
    bundle = _rougher(name, 20.0)
    kept = (bundle.artefact(*INT8),)
    golden = fitted(bundle, kept)
    assert golden.tolerance_steps in (40, 41)
    assert golden.margin_steps >= 2 * golden.tolerance_steps
    check(_with(bundle, golden), *INT8)
    part = write_part(tmp_path, _with(bundle, golden), kept)
    assert part.model_copy(update={"sha256": golden.sha256}) == golden


@pytest.mark.parametrize("folder", sorted(BUNDLES.iterdir()), ids=lambda folder: folder.name)
def test_no_shipped_bundle_asks_more_of_a_class_than_of_its_logits(folder: Path) -> None:
    golden = Bundle.open(folder).manifest.golden
    assert golden.margin_steps >= 2 * golden.tolerance_steps


class _Off:
    """A runner that gives the expected logits, the best and the second moved towards each other by so many steps."""

    def __init__(self, expected: Any, step: float, off: float) -> None:
        self._rows, self._move = iter(expected), off * step

    def infer(self, pixels: Any) -> dict[str, Any]:
        row = next(self._rows).astype(np.float64)
        order = np.argsort(row)
        row[order[-1]] -= self._move
        row[order[-2]] += self._move
        return {"logits": row[None].astype(np.float32)}


def _largest_steps(
    folder: Path, best: float, second: float, steps: float, off: float, margin: float | None = None
) -> float:
    expected = np.array([[best, second, *[-1.0] * 8]], np.float32)
    vectors = {"inputs": np.zeros((1, 32, 32, 3), np.uint8), "tflite.int8.logits": expected}
    golden = write_golden(folder, vectors, {"logits": 0.5}, Tolerance(steps))
    golden = golden.model_copy(update={"margin_steps": margin}) if margin else golden
    manifest = Bundle.open(BUNDLES / "cifar10-base").manifest.model_copy(update={"golden": golden})
    return replay(Bundle(folder, manifest), _Off(expected, 0.5, off), *INT8)


@given(best=st.floats(0.0, 20.0), second=st.floats(0.0, 20.0), steps=st.floats(0.1, 16.0))
def test_logits_within_the_tolerance_pass_whatever_they_name(
    tmp_path_factory: pytest.TempPathFactory, best: float, second: float, steps: float
) -> None:
    folder = tmp_path_factory.mktemp("golden")
    assert _largest_steps(folder, best, second, steps, 0.99 * steps) <= steps


def test_another_class_is_refused_from_the_margin_on(tmp_path: Path) -> None:
    """In steps, between the two best; a manifest may ask more of a class than of its logits."""
    assert _largest_steps(tmp_path, 12.5, 10.0, 100.0, 4.0, margin=6.0) == pytest.approx(4)
    with pytest.raises(CheckFailed, match="names another class"):
        _largest_steps(tmp_path, 13.5, 10.0, 100.0, 4.0, margin=6.0)


def test_the_message_tells_how_far_and_how_many_values_are_beyond(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"by 7\.0 output steps .* \(20\.0% by more than 6\); up to 6 are"):
        _largest_steps(tmp_path, 20.0, 10.0, 6.0, 7.0)


def test_a_single_value_that_is_no_number_is_refused_though_a_share_may_be_beyond() -> None:
    bundle = Bundle.open(BUNDLES / "face-320")
    whole = open_runner(bundle, *INT8)

    class Broken:
        def infer(self, pixels: Any) -> dict[str, Any]:
            heads = whole.infer(pixels)
            next(iter(heads.values())).flat[0] = np.nan
            return heads

    with pytest.raises(CheckFailed, match="differs by nan output steps"):
        replay(bundle, Broken(), *INT8)  # type: ignore[arg-type]


@pytest.mark.parametrize(("times", "passes"), [(3.9, True), (4.1, False)])
def test_of_a_share_the_others_keep_four_times_the_tolerance(times: float, passes: bool) -> None:
    bundle = Bundle.open(BUNDLES / "face-320")
    golden, whole = bundle.manifest.golden, open_runner(bundle, *INT8)
    with np.load(bundle.folder / golden.file) as arrays:
        rows = iter(arrays["tflite.int8.score_8"])

    class Off:
        def infer(self, pixels: Any) -> dict[str, Any]:
            heads = whole.infer(pixels)
            heads["score_8"].flat[0] = (
                next(rows).flat[0] + times * golden.tolerance_steps * golden.step["score_8"]
            )
            return heads

    if passes:
        replay(bundle, Off(), *INT8)  # type: ignore[arg-type]
    else:
        with pytest.raises(CheckFailed, match="for 99% of the values"):
            replay(bundle, Off(), *INT8)  # type: ignore[arg-type]


def test_what_keeps_the_usual_tolerance_and_what_is_beyond_all_of_them_are_held_to_it() -> None:
    usual = Bundle.open(BUNDLES / "cifar10-base").manifest.golden.tolerance_steps
    for needed in (0.9 * usual, LARGEST_STEPS + 1):
        bundle = _rougher("cifar10-base", needed)
        assert fitted(bundle, (bundle.artefact(*INT8),)) == bundle.manifest.golden


def test_a_file_beyond_all_tolerances_takes_no_room_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(BUNDLES / "cifar10-base")
    far = {"tflite": 10.0, "onnx": LARGEST_STEPS + 1}
    monkeypatch.setattr("export.golden._needed", lambda _, artefact: far[artefact.format])
    assert fitted(bundle, bundle.manifest.artefacts).tolerance_steps == 20
