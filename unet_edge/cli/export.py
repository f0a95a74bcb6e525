"""`unet-edge export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import EXISTING_FOLDER, SizeType, echo_json, say

if TYPE_CHECKING:
    from unet_edge_export import ExportResult

__all__ = ["command"]

SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage"}


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "formats",
    type=click.Choice(list(SUFFIXES)),
    multiple=True,
    default=["onnx"],
    show_default=True,
    help="What to make; may be given twice.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File, or folder for several formats; by default beside the checkpoint.",
)
@click.option("--size", type=SizeType(), help="Fixed input size, at the network's scale; by default the training size.")
@click.option("--dynamic", is_flag=True, help="Any batch, height and width (ONNX).")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32"]),
    help="By default fp16 for Core ML, fp32 for ONNX (the only one).",
)
@click.option(
    "--head",
    type=click.Choice(["logits", "probabilities", "classmap"]),
    default="logits",
    show_default=True,
    help="What the graph returns.",
)
@click.option("--images", type=EXISTING_FOLDER, help="Images to compare on; by default validation images of the run.")
@click.option("--scale", type=float, help="Image scale, for checkpoints that do not know their own.")
@click.option(
    "--target",
    type=click.Choice(["macOS13", "macOS14", "macOS15"]),
    default="macOS14",
    show_default=True,
    help="Oldest system that is to run the Core ML package.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    checkpoint: Path,
    formats: tuple[str, ...],
    output: Path | None,
    size: tuple[int, int] | None,
    dynamic: bool,
    precision: str | None,
    head: str,
    images: Path | None,
    scale: float | None,
    target: str,
    as_json: bool,
) -> None:
    """Convert CHECKPOINT to ONNX or Core ML and check that the result agrees with PyTorch.

    \b
    unet-edge export run/best.pth
    unet-edge export run/best.pth --format onnx --format coreml --size 320x480 -o deploy
    """
    formats = tuple(dict.fromkeys(formats))
    targets = {format: _target(checkpoint, format, output, len(formats)) for format in formats}

    from unet_edge_export import export_model

    files = _images(images)
    results = []
    for format, path in targets.items():
        result = export_model(
            checkpoint,
            format,
            path,
            size=size,
            dynamic=dynamic,
            precision=precision,
            head=head,
            images=files,
            scale=scale,
            target=target,
            report=say,
        )
        results.append(result)
        if not as_json:
            _show(result)
    if as_json:
        echo_json({"checkpoint": str(checkpoint), "artefacts": [result.to_dict() for result in results]})
    else:
        _show_next(results)


def _target(checkpoint: Path, format: str, output: Path | None, formats: int) -> Path:
    suffix = SUFFIXES[format]
    if output is None:
        return checkpoint.with_suffix(suffix)
    if output.suffix in SUFFIXES.values():
        if formats > 1:
            raise click.UsageError(f"-o {output} names one file; for several formats give a folder")
        return output
    if output.suffix and formats == 1 and not output.is_dir():
        raise click.UsageError(f"-o {output}: a file for --format {format} ends in {suffix}")
    return output / f"{checkpoint.stem}{suffix}"


def _images(folder: Path | None) -> list[Path] | None:
    if folder is None:
        return None
    from unet_edge_export.images import spread
    from unet_edge_runtime.image import image_files

    return spread(image_files(folder))


def _show(result: ExportResult) -> None:
    from unet_edge_export.exporter import NOT_EXECUTED

    spec, agreement = result.spec, result.agreement
    shape = "any size" if spec.input_size is None else f"{spec.input_size[0]}x{spec.input_size[1]}"
    click.echo(f"{result.path}  ({result.size / 1e6:.2f} MB, {spec.precision}, {shape}, {spec.head})")
    if agreement is None:
        click.echo(f"  {NOT_EXECUTED}")
    else:
        if agreement.compared_logits:
            kind = "logit" if spec.head == "logits" else "probability"
            limit = result.tolerance.max_logit_difference
            click.echo(f"  largest {kind} difference  {agreement.max_difference:.2e}  (allowed {limit:.1e})")
        click.echo(f"  equal labels  {agreement.equal_labels:.4%} of {agreement.pixels:,} pixels")
        click.echo(f"  compared with PyTorch on {result.images}")
    if result.note:
        click.echo(f"  note: {result.note}")


def _show_next(results: list[ExportResult]) -> None:
    """A command to go on with; an artefact that runs on this machine comes first."""
    best = min(results, key=lambda result: not result.executed)
    where = "" if best.executed else "on a Mac: "
    click.echo(f"\n{where}unet-edge predict -m {shlex.quote(str(best.path))} IMAGES -o masks")
