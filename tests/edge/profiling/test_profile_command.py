"""`sightline profile` and what it offers, through the real command with a real ONNX model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.errors import InputError
from edge.frame import STAGES
from edge.profile import parse_percentiles
from edge.profiling import memory
from edge.profiling.report import read_report
from edge.profiling.sources import Paced

SOURCE = "demo://?width=160&height=90"


@pytest.fixture
def profile(command: Callable[..., Any], colour_bundle: Path) -> Callable[..., Any]:
    """Profiles the small colour model on the demo source."""
    return lambda *args: command("profile", colour_bundle, "--source", SOURCE, *args)


def test_a_profile_takes_the_frames_that_its_percentiles_need(
    profile: Callable[..., Any], tmp_path: Path
) -> None:
    ended = profile("--percentiles", "50,95", "--json", tmp_path / "run.json")
    assert ended.code == 0, ended.err
    found = read_report(tmp_path / "run.json")
    assert found.settings["frames"] == 74
    assert found.rows is not None
    assert len(found.rows["infer"]) == 74
    assert found.warm_up is not None
    assert found.n == 74 - found.warm_up.frames == sum(found.rows["steady"])
    assert list(found.stages_ms) == [*STAGES, "age"]
    assert list(found.stages_ms["age"]) == ["p50", "p95", "mean", "max", "jitter"]
    assert set(found.models_ms["mean-colour"]) == {"preprocess", "infer", "postprocess"}
    low, high = found.ci95_ms["age"]["p50"] or (1.0, 0.0)
    assert low <= (found.stages_ms["age"]["p50"] or 0.0) <= high
    assert found.memory_mb is not None
    assert found.memory_mb.peak >= found.memory_mb.steady > 10
    assert found.conditions is not None
    assert "load" in found.conditions
    assert found.streaming is not None
    assert "Age, 95 % intervals: p50" in ended.out


def test_too_few_frames_are_a_dash_and_null_with_the_number_that_is_needed(
    profile: Callable[..., Any], tmp_path: Path
) -> None:
    ended = profile("--frames", 40, "--percentiles", "50,99,99.9", "--json", tmp_path / "run.json")
    assert "p99 needs 299, p99.9 needs 2995" in " ".join(ended.out.split())
    assert "Too few frames to tell a warm-up" in ended.out
    found = read_report(tmp_path / "run.json")
    assert found.stages_ms["age"]["p99"] is found.ci95_ms["age"]["p99"] is None
    assert found.frames_needed == {"p99": 299, "p99.9": 2995}
    assert found.warm_up is not None
    assert found.warm_up.settled is None


def test_an_open_loop_is_paced_and_says_whether_it_keeps_up(
    profile: Callable[..., Any], tmp_path: Path
) -> None:
    ended = profile("--rate", 100, "--frames", 60, "--json", tmp_path / "run.json")
    found = read_report(tmp_path / "run.json")
    assert found.open_loop is not None
    assert found.open_loop.achieved_fps == pytest.approx(100, rel=0.2)
    assert found.streaming is None
    assert "Due 100 frames a second" in ended.out
    behind = profile("--rate", 100_000, "--frames", 60)
    assert "cannot keep up" in behind.out


def test_a_sweep_is_a_table_with_a_line_for_each_value(profile: Callable[..., Any], tmp_path: Path) -> None:
    ended = profile(
        "--frames", 30, "--percentiles", "50", "--sweep", "rate=50,100", "--json", tmp_path / "run.json"
    )
    assert ended.code == 0, ended.err
    assert "Sweep of rate" in ended.out
    found = read_report(tmp_path / "run.json").sweep
    assert found is not None
    assert [point.value for point in found.points] == [50, 100]
    assert found.points[0].fps < found.points[1].fps
    assert profile("--frames", 10, "--percentiles", "50", "--sweep", "threads=1,2").code == 0


def test_a_sweep_of_cameras_is_that_of_the_daemon_and_tells_what_is_dropped(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    args = ("--source", f"{SOURCE}&fps=200", "--frames", 60, "--percentiles", "50", "--sweep", "cameras=1,2")
    written = ("--json", tmp_path / "run.json", "--html", tmp_path / "run.html")
    ended = command("profile", "cifar10-convnetjs", *args, *written)
    assert ended.code == 0, ended.err
    assert "Sweep of cameras, age in ms" in ended.out
    found = read_report(tmp_path / "run.json").sweep
    assert found is not None
    assert [(point.value, point.stages_ms.keys() >= {"wait", "age"}) for point in found.points] == [
        (1, True), (2, True),
    ]  # fmt: skip
    assert all(point.dropped is not None and 0 <= point.dropped < 1 for point in found.points)
    assert "<th>dropped</th>" in (tmp_path / "run.html").read_text()


def test_a_batch_is_inferred_at_once_where_the_artefact_can(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    args = ("--source", SOURCE, "--frames", 20, "--percentiles", "50", "--sweep", "batch=1,2")
    ended = command("profile", "face-320x192", *args, "--json", tmp_path / "run.json")
    assert ended.code == 0, ended.err
    assert "Sweep of batch, infer in ms" in ended.out
    found = read_report(tmp_path / "run.json").sweep
    assert found is not None
    one, two = (point.stages_ms["infer"]["mean"] or 0.0 for point in found.points)
    assert two > one > 0
    assert found.points[1].fps == pytest.approx(2e3 / two, rel=1e-3)
    refused = command("profile", "cifar10-base", *args)
    assert refused.code == 2
    assert "for 2 pictures at once" in refused.err
    assert "A layer of it fixes the batch" in refused.err


def test_a_batch_is_refused_for_artefacts_that_take_one_picture(profile: Callable[..., Any]) -> None:
    ended = profile("--frames", 5, "--sweep", "batch=2")
    assert ended.code == 2
    assert "runs on onnx, whose artefacts take one picture at a time" in ended.err


def test_two_bundles_in_turn(command: Callable[..., Any], colour_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    ended = command(
        "profile",
        colour_bundle,
        colour_bundle,
        "--source",
        SOURCE,
        "--interleave",
        4,
        "--frames",
        200,
        "--json",
        run,
    )
    assert ended.code == 0, ended.err
    assert "rounds in turn, paired" in ended.out
    assert "Cannot tell B from A" in ended.out or "B is" in ended.out
    a, b = (read_report(tmp_path / f"run-{letter}.json") for letter in "ab")
    assert a.rows is not None
    assert sorted(set(a.rows["round"])) == [0, 1, 2, 3]
    assert len(a.rows["infer"]) == 200
    assert a.conditions == b.conditions
    again = command("profile", "compare", tmp_path / "run-a.json", tmp_path / "run-b.json")
    assert again.code == 0, again.err
    assert "paired" in again.out


def test_the_cold_start_is_measured_in_fresh_processes(profile: Callable[..., Any], tmp_path: Path) -> None:
    ended = profile("--frames", 10, "--percentiles", "50", "--cold-start", "--json", tmp_path / "run.json")
    assert "Cold start" in ended.out
    found = read_report(tmp_path / "run.json").cold_start_ms
    assert found is not None
    steps = found.model_dump()
    assert list(steps) == ["interpreter", "imports", "load", "source", "first_inference", "second_inference"]
    assert all(value > 0 for value in steps.values())
    assert steps["imports"] > steps["second_inference"]


def test_a_cold_start_without_an_end_is_told(
    profile: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.profiling.cold.LONGEST_S", 0.05)
    ended = profile("--frames", 10, "--percentiles", "50", "--cold-start")
    assert (ended.code, "The cold start has not ended after 0.05 s" in ended.err) == (2, True), ended.err


def test_a_page_a_trace_and_the_layers(profile: Callable[..., Any], tmp_path: Path) -> None:
    page, trace, run = (tmp_path / name for name in ("run.html", "trace.json", "run.json"))
    ended = profile("--frames", 60, "--html", page, "--trace", trace, "--layers", "--json", run)
    assert ended.code == 0, ended.err
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(trace.read_text())["traceEvents"]
    layers = read_report(run).layers
    assert layers is not None
    assert set(layers) == {"mean-colour"}


def test_where_no_interval_is_known_there_is_no_line_of_them(profile: Callable[..., Any]) -> None:
    ended = profile("--frames", 2)
    assert ended.code == 0
    assert "Resident memory" in ended.out
    assert "intervals" not in ended.out


def test_an_output_in_the_place_of_the_source_or_of_another_is_refused_before_anything_runs(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"a recording")
    for subcommand, option in (("profile", "--json"), ("profile", "--html"), ("predict", "--jsonl")):
        bundle, source = "cifar10-nano", ("--source", clip) if subcommand == "profile" else (clip,)
        ended = command(subcommand, bundle, *source, option, tmp_path / "." / "clip.mp4")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"Error: {option}: {clip} is that of 'source', too"), ended.err
        assert clip.read_bytes() == b"a recording"
    both = tmp_path / "run.json"
    ended = command("profile", "cifar10-nano", "--json", both, "--trace", both)
    assert (ended.code, ended.out) == (2, "")
    assert f"--trace: {both} is that of '--json', too" in ended.err


def test_two_in_turn_are_not_run_for_a_file_that_cannot_be_written(
    command: Callable[..., Any], colour_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "run-b.json").mkdir()
    turns = ("profile", colour_bundle, colour_bundle, "--source", SOURCE, "--interleave", 2, "--frames", 200)
    ended = command(*turns, "--json", tmp_path / "run.json")
    assert (ended.code, ended.out) == (2, "")
    assert f"Cannot write {tmp_path / 'run-b.json'}: it is a folder" in ended.err
    assert not (tmp_path / "run-a.json").exists(), "nothing ran"


def test_a_prediction_refuses_what_needs_a_run(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("profile", "cifar10-nano", "--predict", "orin-nano", "--html", tmp_path / "p.html")
    assert (ended.code, ended.out) == (2, "")
    assert "--html" in ended.err


def test_a_prediction_runs_nothing(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("profile", "cifar10-convnetjs", "--predict", "orin-nano", "--json", tmp_path / "p.json")
    assert ended.code == 0, ended.err
    assert "PREDICTION, not a measurement" in ended.out
    assert set(json.loads((tmp_path / "p.json").read_text())["predictions"]) == {"cifar10-convnetjs"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--percentiles", "50,fast"), "expected numbers between 0 and 100"),
        (("--percentiles", "100"), "expected numbers between 0 and 100"),
        (("--percentiles", ""), "expected numbers between 0 and 100"),
        (("--rate", "0", "--frames", "10"), "The rate is 0: expected frames a second, above 0."),
        (("--rate", "nan", "--frames", "10"), "The rate is nan"),
        (
            ("--sweep", "thread=1"),
            "expected one of threads, decode_threads, backend, precision, rate, cameras",
        ),
        (("--sweep", "batch=0"), "0 is less than 1. Expected values as in threads=1,2."),
        (("--rate", "500", "--sweep", "cameras=1"), "Leave --rate out."),
        (("--sweep", "thread=1"), "Did you mean 'threads'?"),
        (("--sweep", "threads=one"), "Expected values as in threads=1,2."),
        (("--interleave", "4"), "--interleave compares two bundles or configs, got 1"),
        (("--interleave", "4", "--layers"), "it takes --json alone"),
        (("--frames", "0"), "Invalid value for '--frames'"),
    ],
)
def test_wrong_options_end_with_2(profile: Callable[..., Any], args: tuple[str, ...], message: str) -> None:
    ended = profile(*args)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_a_config_with_one_camera_streams_it_and_one_with_two_is_ambiguous(
    command: Callable[..., Any], colour_bundle: Path, tmp_path: Path
) -> None:
    config, report = tmp_path / "cams.toml", tmp_path / "p.json"
    door = f'model = "{colour_bundle}"\n[[cameras]]\nname = "door"\nsource = "{SOURCE}"\n'
    config.write_text(door)
    assert command("profile", config, "--frames", 20, "--json", report).code == 0
    assert json.loads(report.read_text())["settings"]["source"] == SOURCE
    config.write_text(door + '[[cameras]]\nname = "yard"\nsource = "nowhere.mp4"\n')
    ended = command("profile", config, "--frames", 20)
    assert ended.code == 2
    assert "the config has 2 cameras: door, yard. Name one with --source" in ended.err


def test_one_round_is_no_turn(command: Callable[..., Any], colour_bundle: Path) -> None:
    ended = command("profile", colour_bundle, colour_bundle, "--source", SOURCE, "--interleave", 1)
    assert ended.code == 2
    assert "expected at least 2 rounds" in ended.err


def test_the_help_is_that_of_the_profile_and_names_the_others(command: Callable[..., Any]) -> None:
    text = command("profile", "--help").out
    assert "profile [OPTIONS]" in text.splitlines()[0], "no second blank"
    assert "--percentiles" in text
    assert "profile compare A.json" in text
    assert "--budget" in command("profile", "gate", "--help").out


def test_percentiles_are_sorted_and_named_once() -> None:
    assert parse_percentiles("99.9,50,50") == (50.0, 99.9)
    with pytest.raises(InputError):
        Paced(None, -1)  # type: ignore[arg-type]


def test_memory_that_the_system_does_not_tell_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory.resident_mb() is None
    (tmp_path / "status").write_text("Name: x\nVmHWM:\t 2000 kB\n")
    assert memory.resident_mb() is None
    (tmp_path / "status").write_text("VmHWM:\t 2000 kB\nVmRSS:\t 1000 kB\n")
    assert memory.resident_mb() == (2.0, 1.0)
