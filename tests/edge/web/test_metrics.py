"""/metrics: what Prometheus reads is what the state says, in a bounded number of series."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from web_stage import Still, camera, snapshot

from edge.frame import Frame
from edge.results import FrameResult
from edge.web.live import LiveSink
from edge.web.metrics import MOST_CAMERAS, MOST_MODELS, Exposition
from edge.web.state import Snapshots

MANY = 60


def text_of(content: dict[str, Any]) -> str:
    return Exposition(Snapshots(Still(content)), LiveSink()).text().decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_is_there_in_base_units() -> None:
    content = snapshot(
        cameras=[
            camera("door", dropped_for={"newer": 7, "stale": 2}),
            camera("yard", state="lost", age_ms=None),
        ],
        sinks=[
            {"name": "mqtt", "lost": 3, "last_error": ""},
            {"name": "events", "lost": 0, "last_error": "the disk is full"},
        ],
    )
    content["latency"]["door"] = snapshot("door")["latency"]["door"]
    found = samples(text_of(content))
    door, yard = (("camera", "door"),), (("camera", "yard"),)
    assert found["sightline_uptime_seconds", ()] == 60
    assert found["sightline_ready", ()] == 1
    assert found["sightline_frames_captured_total", door] == 300
    assert found["sightline_frames_processed_total", door] == 290
    assert found["sightline_frames_dropped_total", door] == 9
    assert found["sightline_frames_dropped_for_total", (*door, ("reason", "stale"))] == 2
    assert found["sightline_frames_lost_before_total", door] == 4
    assert found["sightline_camera_reconnects_total", door] == 1
    assert (found["sightline_camera_up", door], found["sightline_camera_up", yard]) == (1, 0)
    assert found["sightline_frame_age_seconds", door] == pytest.approx(0.0215)
    assert ("sightline_frame_age_seconds", yard) not in found
    assert found["sightline_camera_state_seconds", door] == 12.5
    assert found["sightline_camera_results_per_second", door] == 29.9
    assert found["sightline_stage_seconds", (*door, ("quantile", "0.99"), ("stage", "age"))] == 0.004
    assert ("sightline_stage_seconds", (*door, ("quantile", "0.999"), ("stage", "age"))) not in found
    part = (*door, ("model", "face"), ("quantile", "1"), ("stage", "infer"))
    assert found["sightline_model_stage_seconds", part] == 0.008
    kind = (("backend", "tflite"), ("model", "face"), ("precision", "int8"))
    assert found["sightline_model_info", kind] == 1
    assert found["sightline_sink_lost_total", (("sink", "mqtt"),)] == 3
    assert found["sightline_sink_up", (("sink", "mqtt"),)] == 1
    assert found["sightline_sink_up", (("sink", "events"),)] == 0
    assert found["sightline_series_left_out", ()] == 0


def test_those_who_watch_are_counted_and_the_pictures_that_were_encoded_for_them() -> None:
    live, came = LiveSink(), threading.Event()
    exposition, frame = Exposition(Snapshots(Still()), live), Frame(camera="door")
    frame.buffer(48, 64)[:] = 0
    with live.watch("door", came.set), live.watch("yard", came.set):
        live.write(frame, FrameResult({}))
        assert came.wait(10)
        found = samples(exposition.text().decode())
    live.close()
    assert found["sightline_viewers", ()] == 2
    assert found["sightline_live_pictures_total", ()] == 1


def test_help_does_not_give_one_reason_for_all_dropped_frames() -> None:
    text = text_of(snapshot(cameras=[camera("door", dropped_for={"newer": 7, "stale": 2})]))
    help_text = next(
        line for line in text.splitlines() if line.startswith("# HELP sightline_frames_dropped_total")
    )
    assert help_text.endswith("Frames without a result, for whatever reason.")


def test_the_number_of_series_is_bounded_whatever_is_configured() -> None:
    many = [f"camera-{n}" for n in range(MANY)]
    models = [{"name": f"m{n}", "backend": "b", "precision": "p", "refused": []} for n in range(MANY)]
    content = snapshot(*many, models=models)
    figures = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "p99_9": 1.0, "max": 1.0}
    of_one = {"n": 1, "stages": {"age": figures}, "models": {m["name"]: {"infer": figures} for m in models}}
    content["latency"] = dict.fromkeys(many, of_one)
    found = samples(text_of(content))
    of_camera = [labels for _, labels in found if ("camera", "camera-0") in labels]
    quantiles = {dict(labels)["quantile"] for labels in of_camera if "quantile" in dict(labels)}
    assert quantiles == {"0.5", "0.9", "0.99", "0.999", "1"}
    assert {name for labels in of_camera for key, name in labels if key == "model"} == {
        f"m{n}" for n in range(MOST_MODELS)
    }
    assert sum(name == "sightline_model_info" for name, _ in found) == MOST_MODELS
    assert len({dict(labels).get("camera") for _, labels in found} - {None}) == MOST_CAMERAS
    assert found["sightline_series_left_out", ()] == MANY - MOST_CAMERAS + MANY - MOST_MODELS


def test_a_camera_of_the_usual_kind_has_few_series() -> None:
    found = samples(text_of(snapshot("door")))
    assert sum(("camera", "door") in labels for _, labels in found) <= 150


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "ä", "a} 1\nevil 1", "{}"])
def test_no_name_breaks_the_format(name: str) -> None:
    found = samples(text_of(snapshot(name)))
    assert found["sightline_camera_up", (("camera", name),)] == 1
    assert "evil" not in {metric for metric, _ in found}


def test_secrets_do_not_reach_the_metrics() -> None:
    content = snapshot(
        cameras=[camera("door", source="rtsp://me:hunter2@cam", last_error="rtsp://me:hunter2@cam")]
    )
    assert "hunter2" not in text_of(content)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="skipped promtool's check: it is not installed")
def test_promtool_finds_nothing_to_complain_of() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text_of(snapshot("door")), text=True, capture_output=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
