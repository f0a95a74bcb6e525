"""`unet-edge inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .common import MODEL_FILE, echo_json


@click.command(epilog="Example: unet-edge inspect run/best.onnx")
@click.argument("model", type=MODEL_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(model: Path, as_json: bool) -> None:
    """Show everything that MODEL knows about itself: how it treats images, its classes, what made it, its graph."""
    from unet_edge_runtime.backend import backend_for

    readers: dict[str, Callable[[Path], dict[str, Any]]] = {"torch": _checkpoint, "onnx": _onnx, "coreml": _coreml}
    kind = backend_for(model)
    facts = {"model": str(model), "kind": kind, "bytes": _bytes(model), **readers[kind](model)}
    if as_json:
        echo_json(facts)
    else:
        _print(facts)


def _checkpoint(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from unet_edge.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(path)
    keep = ("epoch", "batch", "step", "train_config", "best")
    return {
        "parameters": sum(value.numel() for value in checkpoint.build().parameters()),
        "network": asdict(checkpoint.config),
        "spec": checkpoint.spec.to_dict(),
        "training": {key: checkpoint.state[key] for key in keep if key in checkpoint.state} or None,
    }


def _onnx(path: Path) -> dict[str, Any]:
    from unet_edge_runtime.onnx_backend import OnnxBackend

    backend = OnnxBackend(path)
    values = [*backend.session.get_inputs(), *backend.session.get_outputs()]
    facts: dict[str, Any] = {"interface": {v.name: [v.type, *v.shape] for v in values}, "spec": backend.spec.to_dict()}
    try:
        import onnx
    except ModuleNotFoundError:
        return facts  # the runtime alone is enough for what matters; the graph needs the export extra
    graph = onnx.load(path)
    return {
        **facts,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import},
        "producer": f"{graph.producer_name} {graph.producer_version}".strip(),
        "operations": dict(Counter(node.op_type for node in graph.graph.node).most_common()),
        "parameters": sum(_product(list(tensor.dims)) for tensor in graph.graph.initializer),
    }


def _coreml(path: Path) -> dict[str, Any]:
    from unet_edge_export.to_coreml import describe_package

    return describe_package(path)


def _product(sides: list[int]) -> int:
    result = 1
    for side in sides:
        result *= side
    return result


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _print(facts: dict[str, Any]) -> None:
    spec = facts.pop("spec")
    classes = spec.pop("classes")
    for name, value in {**facts, "images": None, **spec}.items():
        if name == "images":
            click.echo("\nHow images are treated")
        elif isinstance(value, dict):
            click.echo(f"\n{name}")
            _print_nested(value)
        elif value not in (None, (), []):
            click.echo(f"  {name:16} {_text(value)}")
    click.echo("\nClasses (label, mask value, name)")
    for label, info in enumerate(classes):
        note = " (background, not in means)" if label == spec["background"] else ""
        click.echo(f"  {label:3} {_text(info['value']):>12}  {info['name']}{note}")


def _print_nested(values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            click.echo(f"  {key:18} " + ", ".join(f"{k} {_text(v)}" for k, v in value.items() if not _is_rows(v)))
        elif not _is_rows(value):
            click.echo(f"  {key:18} {_text(value)}")


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "x".join(map(str, value)) if isinstance(value, tuple) and len(value) == 2 else str(value)
