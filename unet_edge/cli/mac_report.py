"""`unet-edge mac-report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import EXISTING_FOLDER, MODEL_FILE, say


@click.command("mac-report", epilog="Example: unet-edge mac-report run/best.mlpackage --images photos -o report.json")
@click.argument("model", type=MODEL_FILE)
@click.option("--images", type=EXISTING_FOLDER, help="Folder to compare on.  [default: a photograph]")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="[default: <model>_mac_report.json]")
@click.option("--limit", type=click.IntRange(1), default=4, show_default=True, help="Most images to compare on.")
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Timed predictions.")
@click.option("--timeout", type=click.FloatRange(1), default=900, show_default=True, help="Seconds for each step.")
def command(model: Path, images: Path | None, output: Path | None, limit: int, runs: int, timeout: float) -> None:
    """Run the Core ML package MODEL on all compute units of this Mac and write what happened to one JSON file.

    For CPU, GPU, Neural Engine and all of them: where Core ML plans each operation, how long loading and predicting
    take, and how far the outputs are from the reference interpreter's, which is a check of the device's arithmetic.
    Compute units that fail or crash are part of the report. It holds no paths, and of people only the model's author.
    """
    if not model.is_dir():
        raise click.ClickException(f"{model}: no Core ML package: give the folder that ends in .mlpackage")
    from unet_edge_bench.mac.report import MacProtocol, mac_report
    from unet_edge_runtime.files import write_json

    target = output or model.with_name(f"{model.stem}_mac_report.json")
    protocol = MacProtocol(images=limit, runs=runs, timeout=timeout)
    report = mac_report(model, images, protocol, lambda step: say(f"{step} ..."))
    write_json(target, report)
    for choice, unit in report["units"].items():
        click.echo(f"{choice:4} {_summary(unit)}")
    click.echo(str(target))


def _summary(unit: dict[str, Any]) -> str:
    parts = []
    if plan := unit.get("plan"):
        share = plan["devices"]["ane"]["cost_share"]
        parts += [] if share is None else [f"{share:.0%} of the cost on the Neural Engine"]
    if latency := unit.get("latency"):
        parts.append(f"median {(latency['native_ms'] or latency['wall_ms'])['median']:.2f} ms")
    if agreement := unit.get("agreement"):
        parts.append(f"{agreement['stored']['equal_labels']:.4%} equal labels")
    parts += [f"{step} failed: {message}" for step, message in unit["errors"].items()]
    return "; ".join(parts)
