"""Train on public data sets, score images that were held out, and write ACCURACY.md.

    python benchmarks/accuracy.py --data ../shared/data --runs runs
    python benchmarks/accuracy.py --data ../shared/data --runs runs --sets nuclei96 membranes

Every set is trained by the `unet-edge train` commands that the page shows. `--runs` keeps the finished ones, and an
interrupted one is resumed: the same command again does only what is missing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.split import Split
from unet_edge.evaluation import evaluate
from unet_edge.image_scores import ImageScores
from unet_edge.training.run_folder import RunFolder
from unet_edge_bench.costs import layer_costs
from unet_edge_bench.machine import machine_facts
from unet_edge_runtime.files import atomic_path, write_json
from unet_edge_runtime.image import image_files
from unet_edge_runtime.segmenter import Segmenter

PEER_SIDE, PEER_BATCH = 96, 16  # of 4uiiurz1/pytorch-nested-unet, whose IoU is a mean over batches


@dataclass(frozen=True)
class Set:
    """A data set, how to train on it, and what to beat.

    Attributes:
        title: its name, and what validates.
        target: what others have, with the score's name.
        score: names the score in the table: dice, iou or challenge_error.
        stages: options of `unet-edge train`, a line for each run; a later one starts from the one before.
        flips: of a second evaluation, by mirror images.
        prepare: makes the folders that the options name, from the data folder into a new one.
    """

    title: str
    target: str
    score: str
    stages: tuple[str, ...]
    flips: str = "horizontal"
    prepare: Callable[[Path, Path], None] | None = None


def small_nuclei(data: Path, target: Path) -> None:
    """The nuclei as the peers have them: images and masks resized to 96x96; every 5th file validates."""
    source = data / "dsb2018"
    for kind in ("images", "masks"):
        (target / kind).mkdir(parents=True, exist_ok=True)
    names = []
    for path in sorted((source / "images").iterdir()):
        size = (PEER_SIDE, PEER_SIDE)
        Image.open(path).convert("RGB").resize(size, Image.Resampling.BILINEAR).save(target / "images" / path.name)
        mask = Image.open(source / "masks" / path.name).convert("L").resize(size, Image.Resampling.BILINEAR)
        mask.point(lambda value: 255 * (value > 127)).save(target / "masks" / path.name)
        names.append(path.stem)
    every_fifth(names, target)


def every_fifth(names: list[str], target: Path) -> None:
    """Write val.txt."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "val.txt").write_text("".join(f"{name}\n" for name in names[::5]), encoding="utf-8")


def nuclei_list(data: Path, target: Path) -> None:
    """Every 5th file of the sorted list validates."""
    every_fifth([path.stem for path in image_files(data / "dsb2018" / "images")], target)


def last_slices(data: Path, target: Path) -> None:
    """Slices 20 to 23 of the membranes validate."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "val.txt").write_text("20\n21\n22\n23\n", encoding="utf-8")


SMALL = "--base-channels 16 --bilinear --amp"
CARS = (
    "--images {data}/carvana/images --masks {data}/carvana/masks --val-list {data}/carvana/val_cars.txt "
    f"--group-by '^[^_]+' {SMALL} --norm-images 0"
)
SETS = {
    "cars": Set(
        "Carvana, 8 cars of 40 held out, scored at 1918x1280",
        "Dice 0.988 (milesial: 31 M parameters, 5,088 images, scale 0.5), asked for here: 0.992 with 18 GFLOP",
        "dice",
        (
            f"{CARS} --recipe thorough --scale 0.125 --learning-rate 2e-3 --epochs 24",
            f"{CARS} --recipe thorough --scale 0.25 --epochs 12",
        ),
    ),
    "nuclei96": Set(
        "DSB 2018 at 96x96, every 5th image held out",
        "IoU 0.842 (UNet++), 0.839 (U-Net), on another random fifth",
        "iou",
        (f"--images {{made}}/images --masks {{made}}/masks --val-list {{made}}/val.txt --scale 2 {SMALL} "
         "--recipe microscopy --norm-images 0 --augment light --epochs 40",),
        "both",
        small_nuclei,
    ),
    "nuclei": Set(
        "DSB 2018 at its own sizes, every 5th image held out",
        "none known at these sizes",
        "iou",
        (f"--images {{data}}/dsb2018/images --masks {{data}}/dsb2018/masks --val-list {{made}}/val.txt --scale 1 "
         f"{SMALL} --recipe microscopy --norm-images 0 --crop 256x256 --epochs 24",),
        "both",
        nuclei_list,
    ),
    "membranes": Set(
        "ISBI 2012, slices 20 to 23 held out",
        "0.0611 (Ronneberger et al. 2015, on the challenge's own test slices)",
        "challenge_error",
        (f"--images {{data}}/isbi2012/images --masks {{data}}/isbi2012/masks --val-list {{made}}/val.txt --scale 1 "
         f"{SMALL} --recipe microscopy --loss ce+dice --ema 0.99 --batch-size 2 --epochs 100",),
        "both",
        last_slices,
    ),
    "roads": Set(
        "CamVid validation, 11 classes, from scratch",
        "mIoU 0.60 asked for on a GPU; none on two cores",
        "iou",
        (f"--images {{data}}/camvid/train/images --masks {{data}}/camvid/train/masks "
         f"--val-images {{data}}/camvid/val/images --val-masks {{data}}/camvid/val/masks --ignore 11 "
         f"--no-background --scale 1 {SMALL} --recipe thorough --loss ce+lovasz --crop 256x320 --batch-size 8 "
         "--learning-rate 2e-3 --epochs 80",),
    ),
}  # fmt: skip


def main() -> int:
    """Train what is missing, score, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--runs", type=Path, required=True, help="keeps the trainings")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("ACCURACY.md"))
    arguments = parser.parse_args()
    rows = {name: result(name, SETS[name], arguments.data, arguments.runs) for name in arguments.sets}
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(page(rows), encoding="utf-8")
    print(arguments.output)
    return 0


def result(name: str, job: Set, data: Path, runs: Path) -> dict[str, Any]:
    """Train the stages that are not finished, and score the last one's best checkpoint; kept beside the runs."""
    folder = runs / name
    if job.prepare and not (folder / "made" / "val.txt").exists():
        job.prepare(data, folder / "made")
    options, last = [], None
    for number, stage in enumerate(job.stages, start=1):
        run = folder / f"stage{number}"
        words = shlex.split(stage.format(data=data, made=folder / "made"))
        words += ["--load", str(last / "best.pth")] if last else []
        train(words, run)
        options.append(words)
        last = run
    assert last is not None
    kept = folder / "scores.json"
    if not kept.exists() or kept.stat().st_mtime < (last / "best.pth").stat().st_mtime:
        write_json(kept, measured(job, last))
    return {**json.loads(kept.read_text(encoding="utf-8")), "commands": commands(job, name)}


def train(words: list[str], run: Path) -> None:
    """Run `unet-edge train`, or go on with what an interruption left."""
    if (run / "finished").exists():
        return
    more = ["--resume", str(run)] if (run / "last.pth").exists() else [*words, "--out", str(run), "--save-every", "5m"]
    subprocess.run([sys.executable, "-m", "unet_edge", "train", *more], check=True)
    (run / "finished").touch()


def measured(job: Set, run: Path) -> dict[str, Any]:
    """Scores of the run's best checkpoint with and without mirror images, its cost, and how long it trained."""
    checkpoint = read_checkpoint(run / "best.pth")
    segmenter = Segmenter.open(run / "best.pth")
    pairs = Split.from_dict(RunFolder(run).read_split()).val
    found: dict[str, Any] = {}
    for flips in ("none", job.flips):
        scores = ImageScores(segmenter.spec)
        evaluate(segmenter, pairs, flips=flips, on_image=scores.add)
        summary = scores.summary()
        found[flips] = {
            **{key: summary[key] for key in ("dice", "iou", "pixel_error", "images", "mean_over_images")},
            "challenge_error": 1 - summary["dice"],
            "classes": {item["name"]: item["iou"] for item in summary["classes"]},
            "iou_of_batches": iou_of_batches(scores),
        }
    size = checkpoint.spec.training_sizes[0]
    flops = 2 * sum(layer.macs for layer in layer_costs(run / "best.pth", "torch", size))
    return {
        "scores": found,
        "flips": job.flips,
        "size": size,
        "gflop": flops / 1e9,
        "parameters": sum(value.numel() for value in checkpoint.build().parameters()),
        "epoch": checkpoint.spec.provenance["training"]["epoch"],
        "machine": machine_facts(),
    }


def iou_of_batches(scores: ImageScores) -> float | None:
    """Mean over batches of the IoU of class 1, as the peers of the nuclei compute it; None for other sets."""
    matrices = [scores.matrices[name].counts for name in sorted(scores.matrices)]
    if matrices[0].shape != (2, 2):
        return None
    sums = [np.sum(matrices[at : at + PEER_BATCH], axis=0) for at in range(0, len(matrices), PEER_BATCH)]
    ious = [counts[1, 1] / (counts[0, 1] + counts[1, 0] + counts[1, 1]) for counts in sums]
    sizes = [len(matrices[at : at + PEER_BATCH]) for at in range(0, len(matrices), PEER_BATCH)]
    return float(np.average(ious, weights=sizes))


def commands(job: Set, name: str) -> list[str]:
    """What was run, with DATA and RUNS for the folders."""
    shown = []
    for number, stage in enumerate(job.stages, start=1):
        words = stage.format(data="DATA", made=f"RUNS/{name}/made")
        start = f" --load RUNS/{name}/stage{number - 1}/best.pth" if number > 1 else ""
        shown.append(f"unet-edge train {words}{start} --out RUNS/{name}/stage{number}")
    return shown


def page(rows: dict[str, dict[str, Any]]) -> str:
    """The Markdown page."""
    lines = [
        "# Accuracy on held-out images",
        "",
        "Made by `python benchmarks/accuracy.py --data DATA --runs RUNS`. Scores are those of the epoch with the best",
        "validation Dice, on the images that chose it; one run with one seed. IoU and Dice without the background",
        "unless a set has none; over all pixels of all images together. The challenge error is what ISBI 2012 called",
        "its pixel error: 1 - F-score of the pixels inside of cells, there with the best threshold, here with 0.5; the",
        "pixel error further down is the share of wrong pixels.",
        "",
        "| set | score | ours | with mirror images | others | GFLOP an image | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        job, scores = SETS[name], row["scores"]
        plain, mirrored = scores["none"], scores[row["flips"]]
        lines.append(
            f"| {job.title} | {job.score.replace('_', ' ')} | {plain[job.score]:.4f} | {mirrored[job.score]:.4f} "
            f"({row['flips']}) | {job.target} | {row['gflop']:.1f} at {row['size'][0]}x{row['size'][1]} | "
            f"{row['parameters'] / 1e6:.2f} M |"
        )
    for name, row in rows.items():
        lines += ["", f"## {SETS[name].title}", "", "```", *row["commands"], "```", "", *details(row)]
    return "\n".join(lines) + "\n"


def details(row: dict[str, Any]) -> list[str]:
    """What else is known of a set's scores."""
    plain = row["scores"]["none"]
    means = plain["mean_over_images"]
    lines = [
        f"{plain['images']} images; Dice {plain['dice']:.4f}, IoU {plain['iou']:.4f}, pixel error "
        f"{plain['pixel_error']:.4f}; mean over images: Dice {means['dice']:.4f}, IoU {means['iou']:.4f}; "
        f"best epoch of the last run: {row['epoch']}."
    ]
    if plain["iou_of_batches"] is not None:
        mirrored = row["scores"][row["flips"]]["iou_of_batches"]
        lines.append(
            f"IoU as a mean over batches of {PEER_BATCH} images: {plain['iou_of_batches']:.4f}, with mirror images "
            f"{mirrored:.4f}."
        )
    if len(plain["classes"]) > 2:
        lines.append("IoU by class: " + ", ".join(f"{name} {iou:.3f}" for name, iou in plain["classes"].items()) + ".")
    return lines


if __name__ == "__main__":
    sys.exit(main())
