"""`sightline build`, with NVIDIA's builder in its child process."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_onnx import make_bundle, make_onnx

import export.build
import export.tensorrt
from edge.bundle import Bundle
from edge.errors import BundleChanged, InputError
from edge.runners.cuda import Device, NoGpu
from edge.runners.plans import Identity, Toolkit, plan_path, read_plan, unpacked
from export.build import build, build_into
from export.builder import build_apart
from export.tensorrt import PlanError

trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
pytest.importorskip("onnx")

RTX = Toolkit(trt, "tensorrt_rtx", trt.__version__)
ORIN = Device("Orin", "8.7")


def _no_gpu() -> Device:
    raise NoGpu("no GPU here")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.tensorrt, "probe", _no_gpu)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with its plan, which took the builder a second or two; tests get copies."""
    bundle = make_bundle(tmp_path_factory.mktemp("built") / "tiny", make_onnx("int8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.tensorrt, "probe", _no_gpu)
        build_into(bundle, "int8", RTX, None)
    return bundle.folder


@pytest.fixture
def built(built_once: Path, tmp_path: Path, no_gpu: None) -> tuple[Bundle, Path]:
    """The bundle and its plan, built on this machine without a GPU."""
    bundle = Bundle.open(shutil.copytree(built_once, tmp_path / "tiny"))
    return bundle, plan_path(bundle, bundle.artefact("onnx", "int8"), RTX, None)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_build_writes_a_plan_with_its_header(tmp_path: Path, no_gpu: None) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    result = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "but not run" in result.output
    artefact = bundle.artefact("onnx", "int8")
    path = plan_path(bundle, artefact, RTX, None)
    header, plan = unpacked(path.read_bytes())
    assert plan[:4] == b"vtrt"
    assert header.plan_sha256 == hashlib.sha256(plan).hexdigest()
    assert header.identity == Identity(
        onnx_sha256=artefact.sha256,
        precision="int8",
        flavour="tensorrt_rtx",
        version=trt.__version__,
        gpu="no GPU",
        compute_capability="",
        dla="none",
        jetpack="",
    )
    assert 0 < header.build_seconds < 60
    assert files(bundle.folder / "plans") == {path.name}
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_plan_that_fits_is_kept_unless_another_is_asked_for(built: tuple[Bundle, Path]) -> None:
    bundle, path = built
    before = path.stat().st_mtime_ns
    kept = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False)
    assert (kept.exit_code, path.stat().st_mtime_ns) == (0, before)
    assert "fits this device and this bundle already" in kept.output
    again = CliRunner().invoke(build, [str(bundle.folder), "--rebuild"], catch_exceptions=False)
    assert (again.exit_code, path.stat().st_mtime_ns > before) == (0, True)
    assert "The last build took" in again.output


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-9], "its bytes are not those that were built"),
        (lambda content: content[20:], "its header cannot be read"),
        (lambda content: content.replace(b'"no GPU"', b'"Xavier"', 1), "the GPU Xavier, not no GPU"),
    ],
)
def test_a_plan_that_does_not_fit_is_named_and_built_anew(
    built: tuple[Bundle, Path], damage: Any, reason: str
) -> None:
    bundle, path = built
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))
    result = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False)
    assert result.exit_code == 0
    assert reason in result.output
    assert read_plan(bundle, "int8", RTX, None)[:4] == b"vtrt"


def test_a_plan_of_another_tensorrt_is_named_and_left_alone(tmp_path: Path, no_gpu: None) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    older, _ = build_into(bundle, "int8", Toolkit(trt, "tensorrt_rtx", "1.6.0"), None)
    output = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False).output
    assert f"There is one for TensorRT 1.6.0, not {trt.__version__}." in output
    assert len(files(bundle.folder / "plans")) == 2
    assert older.is_file()


def test_build_says_nothing_of_a_missing_gpu_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.tensorrt, "probe", lambda: ORIN)
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    output = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False).output
    assert "Orin (compute capability 8.7)" in output
    assert "not run" not in output
    assert plan_path(bundle, bundle.artefact("onnx", "int8"), RTX, ORIN).is_file()


def test_a_changed_onnx_file_reaches_no_parser(tmp_path: Path, no_gpu: None) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    (bundle.folder / "model.int8.onnx").write_bytes(make_onnx("fp16"))
    with pytest.raises(BundleChanged):
        build_into(bundle, "int8", RTX, None)
    assert "plans" not in files(bundle.folder)


def test_a_refused_model_leaves_nothing_behind(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8")[:500])
    with pytest.raises(PlanError):
        build_into(bundle, "int8", RTX, None)
    assert "plans" not in files(bundle.folder)


def test_a_folder_that_cannot_be_written_shows_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    (bundle.folder / "plans").write_text("a file where the folder should be")
    monkeypatch.setattr(export.build, "build_apart", lambda *_: pytest.fail("built for nothing"))
    with pytest.raises(InputError, match=r"Cannot write .*plans"):
        build_into(bundle, "int8", RTX, None)


def test_ctrl_c_stops_the_build_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return build_apart(*arguments)

    monkeypatch.setattr(export.build, "build_apart", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_into(bundle, "int8", RTX, None)
    assert "plans" not in files(bundle.folder)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_no_builder_behind(tmp_path: Path, sent: signal.Signals) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    pid = tmp_path / "pid"
    hanging = (
        f"import os, time; from pathlib import Path; import export.build_child as c\n"
        f"c.build_plan = lambda *_, **__: (Path({str(pid)!r}).write_text(str(os.getpid())), time.sleep(60))\n"
    )
    script = (
        "import sys; from export import build, builder, tensorrt; from edge.runners.cuda import NoGpu\n"
        "def probe(): raise NoGpu('no GPU here')\n"
        "tensorrt.probe = probe\n"
        f"start, end = builder.COMMAND[-1].rsplit('from export', 1)\n"
        f"builder.COMMAND = (*builder.COMMAND[:-1], start + '\\n' + {hanging!r} + 'from export' + end)\n"
        f"build.build([{str(bundle.folder)!r}])"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stderr=subprocess.DEVNULL) as child:
        wait_for(lambda: pid.exists() and pid.read_text() != "")
        builder_pid = int(pid.read_text())
        child.send_signal(sent)
        child.wait(30)
    wait_for(lambda: not running(builder_pid))
    if sent == signal.SIGTERM:
        assert "plans" not in files(bundle.folder)


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; a minute at most."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it never came to that")


def running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
