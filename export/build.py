"""`sightline build`: the TensorRT plan of a bundle, for this very device."""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import click

from edge.bundle import PRECISIONS, Artefact, Bundle, Precision
from edge.files import whole_file
from edge.interrupt import interrupt_noted
from edge.runners.cuda import Device
from edge.runners.plans import (
    Identity,
    NoPlan,
    PlanHeader,
    PlanUnusable,
    Toolkit,
    find_toolkit,
    headers,
    packed,
    plan_path,
    read_plan,
)
from export.builder import build_apart
from export.progress import in_words, remaining_s
from export.tensorrt import OnStep, Plan, device_to_build_for


@click.command()
@click.argument("bundle")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="int8", show_default=True, help="Of the ONNX file."
)
@click.option("--rebuild", is_flag=True, help="Build it even where one that fits is there.")
def build(bundle: str, precision: Precision, rebuild: bool) -> None:
    """Build the TensorRT plan of BUNDLE for this very device.

    The first build on a Jetson takes minutes, since it measures kernels; later ones reuse the
    measurements. The plan goes to BUNDLE/plans and serves `--backend tensorrt`. One that is there and
    fits is kept; one that is damaged, or was built by another TensorRT or for another GPU, is named.
    """
    opened = Bundle.open(bundle)
    toolkit = find_toolkit()
    device = device_to_build_for(toolkit)
    if not rebuild and _fits(opened, precision, toolkit, device):
        return
    where = device or "no GPU: ahead of time"
    click.echo(f"Building the {precision} plan with {toolkit}, {where}. {_how_long(opened, precision)}")
    with _terminated_kindly():
        path, plan = build_into(opened, precision, toolkit, device)
    weights = f", weights {plan.weights_bytes / 1e6:.2f} MB" if plan.weights_bytes else ""
    click.echo(f"{path}: {len(plan.content) / 1e6:.2f} MB{weights}, built in {plan.build_seconds:.1f} s.")
    if device is None:
        click.echo("This machine has no GPU that can run it, so the plan was built, but not run.")


def build_into(
    bundle: Bundle, precision: Precision, toolkit: Toolkit, device: Device | None
) -> tuple[Path, Plan]:
    """Build a bundle's plan in a child process and write it with its header; the plan's path and content.

    Raises:
        InputError: no such ONNX artefact, one that TensorRT refuses, a builder that crashes, or a folder
            that is read-only.
        BundleChanged: the ONNX file is not the one that was packed.
        KeyboardInterrupt: it was stopped; nothing was written.
    """
    artefact = bundle.artefact("onnx", precision)
    onnx = bundle.content(artefact)
    path = plan_path(bundle, artefact, toolkit, device)
    timings = path.parent / f"timings.{toolkit.version}.cache"
    try:
        # Opened before the build: a folder that is read-only shows now, not after minutes.
        with whole_file(path) as temporary:
            with _progress(_last_s(bundle, precision)) as (on_step, stopped):
                plan = build_apart(onnx, timings, on_step, stopped)
            header = _header(artefact, toolkit, device, plan)
            temporary.write_bytes(packed(header, plan.content))
    finally:
        with suppress(OSError):
            path.parent.rmdir()
    return path, plan


@contextmanager
def _terminated_kindly() -> Iterator[None]:
    """SIGTERM, by which a daemon ends a build that it started, is as Ctrl-C: nothing is left behind."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fits(bundle: Bundle, precision: Precision, toolkit: Toolkit, device: Device | None) -> bool:
    """Whether a plan that could be loaded is there; says so, or why the one that is there could not."""
    try:
        read_plan(bundle, precision, toolkit, device)
    except (NoPlan, PlanUnusable) as error:
        if headers(bundle, precision) or isinstance(error, PlanUnusable):
            click.echo(error.reason)
        return False
    path = plan_path(bundle, bundle.artefact("onnx", precision), toolkit, device)
    click.echo(f"{path} fits this device and this bundle already; --rebuild builds it anew.")
    return True


def _header(artefact: Artefact, toolkit: Toolkit, device: Device | None, plan: Plan) -> PlanHeader:
    return PlanHeader(
        **Identity.here(artefact, toolkit, device).model_dump(),
        plan_sha256=hashlib.sha256(plan.content).hexdigest(),
        build_seconds=round(plan.build_seconds, 3),
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _last_s(bundle: Bundle, precision: Precision) -> float | None:
    """What the newest plan's build took, in seconds: the best guess for this one."""
    return next((header.build_seconds for header in headers(bundle, precision)), None)


def _how_long(bundle: Bundle, precision: Precision) -> str:
    last_s = _last_s(bundle, precision)
    return "The first build may take minutes." if last_s is None else f"The last build took {last_s:.1f} s."


@contextmanager
def _progress(last_s: float | None) -> Iterator[tuple[OnStep, Callable[[], bool]]]:
    """Show phase, share and time left; Ctrl-C stops the build."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edge.console import open_console

    columns = TimeElapsedColumn(), BarColumn(), TextColumn("{task.description}")
    begin = time.monotonic()
    with (
        Progress(*columns, console=open_console(stderr=True), transient=True) as shown,
        interrupt_noted() as stopped,
    ):
        task = shown.add_task("Starting NVIDIA's builder", total=1.0)

        def on_step(phase: str, done: int, of: int, share: float) -> bool:
            left = in_words(remaining_s(time.monotonic() - begin, share, last_s))
            shown.update(task, completed=share, description=f"{left}: {phase} {done}/{of}")
            return not stopped.is_set()

        yield on_step, stopped.is_set
