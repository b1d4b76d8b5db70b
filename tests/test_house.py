"""The house: what is imported, where imports may go, what a wheel holds, what the README promises."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest

import sightline
from edge.bundle import DEFAULT_BUNDLE, Bundle
from edge.tables import RUNNERS, SINKS, SOURCES, TASKS, resolve

ROOT = Path(__file__).parents[1]
PACKAGES = ("edge", "train", "calibration", "export")
HEAVY = ("tensorflow", "keras", "cv2", "onnx", "onnxruntime", "ai_edge_litert", "av", "numpy")
SOURCE_FILES = [ROOT / "sightline.py", *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]


def _python(code: str, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("statement", ["import edge", "import sightline"])
def test_nothing_heavy_is_imported_at_the_start(statement: str) -> None:
    loaded = _python(f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_the_runtime_streams_without_tensorflow() -> None:
    code = (
        "import sys; import edge.run, edge.profile, edge.predict, edge.doctor; "
        "import train.commands, train.evaluate_command, export.commands; "
        "print([m for m in ('tensorflow', 'keras', 'onnx') if m in sys.modules])"
    )
    assert _python(code).strip() == "[]"


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder)}
    )


def test_imports_go_downward_only() -> None:
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


def test_the_contract_bites(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text[text.index("[tool.importlinter]") :])
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    assert _lint_imports(tmp_path).returncode == 0
    (tmp_path / "edge" / "__init__.py").write_text("import train\n")
    assert "edge is not allowed to import train" in _lint_imports(tmp_path).stdout


@pytest.mark.parametrize(
    "target",
    [
        *(string for string, _ in sightline.COMMANDS.values()),
        *(string for table in (RUNNERS, SINKS, SOURCES, TASKS) for string in table.values()),
    ],
)
def test_every_registered_name_exists(target: str) -> None:
    assert callable(resolve(target))


@pytest.mark.parametrize(
    "command", [*(string for string, _ in sightline.COMMANDS.values()), "calibration.__main__:main"]
)
def test_every_option_says_what_it_does(command: str) -> None:
    options = [option for option in resolve(command).params if isinstance(option, click.Option)]
    assert [option.opts[0] for option in options if not option.help] == []


def test_the_command_stays_a_table() -> None:
    assert len((ROOT / "sightline.py").read_text().splitlines()) < 60


@pytest.mark.parametrize("path", SOURCE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


def test_what_users_call_their_files_is_never_taken_for_markup() -> None:
    """`edge.console` alone makes consoles, and its own take nothing for markup."""
    made = [
        (str(path.relative_to(ROOT)), {keyword.arg for keyword in node.keywords})
        for path in SOURCE_FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    ]
    assert [where for where, _ in made] == ["edge/console.py"]
    assert {"markup", "emoji"} <= made[0][1]


def test_the_wheel_holds_the_packages_and_the_shipped_bundles(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    # A company's own certificate authority stands in the system's store, not in uv's.
    environment = os.environ | {"UV_SYSTEM_CERTS": "true"}
    done = subprocess.run(build, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {*PACKAGES, "sightline.py", "sightline-0.1.0.dist-info"}
    assert f"edge/bundles/{DEFAULT_BUNDLE}/model.int8.tflite" in names
    assert "edge/py.typed" in names


README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_the_readmes_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_found_from_the_readme_and_its_links_lead_somewhere(page: Path) -> None:
    assert f"](docs/{page.name})" in README
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_the_readmes_targets_and_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in re.findall(r"`sightline ([a-z]+)", README):
        assert command in sightline.COMMANDS


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_hands_on_names_with_spaces_and_goes_on_after_a_measurement_that_failed(tmp_path: Path) -> None:
    for folder in (".venv/bin", "models", "bench"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "models" / "m.keras").touch()
    for name in ("a", "b"):
        (tmp_path / "bench" / f"{name}.py").write_text("__main__")
    for name in ("sightline", "python"):
        (tmp_path / ".venv" / "bin" / name).write_text(
            '#!/bin/sh\nprintf \'[%s]\' "$@"\n[ "$1" != bench/a.py ]\n'
        )
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)

    def made(*words: str) -> tuple[int, str]:
        call = ["make", "--silent", "--old-file=.venv/.ready", *words]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert made("train", "RECIPE=my own.py", "DATA=a b") == (0, "[train][my own.py][--data][a b]")
    code, said = made("export", "MODEL=m", "DATA=a b", "SIZE=320 192", "BUNDLE=my own")
    assert (code, "[--size][320 192][--out][build/bundles/my own]" in said) == (0, True), said
    assert made("bench") == (2, "== bench/a.py\n[bench/a.py]== bench/b.py\n[bench/b.py]")


def test_the_readmes_parity_table_is_that_of_the_shipped_bundle() -> None:
    rows = {tuple(row.split()[:2]): row.split()[2:] for row in README.splitlines() if row.count(" fp") == 1}
    rows |= {tuple(row.split()[:2]): row.split()[2:] for row in README.splitlines() if " int8  " in row}
    for artefact in Bundle.open(DEFAULT_BUNDLE).manifest.artefacts:
        metrics = artefact.metrics
        assert metrics is not None
        wanted = [f"{artefact.size_bytes / 1024:.1f}", f"{metrics.value:.2f}", f"{metrics.drop:+.2f}"]
        assert rows[artefact.format, artefact.precision][:3] == wanted


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "bench").glob("*.py")))
def test_what_a_measurement_needs_is_there(script: str) -> None:
    """`make bench` takes an hour: a name that is gone is noticed here."""
    importlib.import_module(script)
