"""A Mac for tests: macOS as the runtime sees it, and a stand-in for coremltools in the child process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from unet_edge_runtime import coreml_client
from unet_edge_runtime.spec import METADATA_KEY, function_name

FAKES = Path(__file__).parent / "fakes"


def pretend_mac(monkeypatch, cache, **behaviour):
    """Make this a Mac whose coremltools behaves as told: `ane_predict="kill"`."""
    monkeypatch.setattr(coreml_client, "sys", SimpleNamespace(platform="darwin", executable=sys.executable))
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("UNET_EDGE_CACHE", str(cache))
    units = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL", "any": "*"}
    steps = {f"{units[key.partition('_')[0]]} {key.partition('_')[2]}": what for key, what in behaviour.items()}
    monkeypatch.setenv("FAKE_COREML", json.dumps(steps))


def make_fake_package(folder, network, spec, kind="imageType", metadata=True, returns=None):
    """Write what the stand-in opens: an ONNX network, and a description of the functions.

    The folder may be a real package already; nothing of it is changed.
    """
    folder.mkdir(exist_ok=True)
    (folder / "model").write_bytes(network)
    sizes = spec.input_sizes or (spec.input_size,)
    functions = {
        function_name(size) if spec.input_sizes else "": {
            "inputs": [[spec.input_name, kind, *size]],
            "outputs": [[spec.output_name, "multiArrayType"]],
            "returns": returns,
        }
        for size in sizes
    }
    described = {
        "metadata": {METADATA_KEY: spec.to_json()} if metadata else {},
        "default": function_name(sizes[0]) if spec.input_sizes else "",
        "functions": functions,
    }
    (folder / "fake.json").write_text(json.dumps(described))
    return folder


def compilations(package):
    """How often the stand-in compiled packages of this folder."""
    log = package.parent / "compiled.log"
    return len(log.read_text().splitlines()) if log.exists() else 0
