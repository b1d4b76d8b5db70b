"""A plan that was written once is repeated exactly by an export, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from calibration.__main__ import main
from calibration.fold import fold
from calibration.graph import infer, read
from calibration.plan import Plan
from calibration.simulate import simulate
from edge.bundle import Bundle
from edge.pixels import normalise
from train.models.lenet import lenet5
from train.weights import load_keras

REPAIRS = ("--method", "mse", "--equalise", "--bias-correction", "--samples", "64", "--sample", "random")


def _lenet(folder: Path, seed: int) -> Path:
    keras.utils.set_random_seed(seed)
    path = folder / f"lenet{seed}.keras"
    lenet5(32, 32, 10).save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _lenet(tmp_path_factory.mktemp("models"), 0)


@pytest.fixture(scope="module")
def plan(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    done = CliRunner().invoke(main, [str(model), "--data", "digits", *REPAIRS, "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


def _export(command: Callable, model: Path, out: Path, *options: object) -> tuple[int, str]:
    only = ("--formats", "tflite", "--precisions", "int8", "--limit", "10", "--max-drop", "100")
    done = command("export", model, "--data", "digits", "--out", out, *only, *options)
    return done.code, " ".join(done.err.split())


def test_an_export_repeats_a_plan_exactly(command: Callable, model: Path, plan: Path, tmp_path: Path) -> None:
    """Golden vectors are what the simulation of the bundle's plan gives."""
    assert _export(command, model, tmp_path / "again", "--plan", plan)[0] == 0
    assert _export(command, model, tmp_path / "plain", "--samples", "64")[0] == 0
    again, plain = (Bundle.open(tmp_path / name) for name in ("again", "plain"))
    with np.load(again.folder / "golden.npz") as golden, np.load(plain.folder / "golden.npz") as other:
        simulation = simulate(fold(read(load_keras(model))), Plan.read(plan), "tflite")
        wanted = infer(simulation, normalise(golden["inputs"]))["logits"]
        np.testing.assert_array_equal(golden["tflite.int8.logits"], wanted)
        assert (other["tflite.int8.logits"] != wanted).any()
    assert again.manifest.calibration is not None
    assert again.manifest.calibration.method == "mse, equalise, bias correction"
    assert again.manifest.calibration.samples_sha256 == Plan.read(plan).provenance.samples_sha256


def test_a_stale_plan_ends_the_export_with_its_reason(
    command: Callable, model: Path, plan: Path, tmp_path: Path
) -> None:
    code, said = _export(command, _lenet(tmp_path, 1), tmp_path / "out", "--plan", plan)
    assert code == 2
    assert f"{plan}: This quantization plan is stale: another model" in said
    code, said = _export(command, model, tmp_path / "out", "--plan", plan, "--samples", "32")
    assert code == 2
    assert "another list of images" in said
    code, said = _export(command, model, tmp_path / "out", "--plan", plan, "--samples", "0")
    assert code == 2
    assert "at least one image, 0 were asked for" in said
    code, said = _export(command, model, tmp_path / "out", "--plan", plan, "--method", "entropy")
    assert code == 2
    assert "another method (made with 'mse, equalise, bias correction', now 'entropy, equalise" in said
    assert not (tmp_path / "out").exists()


def test_what_a_damaged_plan_says_of_a_layer_is_told_of_its_file(
    command: Callable, model: Path, plan: Path, tmp_path: Path
) -> None:
    made = Plan.read(plan)
    scales = {name: values[1:] for name, values in made.kernel_scales.items()}
    made.model_copy(update={"kernel_scales": scales}).write(tmp_path / "cut.json")
    code, said = _export(command, model, tmp_path / "out", "--plan", tmp_path / "cut.json")
    assert code == 2
    assert f"{tmp_path / 'cut.json'}: The plan's kernel scales of layer" in said
