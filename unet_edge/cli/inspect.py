"""`unet-edge inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import COMPUTE_UNITS, MODEL_FILE, echo_json

if TYPE_CHECKING:
    from unet_edge_runtime.coreml_plan import ComputePlan


@click.command(epilog="Example: unet-edge inspect run/best.onnx")
@click.argument("model", type=MODEL_FILE)
@click.option("--compute-units", type=COMPUTE_UNITS, help="Add Core ML's plan for a .mlpackage: needs a Mac.")
@click.option(
    "--require-ane",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 1 if a lower share of the plan's cost is on the Neural Engine (with --compute-units ane or all).",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(model: Path, compute_units: str | None, require_ane: float | None, as_json: bool) -> None:
    """Show everything that MODEL knows about itself: how it treats images, its classes, what made it, its graph.

    With --compute-units also on which device Core ML means to run each operation of a package, and the share of the
    whole cost that it expects of it. That is a plan, not a measurement.
    """
    from unet_edge_runtime.backend import backend_for
    from unet_edge_runtime.files import size_of

    kind = backend_for(model)
    plan = _plan(model, kind, compute_units, require_ane)
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {"torch": _checkpoint, "onnx": _onnx, "coreml": _coreml}
    facts = {"model": str(model), "kind": kind, "bytes": size_of(model), **readers[kind](model)}
    if as_json:
        echo_json({**facts, **({"plan": plan.to_dict()} if plan else {})})
    else:
        _print(facts)
        if plan:
            _print_plan(plan)
    if plan and require_ane is not None:
        _check_share(plan, require_ane)


def _plan(model: Path, kind: str, compute_units: str | None, require_ane: float | None) -> ComputePlan | None:
    if compute_units is None and require_ane is None:
        return None
    if kind != "coreml":
        raise click.UsageError("--compute-units and --require-ane are for Core ML packages (.mlpackage)")
    from unet_edge_runtime.coreml_plan import compute_plan

    return compute_plan(model, compute_units or "ane")


def _print_plan(plan: ComputePlan) -> None:
    from unet_edge_runtime.coreml_plan import DEVICES

    click.echo(f"\nCore ML's plan ({plan.compute_units})")
    for device, shares in plan.to_dict()["devices"].items():
        cost = shares["cost_share"]
        share = "no cost known" if cost is None else f"{cost:6.1%} of the cost"
        click.echo(f"  {DEVICES.get(device, device):16} {shares['operations']:4} operations  {share}")
    for operation in plan.operations:
        cost_text = "      " if operation.cost is None else f"{operation.cost:6.1%}"
        could = f"  (could: {', '.join(operation.supported)})" if set(operation.supported) - {operation.device} else ""
        click.echo(f"  {operation.device:5} {cost_text}  {operation.type:18} {operation.name}{could}")


def _check_share(plan: ComputePlan, percent: float) -> None:
    share = plan.cost_share("ane")
    if share is None:
        raise click.ClickException("Core ML gave no costs, so the Neural Engine's share is not known")
    # A share of 100 % is a sum of rounded numbers.
    if 100 * share < percent - 1e-6:
        raise click.ClickException(
            f"{share:.1%} of the cost is planned on the Neural Engine, {percent:g} % are required: "
            "`unet-edge lint` says what keeps operations off it"
        )


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
    # As of a package: weights and biases, not the factors of a Resize.
    layers = [node for node in graph.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    learnt = {name for node in layers for name in node.input[1:]}
    return {
        **facts,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import},
        "producer": f"{graph.producer_name} {graph.producer_version}".strip(),
        "operations": dict(Counter(node.op_type for node in graph.graph.node).most_common()),
        "parameters": sum(_product(list(tensor.dims)) for tensor in graph.graph.initializer if tensor.name in learnt),
    }


def _coreml(path: Path) -> dict[str, Any]:
    from unet_edge_export.to_coreml import describe_package

    return describe_package(path)


def _product(sides: list[int]) -> int:
    result = 1
    for side in sides:
        result *= side
    return result


def _print(facts: dict[str, Any]) -> None:
    spec = facts.pop("spec")
    spec.pop("version", None)  # of the spec; a package has one of its own
    classes = spec.pop("classes")
    facts = dict(sorted(facts.items(), key=lambda fact: isinstance(fact[1], dict)))
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
    if isinstance(value, tuple) and value and all(isinstance(part, tuple) for part in value):
        return ", ".join(_text(part) for part in value)
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return f"{value[0]}x{value[1]}"
    return str(value)
