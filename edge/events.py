"""`sightline events`: what a stream wrote into its database of events."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import cast

import click

from edge.sinks.events import read_events
from edge.sinks.happenings import EVENT_KINDS, Event, EventKind

MOST_ROWS = 1_000_000_000
"""More than any database of events holds, and less than SQLite can count to."""


@click.command()
@click.argument("database", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--camera", help="Only of this camera.")
@click.option("--kind", type=click.Choice(EVENT_KINDS), help="Only of this kind.")
@click.option("--label", help="Only of this class.")
@click.option("--hours", type=click.FloatRange(min=0), metavar="H", help="Only of the last so many hours.")
@click.option(
    "--last",
    type=click.IntRange(1, MOST_ROWS),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, in place of a table.")
def events(
    database: Path,
    camera: str | None,
    kind: str | None,
    label: str | None,
    hours: float | None,
    last: int,
    as_json: bool,
) -> None:
    """Print the newest events of DATABASE, the oldest of them first; also while a stream writes it."""
    since_s = time.time() - hours * 3600 if hours is not None else 0.0
    found = read_events(database, camera, cast("EventKind | None", kind), label, since_s, last)[::-1]
    if as_json:
        for event in found:
            click.echo(json.dumps(event.as_record()))
    else:
        _print_table(found)


def _print_table(found: list[Event]) -> None:
    from rich.table import Table

    from edge.console import open_console

    table = Table("time", "camera", "event", "what", "score", "seconds", box=None)
    for event in found:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at_s))
        what = " ".join(filter(None, [event.label, f"#{event.track}" if event.track else ""]))
        seconds = f"{event.seconds:.1f}" if event.began else ""
        table.add_row(at, event.camera, event.kind, what, f"{event.score:.2f}", seconds)
    open_console().print(table)
