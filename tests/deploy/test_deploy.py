"""What stands in deploy/, checked as far as it goes without a device: each tool where it is installed."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError, metadata
from itertools import combinations
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from edge.errors import DeviceFailed, InputError

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "sightline.service"
RULES = DEPLOY / "prometheus/sightline.rules.yml"
BOARD = json.loads((DEPLOY / "grafana/sightline.json").read_text())
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
EXPOSURE_TENTHS = 21
"""What systemd 252 computes for the unit, times ten; every setting that is left out costs some."""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: what it would check was not checked")
    return path


def unit_settings() -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    here = UNIT.read_text().replace("/opt/sightline/bin/sightline", shutil.which("true") or "/bin/true")
    (tmp_path / UNIT.name).write_text(here)
    done = subprocess.run([analyze, "verify", tmp_path / UNIT.name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_exposure_has_not_grown() -> None:
    command = [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot judge a unit that is not installed (older than 250)")
    assert done.returncode == 0, done.stdout[-200:]


HIDES_DEVICES = (
    "PrivateTmp", "PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock",
    "MemoryDenyWriteExecute", "PrivateUsers", "PrivateNetwork", "ProcSubset",
)  # fmt: skip


@pytest.mark.parametrize("key", HIDES_DEVICES)
def test_what_would_hide_cameras_or_gpu_is_left_out_and_says_why(key: str) -> None:
    assert key not in unit_settings()
    assert re.search(rf"^# .*{key}", UNIT.read_text(), re.MULTILINE)


def test_the_unit_is_watched_and_runs_a_command_that_exists() -> None:
    settings = unit_settings()
    assert settings["Type"] == ["notify"]
    assert settings["NotifyAccess"] == ["main"]
    assert int(settings["WatchdogSec"][0]) > 0
    assert settings["RestartPreventExitStatus"] == [str(InputError.exit_code)]
    assert DeviceFailed.exit_code != InputError.exit_code, "a lost GPU would keep the service down"
    (program, subcommand, config) = shlex.split(settings["ExecStart"][0])
    assert Path(program).name == "sightline"
    import sightline

    assert subcommand in sightline.COMMANDS
    assert Path(config).parent.name == settings["ConfigurationDirectory"][0]


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, its arguments on one line), comments left out."""
    lines = [line for line in file.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
class TestDockerfiles:
    def test_the_base_image_is_pinned_to_a_jetpack(self, file: Path) -> None:
        images = {"jetpack6.Dockerfile": "l4t-jetpack:r36.4", "jetpack7.Dockerfile": "tensorrt:25.08"}
        (base,) = [arguments for name, arguments in instructions(file) if name == "FROM"]
        assert base.startswith(f"nvcr.io/nvidia/{images[file.name]}")

    def test_packages_come_without_extras_and_leave_no_lists(self, file: Path) -> None:
        runs = [text for name, text in instructions(file) if name == "RUN" and "apt-get install" in text]
        assert runs
        for run in runs:
            assert run.startswith("apt-get update &&")
            assert "--no-install-recommends" in run
            assert run.rstrip().endswith("rm -rf /var/lib/apt/lists/*")
            packages = run.split("--no-install-recommends")[1].partition("&&")[0].split()
            assert packages == sorted(packages)

    def test_it_ends_as_a_user_without_rights_and_starts_without_a_shell(self, file: Path) -> None:
        last = dict(instructions(file))
        assert last["USER"] == "sightline"
        assert json.loads(last["ENTRYPOINT"]) == ["/opt/sightline/bin/sightline"]
        assert json.loads(last["CMD"])[0] == "run"
        assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2])[0] == "/opt/sightline/bin/python"

    def test_the_health_check_is_a_program(self, file: Path) -> None:
        code = json.loads(dict(instructions(file))["HEALTHCHECK"].partition("CMD ")[2])[2]
        dead = code.replace("8080", "9")  # nothing listens on the discard port
        done = subprocess.run([sys.executable, "-c", dead], capture_output=True, text=True)
        assert done.returncode == 1
        assert "ConnectionRefusedError" in done.stderr

    @pytest.mark.parametrize("status", [200, 503])
    def test_the_health_check_asks_the_daemon_and_no_proxy(self, file: Path, status: int) -> None:
        class Daemon(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/healthz" else 404)
                self.end_headers()

        with HTTPServer(("127.0.0.1", 0), Daemon) as server:
            Thread(target=server.handle_request, daemon=True).start()
            code = json.loads(dict(instructions(file))["HEALTHCHECK"].partition("CMD ")[2])[2]
            alive = code.replace("8080", str(server.server_port))
            done = subprocess.run(
                [sys.executable, "-c", alive], env={**os.environ, "http_proxy": "http://127.0.0.1:9"}
            )
        assert done.returncode == (status != 200)

    def test_what_it_copies_exists_and_is_let_through(self, file: Path) -> None:
        let_through = Path(f"{file}.dockerignore").read_text().split()
        for name, arguments in instructions(file):
            for source in arguments.split()[:-1] if name == "COPY" else ():
                assert (ROOT / source).exists(), source
                assert f"!{source}" in let_through

    def test_every_extra_and_package_that_the_wheel_wants_is_there(self, file: Path) -> None:
        text, project = file.read_text(), (ROOT / "pyproject.toml").read_text()
        (extras,) = re.findall(r"'\.\[(.*)\]'", text)
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
        assert f"jetpack{file.name[7]}" in extras.split(",")
        wheel = re.search(r"only-include = \[(.*)\]", project)
        assert wheel
        for part in json.loads(f"[{wheel[1]}]"):
            assert re.search(rf"^COPY .*\b{re.escape(part)}\b", text, re.MULTILINE), part


def test_pip_takes_every_locked_package_on_this_python() -> None:
    """uv, which locks and installs here, passes over the upper bound of Requires-Python; pip on a device does not."""
    pins = re.findall(
        r"^([\w.-]+)==([^\s;]+)(?: ; (.*))?$", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    assert pins
    for name, version, marker in pins:
        with suppress(PackageNotFoundError):
            found = metadata(name)
            if found["Version"] == version and (not marker or Marker(marker).evaluate()):
                assert SpecifierSet(found["Requires-Python"] or "").contains(platform.python_version()), name


def test_the_compose_file_gives_the_cameras_and_takes_the_rights() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: compose.yaml was not read")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["sightline"]
    assert service["runtime"] == "nvidia"
    assert "/tmp:/tmp" in service["volumes"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert "privileged" not in service
    assert (DEPLOY / service["build"]["context"] / "deploy/jetpack6.Dockerfile").exists()


def test_promtool_accepts_the_alerts_and_their_tests() -> None:
    promtool, folder = tool("promtool"), RULES.parent
    for command in (["check", "rules", RULES.name], ["test", "rules", "sightline.test.yml"]):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the alerts were not read")
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_every_alert_says_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "fix"}


def test_a_sink_in_trouble_and_one_that_loses_raise_an_alert() -> None:
    asked = " ".join(rule["expr"] for rule in alerts())
    assert "sightline_sink_up" in asked
    assert "sightline_sink_lost_total" in asked


def panel_expressions() -> Iterator[str]:
    for panel in BOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def exposed_names() -> set[str]:
    """The names that `/metrics` really gives, with one camera, one model and one sink."""
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: no names to compare")
    pytest.importorskip("starlette", reason="the extra web is not installed: no names to compare")
    from edge.web.live import LiveSink
    from edge.web.metrics import Exposition
    from edge.web.state import Snapshots

    stages = {"age": {"p99": 20.0}, "infer": {"p99": 12.0}}

    class Daemon:
        def snapshot(self) -> dict[str, Any]:
            camera = {"name": "door", "state": "live", "age_ms": 20.0, "dropped_for": {"newer": 1}}
            model = {"name": "faces", "backend": "tflite", "precision": "int8"}
            latency = {"door": {"n": 9, "stages": stages, "models": {"faces": stages}}}
            whole = {"uptime_s": 1.0, "version": "0", "cameras": [camera], "models": [model]}
            return whole | {"latency": latency, "sinks": [{"name": "events"}]}

    text = Exposition(Snapshots(Daemon()), LiveSink()).text().decode()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {re.split(r"[ {]", line)[0] for line in samples}


def test_alerts_and_board_ask_only_for_what_the_daemon_gives() -> None:
    named = re.compile(r"\b(?:sightline|process)_[a-z_]+")
    asked = {
        name
        for text in [*panel_expressions(), *(r["expr"] for r in alerts())]
        for name in named.findall(text)
    }
    assert asked
    assert asked <= exposed_names()


def test_promtool_can_read_every_expression_of_the_board(tmp_path: Path) -> None:
    promtool = tool("promtool")
    filled = [re.sub(r"\$__rate_interval", "1m", text).replace("$", "") for text in panel_expressions()]
    rules = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(filled)]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    command = [promtool, "check", "rules", "--lint=none", tmp_path / "board.yml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


BOARD_SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig"],
                "properties": {
                    "type": {"enum": ["stat", "timeseries", "state-timeline", "table"]},
                    "title": {"type": "string", "minLength": 1},
                    "gridPos": {
                        "required": ["x", "y", "w", "h"],
                        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 100},
                    },
                    "targets": {
                        "minItems": 1,
                        "items": {"required": ["refId", "expr"], "properties": {"expr": {"minLength": 1}}},
                    },
                },
            },
        },
    },
}


def test_the_board_has_the_shape_that_grafana_reads() -> None:
    jsonschema = pytest.importorskip(
        "jsonschema", reason="jsonschema is not installed: the board was not read"
    )
    jsonschema.validate(BOARD, BOARD_SCHEMA)


def test_no_panel_of_the_board_lies_on_another() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y


def test_every_variable_of_the_board_is_defined() -> None:
    defined = {variable["name"] for variable in BOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    text = json.dumps(BOARD)
    assert {name for pair in re.findall(r"\$(?:\{(\w+)\}|(\w+))", text) for name in pair if name} <= defined


def test_nothing_in_deploy_holds_a_secret_or_may_be_run_by_chance() -> None:
    for file in filter(Path.is_file, DEPLOY.rglob("*")):
        assert not os.access(file, os.X_OK) or os.stat(file).st_mode & 0o111 == 0
        assert not re.search(r"(password|token)\s*[=:]\s*\S{6,}", file.read_text(), re.IGNORECASE), file
