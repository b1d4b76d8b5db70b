"""`sightline build`: the TensorRT plan of a bundle, for this very device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import click

from edge.bundle import PRECISIONS, Artefact, Bundle, Precision
from edge.files import whole_file, write_text
from edge.runners.cuda import Device
from edge.runners.plans import NO_DEVICE, PlanCard, Toolkit, find_toolkit, plan_path
from export.interrupt import interrupt_noted
from export.tensorrt import OnStep, Plan, build_plan, device_to_build_for


@click.command()
@click.argument("bundle")
@click.option("--precision", type=click.Choice(PRECISIONS), default="int8", show_default=True)
def build(bundle: str, precision: Precision) -> None:
    """Build the TensorRT plan of BUNDLE for this very device.

    The first build on a Jetson takes minutes, since it measures kernels; later ones reuse the
    measurements. The plan goes to BUNDLE/plans and serves `--backend tensorrt`.
    """
    opened = Bundle.open(bundle)
    toolkit = find_toolkit()
    device = device_to_build_for(toolkit)
    where = device or "no GPU: ahead of time"
    click.echo(f"Building the {precision} plan with {toolkit}, {where}. The first build may take minutes.")
    path, plan = build_into(opened, precision, toolkit, device)
    weights = f", weights {plan.weights_bytes / 1e6:.2f} MB" if plan.weights_bytes else ""
    click.echo(f"{path}: {len(plan.content) / 1e6:.2f} MB{weights}, built in {plan.build_seconds:.1f} s.")
    if device is None:
        click.echo("This machine has no GPU that can run it, so the plan was built, but not run.")


def build_into(
    bundle: Bundle, precision: Precision, toolkit: Toolkit, device: Device | None
) -> tuple[Path, Plan]:
    """Build and write a bundle's plan and its card; the plan's path and content.

    Raises:
        InputError: no such ONNX artefact, one that TensorRT refuses, or a folder that is read-only.
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
            with _progress() as on_step:
                plan = build_plan(onnx, toolkit, timing_cache=timings, on_step=on_step)
            temporary.write_bytes(plan.content)
        write_text(
            path.with_suffix(".json"), _card(artefact, toolkit, device, plan).model_dump_json(indent=2)
        )
    finally:
        with suppress(OSError):
            path.parent.rmdir()
    return path, plan


def _card(artefact: Artefact, toolkit: Toolkit, device: Device | None, plan: Plan) -> PlanCard:
    return PlanCard(
        onnx_sha256=artefact.sha256,
        plan_sha256=hashlib.sha256(plan.content).hexdigest(),
        flavour=toolkit.flavour,
        version=toolkit.version,
        device=str(device or NO_DEVICE),
        build_seconds=round(plan.build_seconds, 3),
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


@contextmanager
def _progress() -> Iterator[OnStep]:
    """Show the builder's phase and the time elapsed; Ctrl-C stops the build at its next step."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as shown,
        interrupt_noted() as stopped,
    ):
        task = shown.add_task("Building", total=None)

        def on_step(phase: str, done: int, of: int) -> bool:
            shown.update(task, description=f"{phase} {done}/{of}")
            return not stopped.is_set()

        yield on_step
