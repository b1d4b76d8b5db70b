"""docs/profiling.md is run: the budget, the workflow's steps and the Makefile, on the real command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from edge import profile
from edge.profiling.sweep import KINDS

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "profiling.md").read_text(encoding="utf-8")
WRITTEN = "face-320x192 cifar10-nano --source 'demo://?width=640&height=360'"
QUICK = "cifar10-convnetjs --source 'demo://?width=160&height=90' --frames 150"


def block(language: str) -> str:
    """The document's block in a language; there is one."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Runs a command where the document's files lie, with this checkout's `sightline`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sightline").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sightline "$@"\n')
    (folder / "sightline").chmod(0o755)
    (tmp_path / "budget.toml").write_text(block("toml"))
    (tmp_path / "Makefile").write_text(block("make").replace(WRITTEN, QUICK))
    changed = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=os.environ | changed, capture_output=True, text=True
        )

    return run


def test_the_workflow_measures_and_holds_the_budget(shell: Any, tmp_path: Path) -> None:
    workflow = yaml.safe_load(block("yaml"))
    (job,) = workflow["jobs"].values()
    assert "self-hosted" in job["runs-on"]
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    own = [step["run"] for step in job["steps"] if step.get("run", "").startswith("sightline")]
    assert len(own) == 2
    for command in own:
        done = shell(command.replace(WRITTEN, QUICK))
        assert done.returncode == 0, done.stderr
    assert "Within the budget: age p50" in done.stdout
    (artefact,) = [step["with"]["path"] for step in job["steps"] if "upload" in step.get("uses", "")]
    assert (tmp_path / artefact).is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_gate_measures_when_the_budget_changed_and_fails_with_the_stage(
    shell: Any, tmp_path: Path
) -> None:
    (tmp_path / "run.json").touch()  # as new as the budget: nothing to measure, and here nothing to read
    assert "sightline profile cifar10" not in shell("make gate").stdout
    (tmp_path / "run.json").unlink()
    (tmp_path / "budget.toml").write_text("[infer]\np50 = 0.001\n")
    broken = shell("make gate")
    assert f"sightline profile {QUICK}" in broken.stdout
    assert broken.returncode == 2  # make's own, of a recipe that ended with 1
    assert "gate] Error 1" in broken.stderr
    assert "infer p50 +" in broken.stderr


def test_every_option_that_is_named_exists() -> None:
    known = {name for option in profile.bundles.params for name in option.opts}
    groups = {"--budget": profile.COMMANDS["gate"]}
    for name in set(re.findall(r"(--[a-z][a-z-]+)", re.sub(r"```yaml.*?```", "", TEXT, flags=re.DOTALL))):
        assert name in known or name in groups, name
    assert all(isinstance(option, click.Parameter) for option in profile.bundles.params)


def test_every_sweep_is_in_the_table() -> None:
    table = TEXT[TEXT.index("| option |") : TEXT.index("## A budget")]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)} == set(KINDS)
