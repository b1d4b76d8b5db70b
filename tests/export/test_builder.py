"""The builder's child process: with NVIDIA's real builder, and with children that crash, hang and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from export import builder
from export.build_child import NICENESS
from export.builder import BuilderCrashed, build_apart
from export.tensorrt import PlanError, Tensor

pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
pytest.importorskip("onnx")

PIXELS = Tensor("pixels", "uint8", (1, 4, 4, 3))


@pytest.fixture(scope="module")
def model() -> bytes:
    """A Cast and a convolution: built in a tenth of a second."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 4, 4, 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 2, 2])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(made.SerializeToString())


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let the builder run a script instead; `folder` is its folder, `main` the real child."""
    start = (
        f"import os, signal, sys, time; sys.path[0] = {builder.ROOT!r}; from pathlib import Path\n"
        "from export import build_child; from export.build_child import main; folder = Path(sys.argv[1])\n"
    )
    monkeypatch.setattr(builder, "COMMAND", (sys.executable, "-c", start + script))


def test_the_child_builds_what_the_parent_would_and_tells_how_far_it_is(model: bytes, tmp_path: Path) -> None:
    steps: list[tuple[Any, ...]] = []
    plan = build_apart(model, tmp_path / "timings", lambda *step: steps.append(step) or True)
    assert plan.content[:4] == b"vtrt"
    assert plan.inputs == (PIXELS,)
    assert plan.outputs == (Tensor("y", "float32", (1, 2, 2, 2)),)
    assert plan.build_seconds > 0
    assert {phase for phase, _, _, _ in steps} >= {"Building engine"}
    assert steps[-1][3] > 0.8
    assert list(tmp_path.iterdir()) == []


def test_the_child_gives_way_to_whatever_else_runs(model: bytes, tmp_path: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.is_file():
        pytest.skip("this kernel does not tell a process's children")
    seen = set()

    def on_step(*_: Any) -> bool:
        for pid in children.read_text().split():
            seen.add(os.getpriority(os.PRIO_PROCESS, int(pid)))
        return True

    build_apart(model, tmp_path / "timings", on_step)
    assert min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS) in seen


def test_what_the_parser_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="must have at least one output"):
        build_apart(b"", tmp_path / "timings")


def test_a_library_that_prints_does_not_disturb(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = "real = build_child.build_plan\n"
    child(
        monkeypatch,
        real
        + "build_child.build_plan = lambda *a, **k: (os.write(1, b'hello'), real(*a, **k))[1]\nmain(folder)",
    )
    assert build_apart(model, tmp_path / "timings").inputs == (PIXELS,)


def test_the_full_edition_keeps_its_measurements(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(
        monkeypatch,
        "import tensorrt_rtx, warnings; from edge.runners.plans import Toolkit; warnings.simplefilter('ignore')\n"
        "build_child.find_toolkit = lambda: Toolkit(tensorrt_rtx, 'tensorrt', '10.3.0')\n"
        "main(folder)",
    )
    build_apart(model, tmp_path / "timings")
    assert (tmp_path / "timings").stat().st_size > 0


def test_measurements_that_crash_the_builder_are_dropped(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timings").write_bytes(b"of another age")
    child(monkeypatch, "(folder / 'timings.cache').exists() and os.abort()\nmain(folder)")
    assert build_apart(model, tmp_path / "timings").inputs == (PIXELS,)
    child(monkeypatch, "assert (folder / 'timings.cache').read_bytes() == b'of another age'\nmain(folder)")
    assert build_apart(model, tmp_path / "timings").inputs == (PIXELS,)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('last words', file=sys.stderr); sys.exit(3)", r"exit code 3.*last words$"),
        ("sys.stderr.flush(); os.kill(os.getpid(), signal.SIGSEGV)", r"signal SIGSEGV.*it said nothing$"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "want of memory"),
        ('print(\'{"step": ["a", 1, 2, 0.5]}\')', "exit code 0"),
    ],
)
def test_a_builder_that_crashes_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    child(monkeypatch, script)
    with pytest.raises(BuilderCrashed, match=message):
        build_apart(b"", tmp_path / "timings")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "script", ["time.sleep(60)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"]
)
def test_a_builder_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(builder, "GRACE_S", 0.2)
    ready = tmp_path / "ready"
    child(monkeypatch, script.replace("time.sleep", f"open({str(ready)!r}, 'w')\ntime.sleep"))
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        builder.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0]
    )
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_apart(b"", tmp_path / "timings", None, ready.exists)
    assert time.monotonic() - begin < 30
    assert started[0].returncode in (-signal.SIGTERM, -signal.SIGKILL)


def test_a_step_that_is_refused_ends_the_build(model: bytes, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_apart(model, tmp_path / "timings", lambda *_: False)


def test_a_child_that_nobody_listens_to_stops(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model)
    reading, writing = os.pipe()
    os.close(reading)
    orphan = subprocess.Popen([*builder.COMMAND, str(tmp_path)], stdout=writing, stderr=subprocess.DEVNULL)
    os.close(writing)
    orphan.wait(60)
    assert not (tmp_path / "plan").exists()
