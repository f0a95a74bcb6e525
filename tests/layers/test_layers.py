"""The four floors: what each may import, and what importing it costs."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "unet_edge_runtime": ROOT / "runtime" / "unet_edge_runtime",
    "unet_edge": ROOT / "unet_edge",
    "unet_edge_export": ROOT / "export" / "unet_edge_export",
    "unet_edge_bench": ROOT / "benchmarks" / "unet_edge_bench",
}
LOWEST_FIRST = list(FLOORS)
HEAVY = {"torch", "coremltools", "onnx", "onnxscript", "onnxruntime", "matplotlib", "jinja2"}

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def modules(package):
    """(import name, file) of every module of a package."""
    folder = FLOORS[package]
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


EVERYTHING = [(name, file) for package in FLOORS for name, file in modules(package)]


def python(code, **environment):
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "runtime", "export", "benchmarks"))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


@pytest.mark.parametrize("module", [name for name, _ in modules("unet_edge_runtime")])
def test_a_runtime_module_imports_on_an_edge_device(module):
    blocked = {"torch", "coremltools", "onnx", "onnxscript", "click", "unet_edge"}
    if module != "unet_edge_runtime.onnx_backend":
        blocked.add("onnxruntime")
    done = python(BLOCK.format(blocked=blocked) + f"import {module}")
    assert done.returncode == 0, done.stderr


def test_the_block_blocks():
    done = python(BLOCK.format(blocked={"torch"}) + "import torch")
    assert "No module named 'torch'" in done.stderr


def imported(tree, module, is_package):
    """(top-level name, full name, stands inside a function) of each import in a module."""
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    checking = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test).endswith("TYPE_CHECKING")
        for node in ast.walk(test)
    }
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [".".join([*base, *([node.module] if node.module else [])])]
        else:
            continue
        for name in names:
            yield name.partition(".")[0], name, id(node) in inside or id(node) in checking


@pytest.mark.parametrize(("module", "file"), EVERYTHING, ids=[name for name, _ in EVERYTHING])
def test_no_floor_imports_a_higher_one(module, file):
    package = module.partition(".")[0]
    higher = set(LOWEST_FIRST[LOWEST_FIRST.index(package) + 1 :])
    shell = module.startswith("unet_edge.cli")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for top, name, lazy in imported(tree, module, file.name == "__init__.py"):
        if shell:
            wanted_late = top in higher | HEAVY or name in {"numpy", "PIL"}
            assert lazy or not wanted_late, f"{module} imports {name} before a command runs"
        else:
            assert top not in higher, f"{module} imports {name}, which is above it"
        if package == "unet_edge_runtime":
            assert top not in {"torch", "onnx", "onnxscript", "click"}, f"{module} imports {name}"


def loaded_by(arguments):
    code = f"""
import sys
from unet_edge.cli import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert not stop.code, stop.code
print("LOADED", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split()), done.stdout


def test_help_loads_nothing_heavy():
    loaded, text = loaded_by(["--help"])
    assert "predict" in text
    assert not loaded & (HEAVY | {"numpy", "PIL"})


def commands():
    from unet_edge.cli import COMMANDS

    return list(COMMANDS)


@pytest.mark.parametrize("command", commands())
def test_the_help_of_a_command_loads_no_framework(command):
    loaded, text = loaded_by([command, "--help"])
    assert "Usage" in text
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", [name for name, _ in EVERYTHING if not name.endswith("__main__")])
def test_all_names_what_is_there(module):
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(loaded, name)] == []


def test_the_runtime_offers_its_five_line_api():
    import unet_edge_runtime

    assert {"Segmenter", "ModelSpec", "load_backend", "UnetEdgeError"} <= set(unet_edge_runtime.__all__)
