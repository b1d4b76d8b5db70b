"""Which backend serves, why others do not, and the change to a better one that is built meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemon_stage import Camera, Collector, cameras

from edge.backends import ORDER, candidates, serve
from edge.bundle import SHIPPED, Bundle
from edge.config import ModelTable, StreamSettings
from edge.daemon import Daemon
from edge.errors import CheckFailed, InputError
from edge.frame import Frame
from edge.upgrade import Job, Switch, Upgrade, Upgrader, missing_plan

NAME = "cifar10-convnetjs"
SLEEP = (sys.executable, "-c", "import sys, time; time.sleep(float(sys.argv[1]))")


def tampered(folder: Path, *keys: str) -> Bundle:
    """A copy of a shipped bundle whose golden outputs of these artefacts are others."""
    shutil.copytree(SHIPPED / NAME, folder)
    with np.load(folder / "golden.npz") as arrays:
        vectors = {name: a + 1000 * name.startswith(keys) for name, a in arrays.items()}
    np.savez(folder / "golden.npz", **vectors)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden"]["sha256"] = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


def test_every_backend_is_tried_in_order_and_the_refused_ones_say_why() -> None:
    serving = serve(Bundle.open(NAME))
    serving.runner.close()
    refused = {refusal.backend: refusal.reason for refusal in serving.refused}
    assert list(refused) == list(ORDER[: ORDER.index(serving.backend)])
    assert all(refused.values())
    if serving.backend == "tflite":
        assert "GPU" in refused["tensorrt"]
        assert "GPU" in refused["onnx-cuda"]
    assert serving.golden_steps <= 3


def test_backend_that_computes_something_else_is_passed_over_and_named(tmp_path: Path) -> None:
    serving = serve(tampered(tmp_path / "b", "tflite."))
    serving.runner.close()
    assert serving.backend == "onnx"
    assert str(serving.refused[-1]).startswith("tflite int8: Golden vectors: tflite int8 differs by")


def test_model_whose_every_backend_is_wrong_is_refused_by_name(tmp_path: Path) -> None:
    bundle = tampered(tmp_path / "b", "tflite.", "onnx.")
    with pytest.raises(CheckFailed, match=f"model {NAME} .* runs on no backend here") as raised:
        serve(bundle)
    assert "  tflite int8: Golden" in str(raised.value)
    assert "  onnx int8: Golden" in str(raised.value)


def test_only_the_backend_that_was_asked_for_is_tried(faces_bundle: Path) -> None:
    serving = serve(Bundle.open(NAME), "onnx", "fp16")
    serving.runner.close()
    assert (serving.backend, serving.precision, serving.refused) == ("onnx", "fp16", ())
    with pytest.raises(InputError, match="the bundle holds no tflite artefact of fp16"):
        serve(Bundle.open(NAME), "tflite", "fp16")
    with pytest.raises(InputError, match="Unknown backend 'abacus'"):
        serve(Bundle.open(NAME), "abacus")
    with pytest.raises(InputError, match="holds no golden vectors"):
        serve(Bundle.open(faces_bundle))


def test_cuda_prefers_halves() -> None:
    wanted = dict(candidates(Bundle.open(NAME)))
    assert wanted == {"tensorrt": "int8", "onnx-cuda": "fp16", "tflite": "int8", "onnx": "int8"}


def ended(upgrader: Upgrader, woken: threading.Event) -> Switch:
    assert woken.wait(20)
    switch = upgrader.take()
    assert switch is not None
    return switch


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('out of memory')", "exit code 1: out of memory"),
        ("import os; os.abort()", "exit code -6"),
    ],
)
def test_builder_that_fails_says_why(code: str, reason: str) -> None:
    woken = threading.Event()
    upgrader = Upgrader(woken.set)
    upgrade = Upgrade("onnx", "int8", (sys.executable, "-c", code))
    upgrader.start(Job("model", Bundle.open(NAME), upgrade))
    switch = ended(upgrader, woken)
    assert switch.runner is None
    assert reason in switch.reason
    upgrader.stop()


def test_no_job_is_missed_that_comes_as_the_last_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upgrader, "_done", lambda self, job: Switch(job, None))
    woken, bundle, interval_s = threading.Event(), Bundle.open(NAME), sys.getswitchinterval()
    upgrader = Upgrader(woken.set)
    sys.setswitchinterval(1e-6)
    try:
        for number in range(3000):
            job = Job(str(number), bundle, Upgrade("onnx", "int8", ()))
            upgrader.start(job)
            assert ended(upgrader, woken).job is job
            woken.clear()
    finally:
        sys.setswitchinterval(interval_s)
        upgrader.stop()


@pytest.fixture
def preferred() -> Iterator[None]:
    """This process runs before others, as a service with Nice=-5 does; where that is not allowed, as it is."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    yield
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, own)


@pytest.mark.usefixtures("preferred")
def test_builder_runs_with_the_lowest_priority_and_ends_with_us(tmp_path: Path) -> None:
    code = "import os, time; open('{}', 'w').write(f'{{os.getpid()}} {{os.nice(0)}}'); time.sleep(60)"
    code = code.replace("{}", str(tmp_path / "pid")).replace("{{", "{").replace("}}", "}")
    upgrader = Upgrader()
    upgrader.start(Job("model", Bundle.open(NAME), Upgrade("onnx", "int8", (sys.executable, "-c", code))))
    end_s = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end_s
        time.sleep(0.02)
    pid, nice = map(int, (tmp_path / "pid").read_text().split())
    begin_s = time.monotonic()
    upgrader.stop()
    assert time.monotonic() - begin_s < 1.5
    assert nice == 19
    assert not Path(f"/proc/{pid}").exists()


def test_what_was_built_is_proven_before_it_serves(tmp_path: Path) -> None:
    woken = threading.Event()
    upgrader = Upgrader(woken.set)
    upgrade = Upgrade("onnx", "int8", (*SLEEP, "0"))
    upgrader.start(Job("model", tampered(tmp_path / "b", "onnx."), upgrade))
    switch = ended(upgrader, woken)
    assert switch.runner is None
    assert "Golden vectors: onnx int8 differs" in switch.reason


def test_no_plan_is_missing_where_none_could_run() -> None:
    """On a machine without a GPU; with one there is a plan to build."""
    upgrade = missing_plan(Bundle.open(NAME))
    assert upgrade is None or upgrade.command[1:4] == ("-m", "sightline", "build")


@pytest.mark.parametrize("build_s", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_serving_begins_at_once_and_the_change_loses_no_frame(build_s: int) -> None:
    """LiteRT serves while something takes its time to build; then ONNX Runtime goes on in its place."""
    sink, backends, begin_s = Collector(), [], time.monotonic()
    settings = StreamSettings(cameras=cameras("door", lossless=True), models=(ModelTable(bundle=NAME),))
    first_s: list[float] = []

    def note(frame: Frame) -> None:
        first_s.append(time.monotonic() - begin_s)
        backends.append(daemon.state.model(NAME).backend)
        if backends.count("onnx") == 20 or first_s[-1] > build_s + 60:
            daemon.stop()

    sink.on_write = note
    daemon = Daemon(
        settings,
        more_sinks=[("collector", sink)],
        find_upgrade=lambda bundle, precision: Upgrade("onnx", "int8", (*SLEEP, str(build_s))),
        make_source=lambda camera, secrets: Camera(fps=40),
    )
    counts = daemon.run()
    assert sink.indices["door"] == list(range(counts.processed)), "the change lost a frame"
    assert set(counts.dropped_for) <= {"ended"}
    assert (backends[0], backends[-1]) == ("tflite", "onnx")
    assert backends == sorted(backends, reverse=True), "it went to and fro"
    assert first_s[0] < build_s, "it waited for the build"
    assert first_s[backends.index("onnx")] > build_s
    facts = daemon.state.model(NAME)
    assert (facts.switches, facts.building, facts.backend) == (1, "", "onnx")
    print(f"first result after {first_s[0]:.2f} s, the change after {len(backends) - 20} frames")


def daemon_of_bundle(folder: Path, sink: Collector) -> Daemon:
    settings = StreamSettings(
        cameras=cameras("a", lossless=True), models=(ModelTable(bundle=str(folder)),), build_plans=False
    )
    source = Camera(fps=50)
    more: list[tuple[str, Any]] = [("collector", sink)]
    return Daemon(
        settings, reread=lambda: settings, more_sinks=more, make_source=lambda camera, secrets: source
    )


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)


def test_bundle_swapped_under_a_running_daemon_serves_on_says_so_and_is_taken_by_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.daemon.STATUS_S", 0.05)
    folder, sink = tmp_path / "model", Collector()
    shutil.copytree(SHIPPED / NAME, folder)
    daemon = daemon_of_bundle(folder, sink)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        until(lambda: len(sink.order) > 3)

        def told() -> tuple[str, bool]:
            (model,) = daemon.state.snapshot()["models"]
            return model["name"], model["changed"]

        assert told() == (NAME, False)
        damaged = folder / "model.int8.tflite"
        damaged.write_bytes(damaged.read_bytes()[:-9] + b"other data")
        until(lambda: told() == (NAME, True))
        daemon.reload()
        until(lambda: daemon.state.snapshot()["reloads"]["refused"] == 1)
        assert "model.int8.tflite" in daemon.state.snapshot()["reloads"]["last_error"]
        assert told() == (NAME, True)
        seen = len(sink.order)
        until(lambda: len(sink.order) > seen + 3)

        shutil.rmtree(folder)
        until(lambda: told() == (NAME, True))
        shutil.copytree(SHIPPED / "cifar10-nano", folder)
        daemon.reload()
        until(lambda: daemon.state.snapshot()["reloads"]["done"] == 1)
        until(lambda: told() == ("cifar10-nano", False))
        seen = len(sink.order)
        until(lambda: len(sink.order) > seen + 3)
    finally:
        daemon.stop()
        thread.join(10)
    assert sink.indices["a"] == list(range(len(sink.indices["a"]))), "a frame was lost"
