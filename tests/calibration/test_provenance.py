"""A plan holds for what it was made from, and for nothing else; ranges are tried on images that did not decide them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers
from plans import make_plan

from calibration import __main__ as command_module
from calibration.calibrate import calibrate
from calibration.coverage import Coverage, coverage, doubts
from calibration.fold import fold
from calibration.graph import Graph, read
from calibration.plan import Plan, provenance
from calibration.provenance import StalePlan, graph_sha256
from calibration.samples import Samples, labelled_samples
from calibration.settings import Settings
from edge.errors import InputError
from train.data import load
from train.models.lenet import lenet5

SETTINGS = Settings(method="mse")


def _graph(seed: int = 0) -> Graph:
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(pixels)
    head = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D(name="mean")(x))
    return fold(read(keras.Model(pixels, head)))


@pytest.fixture(scope="module")
def samples() -> Samples:
    return labelled_samples(load("digits", "train", 16, 16), 100)


@pytest.fixture(scope="module")
def plan(samples: Samples) -> Plan:
    return calibrate(_graph(), samples, SETTINGS, "crop")


def test_a_plan_holds_for_what_it_was_made_from(plan: Plan, samples: Samples) -> None:
    plan.provenance.check(provenance(_graph(), samples, SETTINGS, "crop"))
    assert plan.sample_ids == samples.ids
    assert plan.samples == 100


def test_a_stale_plan_is_refused_by_what_differs(plan: Plan, samples: Samples) -> None:
    def refused(graph: Graph, images: Samples, settings: Settings, preprocessing: str) -> str:
        with pytest.raises(StalePlan, match="Nothing was reused") as error:
            plan.provenance.check(provenance(graph, images, settings, preprocessing))
        return str(error.value)

    pixels = samples.images[:].copy()
    pixels[3, 2, 1, 0] ^= 1
    assert "another model" in refused(_graph(seed=1), samples, SETTINGS, "crop")
    assert "other calibration images" in refused(_graph(), replace(samples, images=pixels), SETTINGS, "crop")
    assert "another list of images" in refused(_graph(), replace(samples, ids=("1",)), SETTINGS, "crop")
    assert "another method (made with 'mse', now 'minmax')" in refused(
        _graph(), samples, Settings(method="minmax"), "crop"
    )
    assert "mse, equalise" in refused(_graph(), samples, Settings(method="mse", equalise=True), "crop")
    both = refused(_graph(seed=1), samples, SETTINGS, "letterbox")
    assert "another model" in both
    assert "another preprocessing (made with 'crop', now 'letterbox')" in both


def test_other_versions_make_a_plan_stale(plan: Plan) -> None:
    versions = {**plan.provenance.versions, "numpy": "1.0"}
    with pytest.raises(StalePlan, match=r"the version of numpy \(made with [\d.]+, now 1.0\)"):
        plan.provenance.check(plan.provenance.model_copy(update={"versions": versions}))


def test_the_hash_of_a_network_is_that_of_its_weights_and_layers() -> None:
    assert graph_sha256(_graph()) == graph_sha256(_graph()) != graph_sha256(_graph(seed=1))


@pytest.mark.parametrize("limits", [[0.0, float("inf")], [float("nan"), 1.0], [2.0, 1.0]])
def test_a_range_that_is_no_range_is_refused_by_name(plan: Plan, limits: list[float], tmp_path: Path) -> None:
    content = json.loads(plan.model_dump_json())
    content["ranges"]["conv_relu"] = limits
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="range of layer 'conv_relu'"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"ranges": 3}'])
def test_what_is_no_plan_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(InputError, match="is not a quantization plan"):
        Plan.read(tmp_path / "plan.json")
    with pytest.raises(InputError, match="No plan at"):
        Plan.read(tmp_path / "nowhere.json")


def test_activations_that_are_not_finite_are_refused_by_name(samples: Samples) -> None:
    graph = _graph()
    graph["conv"].weights[1][2] = np.inf
    with pytest.raises(InputError, match="Layer 'conv_relu' gives values that are infinite"):
        make_plan(graph, samples.images, "digits")


def test_weights_that_are_not_finite_are_refused_by_name(samples: Samples) -> None:
    graph = _graph()
    graph["head"].weights[0][0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="'head'"):
        make_plan(graph, samples.images, "digits")


# -- coverage -------------------------------------------------------------------------------------


def test_coverage_counts_what_lies_outside(samples: Samples) -> None:
    graph = _graph()
    plan = make_plan(graph, samples.images, "digits", "minmax")
    same = coverage(graph, plan, samples.images)
    assert list(same) == list(plan.ranges)
    assert all(found.outside == 0 and found.filled == pytest.approx(1, abs=1e-5) for found in same.values())
    low, high = plan.ranges["head"]
    narrow = plan.model_copy(update={"ranges": {**plan.ranges, "head": (low / 2, high / 2)}})
    found = coverage(graph, narrow, samples.images)["head"]
    assert found.below > 0
    assert found.above > 0
    assert found.filled == pytest.approx(2, abs=1e-4)


def test_good_samples_raise_no_doubt(samples: Samples) -> None:
    graph = _graph()
    plan = make_plan(graph, samples.images, "digits")
    assert samples.held_out is not None
    assert doubts(samples, coverage(graph, plan, samples.held_out)) == ()


def test_few_and_blank_images_are_doubted(samples: Samples) -> None:
    few = Samples(samples.images[:10], "few")
    assert "10 calibration images are few" in doubts(few, {})[0]
    assert doubts(Samples(samples.images[:64], "enough"), {}) == ()
    pixels = samples.images[:].copy()
    pixels[:2] = 7
    assert doubts(Samples(pixels, "hardly any blank"), {}) == ()
    pixels[:5] = 7
    assert "5 of 100 calibration images are blank" in doubts(Samples(pixels, "blank"), {})[0]


def test_images_of_another_task_are_doubted_by_coverage(samples: Samples) -> None:
    """Calibrated on nearly black pictures, then met with digits, and the other way round."""
    graph, dim = _graph(), (samples.images[:] // 32 + 124).astype(np.uint8)
    too_narrow = make_plan(graph, dim, "dim")
    (doubt,) = doubts(samples, coverage(graph, too_narrow, samples.images))
    assert "leave the range" in doubt
    assert "another task" in doubt
    too_wide = make_plan(graph, samples.images, "digits")
    found = " ".join(doubts(samples, coverage(graph, too_wide, dim)))
    assert "fill less than 25%" in found
    some = {"a": Coverage(0.02, 0.0, 1.0), "b": Coverage(0.01, 0.04, 1.0), "c": Coverage(0.01, 0.0, 1.0)}
    assert "the range of 2 of 3 tensors, 'b' with 5.0 %" in doubts(samples, some)[0]


# -- the commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "lenet.keras"
    lenet5(32, 32, 10).save(path)
    return path


def _run(*args: object) -> Any:
    return CliRunner().invoke(command_module.main, [str(arg) for arg in args])


def test_the_command_writes_a_plan_with_all_that_was_asked_for(lenet: Path, tmp_path: Path) -> None:
    options = (
        "--method",
        "entropy",
        "--equalise",
        "--bias-correction",
        "--sample",
        "k-centre",
        "--samples",
        80,
    )
    done = _run(lenet, "--data", "digits", *options, "--out", tmp_path / "plan.json")
    assert done.exit_code == 0, done.output
    assert "outside" in done.output
    plan = Plan.read(tmp_path / "plan.json")
    assert plan.method == "entropy, equalise, bias correction"
    assert plan.samples == len(plan.sample_ids) == 80
    assert plan.equalised
    assert plan.bias_shifts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "median"), "Unknown range method 'median'"),
        (("--ranges", "percentile:20"), "percentile lies above 50"),
        (("--samples", "-1"), "at least one image"),
        (("--sample", "nice"), "balanced"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(lenet: Path, options: tuple[str, ...], said: str) -> None:
    done = _run(lenet, "--data", "digits", *options)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("option", ["--out", "--sensitivity"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(command_module, "calibrate", lambda *_: pytest.fail("calibrated"))
    done = _run(lenet, "--data", "digits", option, tmp_path)
    assert done.exit_code == 2
    assert "it is a folder" in done.output


_MEASURE = """
import re, sys
import keras, numpy as np
from keras import layers
from calibration.calibrate import calibrate
from calibration.fold import fold
from calibration.graph import read
from calibration.samples import Samples
from calibration.settings import Settings

class Made:
    "Pictures that exist while they are looked at."
    shape = (int(sys.argv[1]), 32, 32, 3)
    def __len__(self): return self.shape[0]
    def __getitem__(self, part):
        places = range(*part.indices(len(self)))
        return np.random.default_rng(len(places)).integers(0, 256, (len(places), 32, 32, 3), dtype=np.uint8)

pixels = keras.Input((32, 32, 3))
x = layers.Conv2D(16, 3, activation="relu")(pixels)
x = layers.DepthwiseConv2D(3, activation="relu")(x)
graph = fold(read(keras.Model(pixels, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))))
settings = Settings(method="mse", equalise=True, bias_correction=True)
calibrate(graph, Samples(Made(), "made"), settings)
# Not ru_maxrss, which begins at what the process that started this one has used.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_memory_stays_flat_between_a_hundred_images_and_ten_thousand() -> None:
    def peak_mib(images: int) -> float:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(images)], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    few, many = peak_mib(100), peak_mib(10_000)
    print(f"{few:.0f} MiB with 100 images, {many:.0f} MiB with 10,000")
    assert many < 1.1 * few
