"""Make a model that ships with the package, from a finished run: export it, score it, and write its card.

    python benchmarks/pretrained.py RUN --name nuclei

The run's best checkpoint and its export are both scored on the run's validation images, at the masks' own size. Into
`runtime/unet_edge_runtime/models/` go NAME.onnx, its card NAME.md, and NAME.json, which `unet-edge models` reads. Every
number in them is measured here or read from the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from unet_edge.checkpoint import Checkpoint, read_checkpoint
from unet_edge.cli.train import command as train_command
from unet_edge.data.pairing import Pair
from unet_edge.data.split import Split
from unet_edge.evaluation import evaluate
from unet_edge.training.config import TrainConfig
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig
from unet_edge_export import ExportResult, export_model
from unet_edge_export.images import spread
from unet_edge_runtime.errors import AgreementError, InputError, UnetEdgeError
from unet_edge_runtime.files import atomic_path, sha256_of, size_of, write_json, write_text
from unet_edge_runtime.image import read_image, to_uint8
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.spec import ModelSpec

MODELS = Path(__file__).parents[1] / "runtime" / "unet_edge_runtime" / "models"
# From these values on, in grey values, an image counts as coloured (mean difference of its largest and smallest
# channel) and as one on bright ground (mean of all).
COLOURED = 8
BRIGHT = 128


@dataclass(frozen=True)
class About:
    """What no run knows about its model.

    Attributes:
        purpose: what it segments, in a few words.
        data: what it was trained on, where it is from, and its licence.
        limits: what it is not for.
    """

    purpose: str
    data: str
    limits: tuple[str, ...]


ABOUT = {
    "nuclei": About(
        purpose="cell nuclei in light-microscopy images, fluorescent or stained",
        data="Images of the [2018 Data Science Bowl](https://bbbc.broadinstitute.org/BBBC038) "
        "(Broad Bioimage Benchmark Collection BBBC038v1; Caicedo et al., Nature Methods 16, 2019), CC0 1.0: no rights "
        "reserved. The masks of an image's nuclei were joined into one.",
        limits=(
            "It says which pixels belong to nuclei, not to which nucleus: those that touch are one region.",
            "Images of one experiment resemble each other, and the split is by file: on another microscope, tissue or "
            "magnification expect less than the scores above.",
            "For research and as a starting point. It was not examined for diagnosis.",
        ),
    )
}


@dataclass(frozen=True)
class Scored:
    """A model's confusion matrix of each validation image.

    Attributes:
        spec: the model's.
        images: by the name of the pair.
    """

    spec: ModelSpec
    images: dict[str, ConfusionMatrix]

    def summary(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Scores over all pixels of the named images together; of all images by default."""
        total = ConfusionMatrix(len(self.spec.classes))
        for name in self.images if names is None else names:
            total.counts += self.images[name].counts
        return total.summary(self.spec)

    def each(self) -> dict[str, float]:
        """IoU of each image that has one."""
        found = {name: matrix.summary(self.spec)["iou"] for name, matrix in self.images.items()}
        return {name: value for name, value in found.items() if value is not None}


def main(arguments: list[str] | None = None) -> int:
    """Make the model; 0, or 1 with one line of what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run with a validation split")
    parser.add_argument("--name", required=True, choices=list(ABOUT))
    parser.add_argument("--licence", default="MIT", help="of the weights")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        make(RunFolder(options.run), options.name, options.licence, options.models)
    except UnetEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(options.models / f"{options.name}.md")
    return 0


def make(run: RunFolder, name: str, licence: str, models: Path) -> None:
    """Export, score and describe a run's best checkpoint.

    Raises:
        InputError: the run has no validation images.
        AgreementError: the export gives other scores than the checkpoint.
    """
    split = Split.from_dict(run.read_split())
    if not split.val:
        raise InputError(f"{run.path} has no validation images: train with some, so that the card can have scores")
    checkpoint = read_checkpoint(run.best)
    with tempfile.TemporaryDirectory() as folder:
        about = {"author": "unet-edge", "license": licence, "description": ABOUT[name].purpose}
        chosen = spread([pair.image for pair in split.val])
        exported = export_model(
            run.best, "onnx", Path(folder) / f"{name}.onnx", dynamic=True, images=chosen, about=about
        )
        torch, onnx = (score(path, split.val) for path in (run.best, exported.path))
        if abs(torch.summary()["dice"] - onnx.summary()["dice"]) > 1e-4:
            raise AgreementError(f"{exported.path}: scores otherwise than {run.best}: nothing was written")
        card = card_text(name, licence, run, split, checkpoint, exported, torch, onnx)
        _write(models, name, licence, exported.path, card, onnx)


def score(model: Path, pairs: list[Pair]) -> Scored:
    """Every pair's confusion matrix, with the model on its own backend, on the CPU."""
    options: dict[str, Any] = {"device": "cpu"} if model.suffix == ".pth" else {}
    segmenter = Segmenter.open(model, **options)
    return Scored(segmenter.spec, {pair.name: evaluate(segmenter, [pair]) for pair in pairs})


def _write(models: Path, name: str, licence: str, model: Path, card: str, scored: Scored) -> None:
    found = scored.summary()
    with atomic_path(models / f"{name}.onnx") as temporary:
        shutil.copyfile(model, temporary)
    write_text(models / f"{name}.md", card)
    facts = {
        "purpose": ABOUT[name].purpose,
        "licence": licence,
        "sha256": sha256_of(model),
        "bytes": size_of(model),
        "scores": {"dice": found["dice"], "iou": found["iou"], "images": len(scored.images)},
    }
    write_json(models / f"{name}.json", facts)


def card_text(
    name: str,
    licence: str,
    run: RunFolder,
    split: Split,
    checkpoint: Checkpoint,
    exported: ExportResult,
    torch: Scored,
    onnx: Scored,
) -> str:
    """The card as Markdown."""
    about, spec = ABOUT[name], exported.spec
    config = json.loads(run.config.read_text(encoding="utf-8"))
    made_with = {**spec.provenance["versions"], **spec.provenance["exported_with"]}
    trained = spec.provenance["training"]
    lines = [f"# {name}", "", f"A U-Net for {about.purpose}.", ""]
    lines += ["```sh", f"unet-edge predict -m {name} photos -o masks", "```", ""]
    lines += ["| what | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in _facts(checkpoint, exported, licence).items()]
    lines += ["", "## Scores", "", *_scores(split, torch, onnx), "", *_by_kind(split.val, onnx)]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in about.limits)]
    lines += ["", "## Data", "", about.data, "", f"{len(split.train)} images trained, {len(split.val)} validated."]
    lines += ["", "## How it was made", "", "```sh", training_command(config, run.path.name)]
    lines += [f"python benchmarks/pretrained.py {run.path.name} --name {name}", "```", ""]
    lines += [
        f"Best validation in epoch {trained['epoch']} of {config['training']['epochs']}, on {config['device']}. "
        + ", ".join(f"{package} {version}" for package, version in made_with.items())
        + f". SHA-256 of the checkpoint: `{spec.provenance['checkpoint_sha256']}`."
    ]
    return "\n".join(lines) + "\n"


def _facts(checkpoint: Checkpoint, exported: ExportResult, licence: str) -> dict[str, str]:
    config, spec = checkpoint.config, exported.spec
    parameters = sum(value.numel() for value in checkpoint.build().parameters())
    values = ", ".join(f"{info.value} {info.name}" for info in spec.classes)
    return {
        "network": f"{config.base_channels} base channels, depth {config.depth}, {config.up} decoder, "
        f"{parameters:,} parameters",
        "input": f"{spec.channels} channels, any size, at scale {spec.scale:g}",
        "mask values": values,
        "file": f"ONNX, {spec.precision}, {exported.size / 1e6:.2f} MB, SHA-256 `{sha256_of(exported.path)}`",
        "licence of the weights": licence,
    }


def _scores(split: Split, torch: Scored, onnx: Scored) -> list[str]:
    rows = {"checkpoint (PyTorch)": torch.summary(), "this file (ONNX Runtime)": onnx.summary()}
    changed = sum(int((torch.images[name].counts != onnx.images[name].counts).any()) for name in onnx.images)
    each = onnx.each()
    worst = min(each, key=each.__getitem__)
    low = float(np.percentile(list(each.values()), 10))
    return [
        f"On {len(split.val)} validation images, at their own sizes, pixels counted over all images together, without "
        "background. The best epoch was chosen on these images, so the scores are a little flattered.",
        "",
        "| model | Dice | IoU | pixel accuracy |",
        "|---|---|---|---|",
        *(f"| {k} | {s['dice']:.4f} | {s['iou']:.4f} | {s['pixel_accuracy']:.4f} |" for k, s in rows.items()),
        "",
        f"Images on which the two count any pixel otherwise: {changed}. IoU of single images: median "
        f"{statistics.median(each.values()):.3f}, a tenth is below {low:.3f}, worst {each[worst]:.3f} ({worst}).",
    ]


def _by_kind(pairs: list[Pair], scored: Scored) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for pair in pairs:
        kinds.setdefault(kind_of(to_uint8(read_image(pair.image))), []).append(pair.name)
    lines = ["| kind of image | images | Dice | IoU |", "|---|---|---|---|"]
    for kind, names in sorted(kinds.items(), key=lambda entry: -len(entry[1])):
        found = scored.summary(names)
        shown = ["none" if found[key] is None else f"{found[key]:.4f}" for key in ("dice", "iou")]
        lines.append(f"| {kind} | {len(names)} | {' | '.join(shown)} |")
    return lines


def kind_of(pixels: np.ndarray) -> str:
    """In a word, how an image (H, W, 3) uint8 was taken: what a model can do differs most between these."""
    spread_of_channels = float(np.ptp(pixels.astype(np.int16), axis=2).mean())
    colour = "coloured" if spread_of_channels > COLOURED else "grey"
    return f"{colour}, on {'bright' if pixels.mean() >= BRIGHT else 'dark'} ground"


def training_command(config: Mapping[str, Any], out: str) -> str:
    """The `unet-edge train` of a run's config.json; of files and folders their names alone."""
    training = dataclasses.asdict(TrainConfig.from_dict(config["training"]))
    given = {**config["data"], **config["network"], **training}
    usual = _usual(str(given["recipe"]))
    changed = {name: value for name, value in given.items() if value != usual.get(name)}
    words = ["unet-edge", "train"]
    for option in train_command.params:
        if option.name in changed and isinstance(option, click.Option):
            words += _words(option, changed.pop(option.name))
    if changed.pop("has_background", True) is False:
        words.append("--no-background")
    words += ["--out", out]
    # What only Python can set.
    rest = " ".join(f"{name}={value}" for name, value in changed.items())
    return shlex.join(words) + (f"  # and {rest}" if rest else "")


def _usual(recipe: str) -> dict[str, Any]:
    usual: dict[str, Any] = dataclasses.asdict(TrainConfig.from_recipe(recipe))
    for kind in (DataConfig, NetworkConfig):
        fields = dataclasses.fields(kind)
        usual |= {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return {**usual, "recipe": TrainConfig().recipe}


def _words(option: click.Option, value: Any) -> list[str]:
    longest = max(option.opts, key=len)
    if isinstance(value, bool):
        return [longest] if value else list(option.secondary_opts[:1])
    if isinstance(option.type, click.Path):
        return [longest, Path(value).name]
    if isinstance(value, list | tuple):
        separator = "," if all(isinstance(part, str) for part in value) else "x"
        return [longest, separator.join(map(str, value))]
    return [longest, f"{value:g}" if isinstance(value, float) else str(value)]


if __name__ == "__main__":
    sys.exit(main())
