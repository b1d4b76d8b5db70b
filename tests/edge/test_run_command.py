"""`sightline run` and `sightline profile` through the real command, with a real ONNX model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from terminal_stage import in_a_terminal, until_shown

import sightline

LABELS = ("red", "green", "blue")
ROOT = Path(sightline.__file__).parent


@pytest.fixture(scope="module")
def bundle(colour_bundle: Path) -> Path:
    return colour_bundle


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames: ten red, ten green, ten blue."""
    path = tmp_path_factory.mktemp("clips") / "colours.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(30):
            pixels = np.zeros((96, 128, 3), np.uint8)
            pixels[:, :, index // 10] = 220
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def command(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """The exit code of `sightline ARGS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["sightline", *map(str, args)])
    try:
        sightline.main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def one_message(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error; no traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    return text


def test_run_writes_results_video_and_latency(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    clip: Path,
) -> None:
    outputs = {name: tmp_path / "out" / name for name in ("results.jsonl", "demo.mp4", "latency.json")}
    code = command(
        monkeypatch, "run", "--source", clip, "--model", bundle, "--lossless",
        "--jsonl", outputs["results.jsonl"], "--video", outputs["demo.mp4"],
        "--latency", outputs["latency.json"],
    )  # fmt: skip
    assert code == 0
    results = lines(outputs["results.jsonl"])
    assert [line["frame"] for line in results] == list(range(30))
    assert [line["label"] for line in results] == [label for label in LABELS for _ in range(10)]
    with av.open(str(outputs["demo.mp4"])) as container:
        assert len(list(container.decode(video=0))) == 30
    latency = json.loads(outputs["latency.json"].read_text())
    assert latency["n"] == 30
    assert latency["settings"]["backend"] == "onnx"
    assert sorted((tmp_path / "out").iterdir()) == sorted(outputs.values())
    printed = capsys.readouterr().out
    for text in ("30 of 30 frames", "0 dropped", "Latency by stage", "preprocess", "mean-colour  onnx fp32"):
        assert text in printed, text


def test_run_takes_a_config_and_options_override_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    clip: Path,
) -> None:
    config, results = tmp_path / "stream.toml", tmp_path / "results.jsonl"
    config.write_text(
        f'source = "gone.mp4"\nmodel = "{bundle}"\nlossless = true\n[sinks]\njsonl = "{results}"\n'
    )
    assert command(monkeypatch, "run", config, "--source", clip, "--frames", 12, "--quiet") == 0
    assert len(lines(results)) == 12
    assert capsys.readouterr().out == ""


def test_run_over_pictures_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path) -> None:
    for label, bgr in (("red", (0, 0, 200)), ("green", (0, 200, 0)), ("blue", (200, 0, 0))):
        cv2.imwrite(str(tmp_path / f"{label}.png"), np.full((20, 30, 3), bgr, np.uint8))
    results = tmp_path / "results.jsonl"
    assert command(monkeypatch, "run", "--source", tmp_path, "--model", bundle, "--jsonl", results) == 0
    assert [line["image"] for line in lines(results)] == ["blue.png", "green.png", "red.png"]
    assert all(line["image"] == f"{line['label']}.png" for line in lines(results))


def test_truncated_video_ends_with_2_and_complete_files(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    clip: Path,
) -> None:
    content = clip.read_bytes()
    cut, results, latency = tmp_path / "cut.mp4", tmp_path / "results.jsonl", tmp_path / "latency.json"
    cut.write_bytes(content[: int(len(content) * 0.8)])
    code = command(
        monkeypatch, "run", "--source", cut, "--model", bundle, "--lossless", "--quiet",
        "--jsonl", results, "--latency", latency,
    )  # fmt: skip
    assert code == 2
    done = len(lines(results))
    assert 0 < done < 30
    assert f"{done} of 30 frames could be decoded" in one_message(capsys)
    assert json.loads(latency.read_text())["n"] == done


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.mp4", "No such source"),
        ("text.mp4", "cannot be read as a video"),
        ("empty.mp4", "cannot be read as a video"),
        ("fake.png", "is not an image"),
        ("folder", "holds no images"),
        ("rtsp://viewer:secret@", "names no host"),
    ],
)
@pytest.mark.parametrize("subcommand", ["run", "profile"])
def test_bad_sources_end_with_2_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    subcommand: str,
    source: str,
    message: str,
) -> None:
    (tmp_path / "text.mp4").write_text("a shopping list")
    (tmp_path / "fake.png").write_text("a shopping list")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    uri = source if "://" in source else tmp_path / source
    output = tmp_path / "out" / "file"
    where = ["--model", bundle, "--jsonl", output] if subcommand == "run" else [bundle, "--json", output]
    assert command(monkeypatch, subcommand, *where, "--source", uri) == 2
    assert message in one_message(capsys)
    assert not output.parent.exists()


def test_unknown_backend_precision_and_bundle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    for args, message in (
        (["--backend", "abacus"], "Unknown backend 'abacus'"),
        (["--precision", "int4"], "Unknown precision 'int4'"),
        (["--backend", "tflite"], "holds no tflite"),
        (["--model", "gone"], "No bundle at 'gone'"),
    ):
        assert command(monkeypatch, "run", "--model", bundle, *args) == 2
        assert message in one_message(capsys)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "rtsp://u:hunter22@h/x"], "'rtsp://***@h/x' is a source, and CONFIG a TOML file"),
        (["run", "Clip.MP4"], "Name it with --source"),
        (["profile", "rtsp://u:hunter22@h/x"], "No bundle at 'rtsp://***@h/x'"),
    ],
)
def test_a_source_in_another_place_is_told_and_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert command(monkeypatch, *args) == 2
    told = one_message(capsys)
    assert message in told
    assert "hunter22" not in told


def test_changed_bundle_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle: Path
) -> None:
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = bytearray((bundle / "model.fp32.onnx").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.fp32.onnx").write_bytes(content)
    assert command(monkeypatch, "run", "--model", tmp_path) == 1
    assert "was changed" in one_message(capsys)


@pytest.mark.parametrize("option", ["--jsonl", "--video", "--latency"])
def test_output_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    clip: Path,
    option: str,
) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "out.mp4"
    code = command(
        monkeypatch, "run", "--source", clip, "--model", bundle, "--lossless", "--quiet", option, target
    )
    assert code == 2
    assert "Cannot write" in one_message(capsys)


def test_profile_prints_both_tables_and_writes_them(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    clip: Path,
) -> None:
    report_file = tmp_path / "profile.json"
    code = command(
        monkeypatch, "profile", bundle, "--source", clip, "--frames", 20, "--json", report_file
    )  # fmt: skip
    assert code == 0
    report = json.loads(report_file.read_text())
    assert report["n"] == report["streaming"]["n"] == report["settings"]["frames"] == 20
    cost = report["streaming"]
    assert cost["ratio"] == pytest.approx(cost["fps"] / cost["bound_fps"], abs=1e-3)
    printed = capsys.readouterr().out
    assert "Latency by stage" in printed
    assert "bound on" in printed


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red marker that walks to the right, a cell of the detector's input every ten frames."""
    path = tmp_path_factory.mktemp("clips") / "walk.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "bgr0"
        for index in range(30):
            pixels = np.full((480, 640, 3), 90, np.uint8)
            left = 160 + 80 * (index // 10)
            pixels[160:240, left : left + 80] = (255, 0, 0)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_run_takes_several_models(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    faces_bundle: Path,
    walk: Path,
) -> None:
    results, video, latency = (tmp_path / name for name in ("r.jsonl", "out.mp4", "latency.json"))
    code = command(
        monkeypatch, "run", "--source", walk, "--model", faces_bundle, "--model", bundle, "--lossless",
        "--score-threshold", 0.6, "--jsonl", results, "--video", video, "--latency", latency,
    )  # fmt: skip
    assert code == 0
    found = [line["models"] for line in lines(results)]
    assert [len(models["markers"]["faces"]) for models in found] == [1] * 30
    assert [models["markers"]["faces"][0].get("track") for models in found] == [None, *[1] * 29]
    assert {models["mean-colour"]["label"] for models in found} == {"red"}
    report = json.loads(latency.read_text())
    assert [model["model"] for model in report["settings"]["models"]] == ["markers", "mean-colour"]
    assert report["settings"]["score_threshold"] == 0.6
    assert set(report["models_ms"]) == {"markers", "mean-colour"}
    printed = capsys.readouterr().out
    assert "markers + mean-colour  onnx fp32 on" in printed
    assert len([line for line in printed.splitlines() if line.startswith("│   markers")]) == 3
    with av.open(str(video)) as container:
        assert len(list(container.decode(video=0))) == 30


CROPS = """
source = "{walk}"
lossless = true
[[models]]
bundle = "{faces}"
score_threshold = 0.9
[[models]]
bundle = "{classifier}"
name = "skin"
input = "faces"
[sinks]
jsonl = "{results}"
"""


def test_a_config_sends_faces_to_a_classifier(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path, faces_bundle: Path, walk: Path
) -> None:
    config, results = tmp_path / "stream.toml", tmp_path / "results.jsonl"
    config.write_text(CROPS.format(walk=walk, faces=faces_bundle, classifier=bundle, results=results))
    assert command(monkeypatch, "run", config, "--quiet") == 0
    first = lines(results)[0]
    assert first["model"] == "markers"
    (face,) = first["faces"]
    assert face["box"] == pytest.approx([80, 80, 320, 320], abs=0.1)
    assert face["classes"]["skin"]["label"] == "red"
    report = tmp_path / "profile.json"
    assert command(monkeypatch, "profile", config, "--frames", 10, "--json", report) == 0
    assert set(json.loads(report.read_text())["models_ms"]) == {"markers", "skin"}


def test_a_config_that_wants_faces_of_nobody(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Path,
    walk: Path,
) -> None:
    config = tmp_path / "stream.toml"
    config.write_text(f'source = "{walk}"\n[[models]]\nbundle = "{bundle}"\ninput = "faces"\n')
    assert command(monkeypatch, "run", config) == 2
    assert "no detector stands before it" in one_message(capsys)


def test_faces_of_pictures_have_no_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faces_bundle: Path
) -> None:
    picture = np.full((480, 640, 3), 90, np.uint8)
    picture[160:240, 160:240] = (0, 0, 255)
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), picture)
    results = tmp_path / "results.jsonl"
    args = ("--source", tmp_path, "--model", faces_bundle, "--jsonl", results, "--quiet")
    assert command(monkeypatch, "run", *args) == 0
    assert [set(line["faces"][0]) for line in lines(results)] == [{"box", "score"}] * 3


def test_profile_of_several_bundles_and_of_a_mixture(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    faces_bundle: Path,
    walk: Path,
) -> None:
    assert command(monkeypatch, "profile", faces_bundle, bundle, "--source", walk, "--frames", 10) == 0
    assert "  mean-colour" in capsys.readouterr().out
    assert command(monkeypatch, "profile", bundle, "stream.toml") == 2
    assert "one config or some bundles, got both" in one_message(capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_stream_with_0_and_complete_files(
    tmp_path: Path, bundle: Path, number: signal.Signals
) -> None:
    results, video = tmp_path / "results.jsonl", tmp_path / "demo.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", "run", "--source", "demo://?width=160&height=90", "--model", bundle,
         "--jsonl", results, "--video", video],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup ignores in all of its children
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().startswith("frame "):
        assert process.poll() is None, process.communicate()
    time.sleep(0.5)
    assert not results.exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert len(lines(results)) > 0
    with av.open(str(video)) as container:
        assert len(list(container.decode(video=0))) > 0
    assert sorted(tmp_path.iterdir()) == [video, results]


def test_closing_the_terminal_ends_the_stream_with_0_and_complete_files(tmp_path: Path, bundle: Path) -> None:
    results = tmp_path / "results.jsonl"
    process, terminal = in_a_terminal(
        "run", "--source", "demo://?width=160&height=90", "--model", bundle, "--jsonl", results
    )
    until_shown(terminal, "age p50")
    os.close(terminal)
    assert process.wait(30) == 0
    assert len(lines(results)) > 0
