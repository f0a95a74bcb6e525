"""`unet-edge export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import EXISTING_FOLDER, SizeType, echo_json, say

if TYPE_CHECKING:
    from unet_edge_export import ExportResult
    from unet_edge_runtime.scores import Agreement

__all__ = ["command"]

SUFFIXES = {"onnx": ".onnx", "coreml": ".mlpackage"}
HEADS = ("logits", "probabilities", "classmap", "mask-image")
TARGETS = ("macOS13", "macOS14", "macOS15", "macOS26")
COMPRESSIONS = ("int8", "palette8", "palette6", "palette4", "int4", "sparse50", "w8a8")


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
@click.option(
    "--size",
    "sizes",
    type=SizeType(),
    multiple=True,
    help="Fixed input size, at the network's scale; by default the training size. "
    "Given several times: one Core ML package with a function for each, the first the default.",
)
@click.option("--dynamic", is_flag=True, help="Any batch, height and width (ONNX).")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32", "mixed"]),
    help="By default fp16 for Core ML, fp32 for ONNX (the only one); mixed: fp16 but for --fp32-layers.",
)
@click.option("--fp32-layers", metavar="LAYER,...", help="Layers that stay in fp32, such as outc,up4.conv (Core ML).")
@click.option(
    "--head",
    type=click.Choice(HEADS),
    default="logits",
    show_default=True,
    help="What the graph returns; mask-image: a grey picture of the mask values (Core ML).",
)
@click.option(
    "--compress",
    type=click.Choice(COMPRESSIONS),
    help="Smaller weights, with w8a8 also activations, at some loss, which is measured and bounded (Core ML).",
)
@click.option(
    "--calibration", type=EXISTING_FOLDER, help="Images for --compress w8a8; by default training images of the run."
)
@click.option("--images", type=EXISTING_FOLDER, help="Images to compare on; by default validation images of the run.")
@click.option("--scale", type=float, help="Image scale, for checkpoints that do not know their own.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="Oldest system that is to run the Core ML package; by default macOS14, or what the other options need.",
)
@click.option("--author", help="Who made the model; written into the artefact, as are the next three.")
@click.option("--license", "licence", help="Its licence.")
@click.option("--description", help="What it is for, in a sentence.")
@click.option("--model-version", help="Its version; by default the first digits of the checkpoint's hash.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    checkpoint: Path,
    formats: tuple[str, ...],
    output: Path | None,
    sizes: tuple[tuple[int, int], ...],
    dynamic: bool,
    precision: str | None,
    fp32_layers: str | None,
    head: str,
    compress: str | None,
    calibration: Path | None,
    images: Path | None,
    scale: float | None,
    target: str | None,
    author: str | None,
    licence: str | None,
    description: str | None,
    model_version: str | None,
    as_json: bool,
) -> None:
    """Convert CHECKPOINT to ONNX or Core ML and check that the result agrees with PyTorch.

    \b
    unet-edge export run/best.pth
    unet-edge export run/best.pth --format onnx --format coreml --size 320x480 -o deploy
    unet-edge export run/best.pth --format coreml --size 320x480 --size 640x960 --head classmap --compress palette6
    """
    formats = tuple(dict.fromkeys(formats))
    targets = {format: _target(checkpoint, format, output, len(formats)) for format in formats}

    from unet_edge_export import export_model

    about = {"author": author, "license": licence, "description": description, "model_version": model_version}
    settings: dict[str, Any] = {
        "size": sizes,
        "dynamic": dynamic,
        "precision": precision,
        "fp32_layers": tuple(name.strip() for name in fp32_layers.split(",")) if fp32_layers else (),
        "head": head,
        "compression": compress,
        "calibration": _images(calibration),
        "images": _images(images),
        "scale": scale,
        "target": target,
        "about": {key: value for key, value in about.items() if value},
    }
    results = []
    for format, path in targets.items():
        result = export_model(checkpoint, format, path, report=say, **settings)
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
    spec = result.spec
    shape = " ".join(f"{height}x{width}" for height, width in spec.input_sizes or [spec.input_size or (0, 0)])
    facts = [spec.precision, shape if spec.input_size else "any size", "mask image" if spec.label_values else spec.head]
    compression = spec.provenance.get("compression")
    facts += [compression["name"]] if compression else []
    click.echo(f"{result.path}  ({result.size / 1e6:.2f} MB, {', '.join(facts)})")
    _show_agreement(result, result.agreement)
    if result.note:
        click.echo(f"  note: {result.note}")


def _show_agreement(result: ExportResult, agreement: Agreement) -> None:
    allowed = result.to_dict()["tolerance"]
    if agreement.compared_logits:
        kind = "logit" if result.spec.head == "logits" else "probability"
        limit = f"(allowed {allowed['max_logit_difference']:.1e})" if "max_logit_difference" in allowed else ""
        click.echo(f"  largest {kind} difference  {agreement.max_difference:.2e}  {limit}".rstrip())
    click.echo(f"  equal labels  {agreement.equal_labels:.4%} of {agreement.pixels:,} pixels")
    if "dice" in allowed:
        click.echo(f"  Dice with PyTorch's labels  {agreement.dice:.4f}  (required {allowed['dice']:g})")
    click.echo(f"  compared with PyTorch on {result.images}")
    if result.proof:
        click.echo(f"  {result.proof}")


def _show_next(results: list[ExportResult]) -> None:
    """A command to go on with; an artefact that runs on this machine comes first."""
    best = min(results, key=lambda result: bool(result.proof))
    where = "on a Mac: " if best.proof else ""
    click.echo(f"\n{where}unet-edge predict -m {shlex.quote(str(best.path))} IMAGES -o masks")
