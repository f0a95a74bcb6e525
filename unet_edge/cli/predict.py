"""`unet-edge predict`."""

from __future__ import annotations

import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import BACKEND_HELP, COMPUTE_UNITS, MODEL_FILE, echo_json, say, tell_what_it_proves, track

if TYPE_CHECKING:
    from unet_edge_runtime.segmenter import Segmentation

PATH = click.Path(path_type=Path)
NOT_FOR_ONNX = ("torch", "coreml", "coreml-ref")  # ours; somebody else's backend may well read it
MODEL_HELP = "A checkpoint, .onnx or .mlpackage, or a pretrained model's name (listed by unet-edge models)."


@click.command(epilog="Example: unet-edge predict -m run/best.onnx new_photos -o new_masks --overlay")
@click.argument("inputs", nargs=-1, type=PATH)
@click.option("--model", "-m", type=MODEL_FILE, required=True, help=MODEL_HELP)
@click.option("--input", "-i", "more_inputs", multiple=True, type=PATH, help="As INPUTS; may be repeated.")
@click.option(
    "--output", "-o", "outputs", multiple=True, type=PATH, help="Folder for the masks, or a file for each input."
)
@click.option("--backend", metavar="NAME", help=BACKEND_HELP)
@click.option("--overlay", is_flag=True, help="Also write <stem>_OVERLAY.png: the image, tinted.")
@click.option("--viz", "-v", is_flag=True, help="Also write <stem>_VIZ.png: image, mask and overlay side by side.")
@click.option("--probabilities", is_flag=True, help="Also write <stem>_PROB.npy: (classes, H, W) float16.")
@click.option("--no-save", "-n", is_flag=True, help="Write no mask.")
@click.option("--threshold", "--mask-threshold", "-t", type=float, help="Probability for class 1 of a two-class model.")
@click.option("--scale", "-s", type=float, help="Image scale of a checkpoint that does not know its own.")
@click.option("--skip-existing", is_flag=True, help="Leave out inputs whose mask is there already.")
@click.option("--device", help="For torch: auto, cpu, cuda or mps.")
@click.option("--compute-units", type=COMPUTE_UNITS, help="For coreml.  [default: ane: CPU and Neural Engine]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    inputs: tuple[Path, ...],
    model: Path,
    more_inputs: tuple[Path, ...],
    outputs: tuple[Path, ...],
    backend: str | None,
    overlay: bool,
    viz: bool,
    probabilities: bool,
    no_save: bool,
    threshold: float | None,
    scale: float | None,
    skip_existing: bool,
    device: str | None,
    compute_units: str | None,
    as_json: bool,
) -> None:
    """Write masks for INPUTS: image files, folders of images, or quoted patterns.

    Masks carry the training masks' own values, at each image's own size, as <stem>_OUT.png beside the image or in
    the output folder. A file that cannot be read is reported and left out; the exit code is then 1.
    """
    from unet_edge_runtime.errors import UnetEdgeError
    from unet_edge_runtime.segmenter import Segmenter
    from unet_edge_runtime.targets import mask_targets

    images = _expand([*inputs, *more_inputs])
    jobs = list(zip(images, mask_targets(images, outputs), strict=True))
    given = {"scale": scale, "device": device, "compute_units": compute_units}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    segmenter = Segmenter.open(*_resolve(model, backend, options), threshold=threshold, **options)
    tell_what_it_proves(segmenter.backend)
    if skip_existing:
        jobs = [(image, target) for image, target in jobs if not target.exists()]
    written: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for image, target in track(jobs, "predict", len(jobs)):
        try:
            result = segmenter.segment(image)
            files = _write(result, target, overlay, viz, probabilities, no_save)
            written.append({"input": str(image), **files})
        except UnetEdgeError as error:
            failed.append({"input": str(image), "error": str(error)})
            say(f"skipped: {error}")
    if as_json:
        echo_json({"written": written, "failed": failed, "backend": segmenter.backend.name, "model": str(model)})
    else:
        for files in written[:10]:
            click.echo(" ".join(value for key, value in files.items() if key != "input") or files["input"])
        if len(written) > 10:
            click.echo(f"... {len(written)} images in all")
    if failed:
        say(f"{len(failed)} of {len(jobs)} inputs could not be segmented")
        sys.exit(1)


def _expand(inputs: list[Path]) -> list[Path]:
    from unet_edge_runtime.errors import InputError
    from unet_edge_runtime.image import image_files
    from unet_edge_runtime.targets import is_written_by_us

    images: list[Path] = []
    for item in inputs:
        if item.is_dir():
            found = image_files(item)
            images += [path for path in found if not is_written_by_us(path, found)]
        elif item.exists() or not glob.has_magic(str(item)):
            images.append(item)  # a missing file is reported as a bad input, without stopping the others
        else:
            matches = [path for path in sorted(map(Path, glob.glob(str(item), recursive=True))) if path.is_file()]
            if not matches:
                raise InputError(f"{item}: matches no file")
            images += [path for path in matches if not is_written_by_us(path, matches)]
    if not images:
        raise click.UsageError("no input: give image files, folders or patterns")
    return list(dict.fromkeys(images))


def _resolve(model: Path, backend: str | None, options: dict[str, Any]) -> tuple[Path, str | None]:
    """A checkpoint that is to run on ONNX is exported first, unless its export is there already."""
    from unet_edge_runtime.backend import backend_for
    from unet_edge_runtime.errors import InputError

    if backend in NOT_FOR_ONNX and model.suffix.lower() == ".onnx":
        raise InputError(f"{model} is an ONNX model, which backend {backend} does not run: leave --backend out")
    if backend != "onnx" or not model.suffix or backend_for(model) != "torch":
        return model, backend
    from unet_edge_export import export_sibling

    options.pop("device", None)
    path, exported = export_sibling(model, scale=options.pop("scale", None))
    say(f"{'exported' if exported else 'using'} {path}")
    return path, backend


def _write(
    result: Segmentation, target: Path, overlay: bool, viz: bool, probabilities: bool, no_save: bool
) -> dict[str, str]:
    from unet_edge_runtime.files import atomic_path
    from unet_edge_runtime.segmenter import save_picture

    base = target.stem.removesuffix("_OUT")
    files: dict[str, str] = {}
    if not no_save:
        result.save(target)
        files["mask"] = str(target)
    if overlay:
        files["overlay"] = str(target.with_name(f"{base}_OVERLAY.png"))
        save_picture(result.overlay, files["overlay"])
    if viz:
        files["viz"] = str(target.with_name(f"{base}_VIZ.png"))
        save_picture(result.panel(), files["viz"])
    if probabilities:
        import numpy as np

        files["probabilities"] = str(target.with_name(f"{base}_PROB.npy"))
        with atomic_path(files["probabilities"]) as temporary:
            np.save(temporary, result.probabilities.astype(np.float16))
    return files
