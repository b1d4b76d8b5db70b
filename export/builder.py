"""Run NVIDIA's builder in a child process (`export.build_child`) and hear how far it is."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.children import end
from export.build_child import ONNX, PLAN, TIMINGS
from export.tensorrt import OnStep, Plan, PlanError, Tensor

ROOT = str(Path(__file__).parents[1])
COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path[0] = {ROOT!r}; from pathlib import Path; "
    "from export.build_child import main; main(Path(sys.argv[1]))",
)
"""The child: the package that this one is of, whatever lies in the folder that the user is in."""

POLL_S = 0.1
GRACE_S = 2.0
"""What a child that was told to stop gets before it is killed."""


class BuilderCrashed(PlanError):
    """The child ended without a plan and without a reason."""


def build_apart(
    onnx: bytes,
    timings: Path,
    on_step: OnStep | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Plan:
    """Build the engine of an ONNX file's bytes in a child process of low priority.

    A builder that crashes over the measurements of former builds gets a second try without them.

    Args:
        timings: the measurements, read if they are there, and written anew after a build.
        on_step: told how far the build is.
        stopped: asked ten times a second; where it says so the child is ended.

    Raises:
        PlanError: the model was refused. BuilderCrashed: with how the child ended.
        KeyboardInterrupt: it was stopped.
    """
    with tempfile.TemporaryDirectory(prefix="sightline-build-") as temporary:
        folder = Path(temporary)
        (folder / ONNX).write_bytes(onnx)
        if timings.is_file():
            shutil.copyfile(timings, folder / TIMINGS)
        try:
            plan = _run(folder, on_step, stopped)
        except BuilderCrashed:
            if not (folder / TIMINGS).is_file():
                raise
            (folder / TIMINGS).unlink()
            plan = _run(folder, on_step, stopped)
        _keep(folder / TIMINGS, timings)
        return plan


def _run(folder: Path, on_step: OnStep | None, stopped: Callable[[], bool]) -> Plan:
    with open(folder / "stderr", "wb") as stderr, _child(folder, stderr) as child:
        told: dict[str, Any] = {}
        for line in _lines(child):
            if stopped():
                raise KeyboardInterrupt
            if line is not None:
                told = json.loads(line)
            if line is not None and "step" in told and on_step is not None and not on_step(*told["step"]):
                raise KeyboardInterrupt
        code = child.wait()
    if "refused" in told:
        raise PlanError(told["refused"])
    if "plan" not in told:
        raise BuilderCrashed(_how_it_ended(code, folder / "stderr"))
    return _plan(told["plan"], (folder / PLAN).read_bytes())


@contextmanager
def _child(folder: Path, stderr: Any) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C in the terminal is for the parent, which ends the child.
    child = subprocess.Popen(
        [*COMMAND, str(folder)], stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            end(child, GRACE_S)
        if child.stdout is not None:
            child.stdout.close()


def _lines(child: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """The child's lines, and None whenever it was silent for a moment."""
    assert child.stdout is not None  # it was started with a pipe
    source, rest = child.stdout.fileno(), b""
    while True:
        if not select.select([source], [], [], POLL_S)[0]:
            yield None
            continue
        block = os.read(source, 1 << 16)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def _how_it_ended(code: int, stderr: Path) -> str:
    last = (stderr.read_text("utf-8", "replace").strip() or "it said nothing").splitlines()[-1]
    if code == -signal.SIGKILL:
        return (
            "NVIDIA's builder was killed, most likely for want of memory. Close other programs, or add swap "
            f"space, and build again. Its last words: {last}"
        )
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"NVIDIA's builder crashed ({how}); nothing was written. Its last words: {last}"


def _plan(stated: dict[str, Any], content: bytes) -> Plan:
    inputs, outputs = (
        tuple(Tensor(t["name"], t["dtype"], tuple(t["shape"])) for t in stated.pop(side))
        for side in ("inputs", "outputs")
    )
    return Plan(**stated | {"content": content, "inputs": inputs, "outputs": outputs})


def _keep(made: Path, timings: Path) -> None:
    from edge.files import whole_file

    if made.is_file():
        with whole_file(timings) as temporary:
            shutil.copyfile(made, temporary)
