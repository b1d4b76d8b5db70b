"""Every name and call that we take from TensorRT, against NVIDIA's real interface.

Our files are read, not run: each attribute of an object of TensorRT's must exist in the installed
bindings, with a signature that takes our arguments, and in the lists of names of TensorRT 10.3, 10.16
and 11.4 where these lie beside the checkout. What cannot be told to be TensorRT's or not is an error.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")

ROOT = Path(__file__).parents[2]
NAMES = ROOT.parent / "shared" / "reference" / "trt_api"
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")
OURS = ("export/tensorrt.py", "edge/runners/tensorrt.py", "edge/profiling/layers_tensorrt.py")
MODULE = ""

OBJECTS = {
    "trt": MODULE,
    "self._trt": MODULE,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "e": "ParserError",
    "config": "IBuilderConfig",
    "config.get_timing_cache()": "ITimingCache",
    "t": "ITensor",
    "self._runtime": "Runtime",
    "engine": "ICudaEngine",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "inspector": "EngineInspector",
    "mode": "TensorIOMode",
}
"""What our files call an object, and its class in TensorRT."""

NOT_TENSORRT = {
    "log.clear": "our own logger's",
    "self.phases.step": "our own",
    "output.name": "of the manifest",
    "output.shape": "of the manifest",
    "pixels.shape": "NumPy's",
    "pixels.dtype": "NumPy's",
    "staging.shape": "NumPy's",
    "tensor.get": "a dictionary's",
    "facts.get": "a dictionary's",
    "bundle.manifest.input": "our own",
}
"""Attributes that some class of TensorRT has too, and which here are not its."""

FEATURE_DETECTED = {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
"""Looked for with `getattr`, so that it may be absent."""

HELPERS = {"nptype", "volume"}
"""Of the bindings' Python part, which the lists leave out; TensorRT has had them since version 5."""

BASES = ("ILogger", "IProgressMonitor", "IProfiler")
"""What we derive from."""


@dataclass(frozen=True)
class Use:
    """One attribute of TensorRT's in a file of ours; `call` where it is called."""

    owner: str
    name: str
    line: int
    call: ast.Call | None = None

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


def uses(source: str) -> Iterator[Use]:
    """All of a file, `getattr(trt.X, "NAME", ...)` among them."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (owner := _owner(node.value)) is not None:
            if node.attr.startswith("__"):  # Python's own: `__version__`, `__init__` of a base
                continue
            yield Use(owner, node.attr, node.lineno, calls.get(id(node)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            owner, name = _owner(node.args[0]), node.args[1]
            if owner is not None and isinstance(name, ast.Constant):
                yield Use(owner, name.value, node.lineno)


def _owner(node: ast.expr) -> str | None:
    """The class of an expression, MODULE for the module itself, None for what is not TensorRT's."""
    text = ast.unparse(node)
    if text in OBJECTS:
        return OBJECTS[text]
    if isinstance(node, ast.Attribute) and _owner(node.value) == MODULE:
        return node.attr
    return None


def unexplained(source: str) -> set[str]:
    """Attributes with a name of TensorRT's whose owner is in neither table."""
    touched = {name for owner in {*OBJECTS.values(), *BASES} - {MODULE} for name in dir(getattr(trt, owner))}
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in touched and not node.attr.startswith("__"):
            text = ast.unparse(node)
            if _owner(node.value) is None and text not in NOT_TENSORRT:
                found.add(text)
    return found


def read(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.mark.parametrize("path", OURS)
def test_nothing_of_ours_is_left_unexplained(path: str) -> None:
    assert unexplained(read(path)) == set()


def test_only_these_files_touch_tensorrt() -> None:
    paths = [path for folder in ("edge", "export") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in paths if _touches(path.read_text())} == set(OURS)


def _touches(source: str) -> bool:
    if "tensorrt" not in source and "trt" not in source:
        return False
    nodes = list(ast.walk(ast.parse(source)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    return bool({name for name in imported if name.startswith("tensorrt")}) or any(
        _owner(node.value) == MODULE and not node.attr.startswith("__") for node in attributes
    )


# --- the installed bindings: names, arguments, what we derive from


@pytest.mark.parametrize("path", OURS)
def test_every_name_exists_in_the_installed_bindings(path: str) -> None:
    found = list(uses(read(path)))
    assert len(found) >= {"export/tensorrt.py": 40, "edge/runners/tensorrt.py": 18}.get(path, 2)
    for use in found:
        owner = getattr(trt, use.owner) if use.owner else trt
        assert hasattr(owner, use.name), f"{path}:{use.line}: {use}"


@pytest.mark.parametrize("path", OURS)
def test_every_call_has_arguments_that_the_installed_bindings_take(path: str) -> None:
    calls = [use for use in uses(read(path)) if use.call is not None]
    checked = 0
    for use in calls:
        if (signatures := _signatures(use.owner, use.name)) is not None:
            assert any(_takes(s, use.call) for s in signatures), f"{path}:{use.line}: {use} {signatures}"
            checked += 1
    assert checked >= {"export/tensorrt.py": 18, "edge/runners/tensorrt.py": 12}.get(path, 0)


def test_what_we_derive_answers_to_all_that_its_base_asks() -> None:
    derived = {
        _base(node): node
        for path in OURS
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.ClassDef) and _base(node)
    }
    assert set(derived) == set(BASES)
    for base, node in derived.items():
        methods = {item.name: item.args for item in node.body if isinstance(item, ast.FunctionDef)}
        asked = {name for name in vars(getattr(trt, base)) if not name.startswith("_")} - _enum_members(base)
        assert asked <= set(methods), base
        for name in asked:
            (wanted,) = _signatures(base, name) or [[]]
            # They are called by position.
            assert len(methods[name].args) - 1 == len(wanted), name


def _base(node: ast.ClassDef) -> str:
    return next((b.attr for b in node.bases if isinstance(b, ast.Attribute) and b.attr in BASES), "")


def _enum_members(owner: str) -> set[str]:
    """Severities and the like, which are attributes of their class."""
    cls = getattr(trt, owner)
    return {
        name for name in vars(cls) if not callable(getattr(cls, name)) or isinstance(vars(cls)[name], type)
    }


Signature = list[tuple[str, bool]]
"""Parameters without `self`: name, and whether it must be given."""


@cache
def _signatures(owner: str, name: str) -> list[Signature] | None:
    """As pybind11 states them in a docstring; None for a property, an enumeration or a Python function."""
    thing = getattr(getattr(trt, owner) if owner else trt, name)
    documented = thing.__init__ if isinstance(thing, type) else thing
    lines = (getattr(documented, "__doc__", None) or "").splitlines()
    found = (
        [m for line in lines if (m := re.match(rf"(?:\d+\. )?{documented.__name__}\((.*)\) -> ", line))]
        if (callable(documented))
        else []
    )
    return [_parameters(m[1]) for m in found] or None


def _parameters(text: str) -> Signature:
    parameters = re.findall(r"(\w+): ([^,=\[]*(?:\[[^\]]*\])?[^,=]*)(= ?[^,]*)?", text)
    return [(name, not default) for name, _, default in parameters if name != "self"]


def _takes(signature: Signature, call: ast.Call) -> bool:
    names = [name for name, _ in signature]
    given = names[: len(call.args)] + [str(keyword.arg) for keyword in call.keywords]
    needed = {name for name, must in signature if must}
    return (
        len(call.args) <= len(names) and len(set(given)) == len(given) and needed <= set(given) <= set(names)
    )


# --- the versions on Jetsons, by their lists of names


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", OURS)
def test_every_name_exists_from_jetpack_6_to_tensorrt_11(path: str, version: str) -> None:
    if not NAMES.is_dir():
        pytest.skip(
            "the lists of names of other TensorRT versions are not beside this checkout: not compared"
        )
    assert lacking(read(path), version) == set()


def lacking(source: str, version: str) -> set[str]:
    """What a file uses and a version of TensorRT has not."""
    api: dict[str, Any] = json.loads((NAMES / f"api_{version}.json").read_text())
    found = set()
    for use in uses(source):
        known = api["members"].get(use.owner, ()) if use.owner else {*api["names"], *HELPERS}
        if use.name not in known and str(use) not in FEATURE_DETECTED:
            found.add(str(use))
    return found


# --- the check itself notices


@pytest.mark.parametrize(
    ("before", "after", "noticed"),
    [
        ("execute_async_v3", "execute_async_v2", "IExecutionContext.execute_async_v2"),
        ("num_io_tensors", "num_bindings", "ICudaEngine.num_bindings"),
        ("deserialize_cuda_engine", "deserialize_engine", "Runtime.deserialize_engine"),
        ("TensorIOMode", "TensorMode", "TensorMode"),
        ("LayerInformationFormat.JSON", "LayerInformationFormat.XML", "LayerInformationFormat.XML"),
    ],
)
def test_a_name_that_is_not_there_is_noticed(before: str, after: str, noticed: str) -> None:
    source = read("edge/runners/tensorrt.py").replace(before, after)
    absent = {
        str(use)
        for use in uses(source)
        if not hasattr(getattr(trt, use.owner, trt) if use.owner else trt, use.name)
    }
    assert noticed in absent
    if NAMES.is_dir():
        assert all(noticed in lacking(source, version) for version in VERSIONS)


@pytest.mark.parametrize(
    ("owner", "name", "call", "fits"),
    [
        ("IExecutionContext", "execute_async_v3", "f(7)", True),
        ("IExecutionContext", "execute_async_v3", "f()", False),
        ("IExecutionContext", "execute_async_v3", "f(7, 8)", False),
        ("IBuilderConfig", "set_timing_cache", "f(c, ignore_mismatch=False)", True),
        ("IBuilderConfig", "set_timing_cache", "f(c)", False),
        ("IBuilderConfig", "set_timing_cache", "f(c, ignore=False)", False),
        ("OnnxParser", "parse", "f(content)", True),
        ("OnnxParser", "parse", "f(content, path='x')", True),
        ("", "Builder", "f(log)", True),
        ("", "Builder", "f()", False),
    ],
)
def test_arguments_that_do_not_fit_are_noticed(owner: str, name: str, call: str, fits: bool) -> None:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    signatures = _signatures(owner, name)
    assert signatures is not None
    assert any(_takes(signature, node) for signature in signatures) is fits


def test_an_object_that_no_table_names_is_noticed() -> None:
    assert unexplained("made.execute_async_v3(7)\nself._context.execute_async_v3(7)") == {
        "made.execute_async_v3"
    }
