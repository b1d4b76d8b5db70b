"""docs/web.md promises what there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from web_stage import Still, camera, snapshot

from edge.web.app import make_app
from edge.web.gate import PUBLIC
from edge.web.live import LiveSink
from edge.web.metrics import Exposition
from edge.web.settings import WebSettings
from edge.web.state import Snapshots

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = (Path(__file__).parents[3] / "docs" / "web.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_every_configuration_is_valid(block: str) -> None:
    assert WebSettings.model_validate(tomllib.loads(block)["web"])


def test_every_setting_stands_there_with_its_default() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+) \| ([^|]+) \|", TEXT, re.MULTILINE)
    defaults = {name: told.strip(" `") for cell, told in rows for name in re.findall(r"`([a-z_]+)`", cell)}
    for name, field in WebSettings.model_fields.items():
        value = field.default
        shown = (
            "none"
            if value in (None, ())
            else f"{value:g}"
            if isinstance(value, float)
            else str(value).lower()
        )
        assert defaults.get(name) == shown, name


def test_every_route_and_metric_stands_there() -> None:
    for route in make_app(Still(), LiveSink(), WebSettings()).routes:
        path = route.path.replace("{camera}", "NAME")
        assert path in TEXT or path.removeprefix("/api/v1/") in TEXT, path
    state = Still(
        snapshot("door", cameras=[camera("door", dropped_for={"newer": 1})], sinks=[{"name": "page"}])
    )
    exposed = Exposition(Snapshots(state), LiveSink()).text().decode()
    samples = {sample.name for family in text_string_to_metric_families(exposed) for sample in family.samples}
    told = set(re.findall(r"`(sightline_\w+)`", TEXT))
    assert told == {name for name in samples if name.startswith("sightline_")}


def test_what_needs_no_secret_is_told() -> None:
    rows = [row.strip("| ").split(" | ") for row in TEXT.splitlines() if row.startswith("| `/")]
    told = {path.strip("` ") for path, _, open_ in rows if open_.strip() == "yes"} | {"/login"}
    assert told == PUBLIC
