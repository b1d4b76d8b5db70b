"""The mutation check: do a file's tests notice when one of its calls is deleted, or two are swapped?

    python tests/mutation.py export/tensorrt.py tests/export/test_tensorrt.py

Every call is deleted once (a statement goes; a value becomes the call's first argument, or None), and
every two neighbouring statements with calls are swapped once. Each mutant lives in a copy of the
repository and is tested there. Survivors are listed, and the exit code is 1 when one of them is not
in EQUIVALENT.
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("edge", "export", "calibration", "train", "bench", "tests")
WARM = (
    "pytest",
    "numpy",
    "onnx",
    "pydantic",
    "click",
    "rich.progress",
    "hypothesis",
    "tensorrt_rtx",
    "cuda.bindings.runtime",
)
"""Loaded once, before the forks; none of ours is among them."""

MEMORY = "/dev/shm"
"""Where the copy lies if there is such a folder: the tests make and delete thousands of small files."""

TIMEOUT_S = 60

EQUIVALENT = {
    # export/tensorrt.py
    "delete tuple(t.shape)": "Dims equals a tuple in the installed bindings",
    "swap log.clear() | builder = trt.Builder(log)": "the builder's constructor says nothing",
    "swap config = _configure(trt, builder, workspace_bytes, timings, on_step) "
    "| begin = time.monotonic()": "configuring takes no time that a clock would show",
    "swap if engine is None: | build_seconds = time.monotonic() - begin": "two independent reads",
    "swap build_seconds = time.monotonic() - begin | if timings:": "storing the cache takes a millisecond",
    "swap if timings: | inputs = (network.get_input(i) for i in range(network.num_inputs))": "independent",
    "swap inputs = (network.get_input(i) for i in range(network.num_inputs)) "
    "| outputs = (network.get_output(i) for i in range(network.num_outputs))": "independent",
    "swap if timings: | if on_step:": "two independent settings of the same configuration",
    "swap if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING): "
    "| if (found := re.match('Total Weights Memory: (\\\\d+) bytes', message)):": "independent",
    "swap trt.IProgressMonitor.__init__(self) | self.phases = Phases()": "neither reads what the other sets",
    # edge/runners/tensorrt.py
    "delete tuple(engine.get_tensor_shape(name))": "Dims equals a tuple in the installed bindings",
    "swap plan = read_plan(bundle, cast(Precision, precision), toolkit, device) "
    "| self._trt, self._cudart = (toolkit.module, cuda.runtime())": "neither reads what the other sets",
    "swap inputs = [name for name, (direction, _, _) in tensors.items() if direction == mode.INPUT] "
    "| wanted = {name: (mode.OUTPUT, shape) for name, shape in self._heads.items()}": "two independent reads",
    "swap self._stream = call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking) "
    "| for name in self._names():": "memory and stream are independent until the first run",
    "swap while self._buffers: | if self._stream is not None:": "the stream was waited for: both are idle",
}
"""Mutants that change nothing a caller could see, by what `mutants` calls them, each with the reason."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed source) for every deletion and swap."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for index, call in enumerate(calls):
        yield f"delete {ast.unparse(call)}", _without_call(tree, index)
    for block, (first, second) in _neighbours(tree):
        name = f"swap {_head(first)} | {_head(second)}"
        yield name, _swapped(tree, block, first, second)


def _without_call(tree: ast.Module, index: int) -> str:
    changed = copy.deepcopy(tree)
    call = [node for node in ast.walk(changed) if isinstance(node, ast.Call)][index]
    value = call.args[0] if call.args and not isinstance(call.args[0], ast.Starred) else ast.Constant(None)

    class Delete(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.stmt:
            return ast.Pass() if node.value is call else self.generic_visit(node)  # type: ignore[return-value]

        def visit_Call(self, node: ast.Call) -> ast.expr:
            return value if node is call else self.generic_visit(node)  # type: ignore[return-value]

    return ast.unparse(ast.fix_missing_locations(Delete().visit(changed)))


def _neighbours(tree: ast.Module) -> Iterator[tuple[list[ast.stmt], tuple[ast.stmt, ast.stmt]]]:
    """Neighbouring statements inside functions that both hold a call, with the block they stand in."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef)):
            continue
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                for pair in pairwise(block):
                    if all(_swappable(statement) for statement in pair):
                        yield block, pair


def _swappable(statement: ast.stmt) -> bool:
    definition = isinstance(statement, (ast.FunctionDef, ast.ClassDef))
    return not definition and any(isinstance(node, ast.Call) for node in ast.walk(statement))


def _swapped(tree: ast.Module, block: list[ast.stmt], first: ast.stmt, second: ast.stmt) -> str:
    position = block.index(first)
    block[position : position + 2] = [second, first]
    try:
        return ast.unparse(tree)
    finally:
        block[position : position + 2] = [first, second]


def _head(statement: ast.stmt) -> str:
    return ast.unparse(statement).splitlines()[0]


def survives(target: Path, mutant: str, tests: list[str], folder: Path) -> bool:
    """Whether the tests pass with the mutant in the copy; a crash or a hang counts as noticed."""
    original = target.read_text()
    target.write_text(mutant)
    child = os.fork()
    if child == 0:
        _run_tests(tests, folder)
    _, status = os.waitpid(child, 0)
    target.write_text(original)
    return status == 0


def _run_tests(tests: list[str], folder: Path) -> None:
    import pytest

    signal.alarm(TIMEOUT_S)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(folder)
    # The copy comes before the working tree and before an installed package.
    sys.path.insert(0, str(folder))
    options = [
        "-x",
        "-q",
        "--tb=no",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "--import-mode=importlib",
    ]
    os._exit(int(pytest.main([*options, "--basetemp", str(folder / "tmp"), *tests])))


def check(target: str, tests: list[str]) -> list[str]:
    """The mutants of `target` that `tests` do not notice and that are not known to be equivalent."""
    for name in WARM:
        importlib.import_module(name)
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as temporary:
        folder = Path(temporary)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        source = (ROOT / target).read_text()
        if not survives(folder / target, source, tests, folder):
            return [f"{target}: its tests fail before any change"]
        found = dict(mutants(source))
        survivors = [
            name for name, mutant in found.items() if survives(folder / target, mutant, tests, folder)
        ]
    print(f"{target}: {len(found)} mutants, {len(survivors)} survive")
    return [name for name in survivors if name not in EQUIVALENT]


def main(arguments: list[str]) -> int:
    """Check one file; print the survivors."""
    survivors = check(arguments[0], arguments[1:])
    for name in survivors:
        print(f"SURVIVED: {name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
