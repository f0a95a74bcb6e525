"""Compare training recipes on real data sets at equal epochs, and write the table in RECIPES.md.

    python benchmarks/recipes.py --data ../shared/data
    python benchmarks/recipes.py --data ../shared/data --sets brain --variants default seed default:batch_size=4

A variant is a recipe's name with changed values behind it. Each set is trained from scratch with one seed by every
variant; scores are those of the best validation. Only validation images are scored: recipes are tuned on them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from unet_edge.training.config import TrainConfig
from unet_edge.training.start import DataConfig, NetworkConfig, train
from unet_edge_runtime.files import write_text

VARIANTS = [
    "default",
    "seed",
    "default:freeze_norm=1.0",
    "default:learning_rate=3e-4",
    "default:batch_size=4",
]


def data_sets(root: Path) -> dict[str, tuple[DataConfig, NetworkConfig, int]]:
    """The sets by name: what to train on, with which network, for how many epochs."""
    brain, cars, cells, roads = (root / name for name in ("mni152_nilearn", "carvana", "dsb2018", "camvid"))
    small = {"base_channels": 8, "bilinear": True}
    return {
        "brain": (
            DataConfig(brain / "images", brain / "masks", group_by=r"axial_\d\d", validation=20),
            NetworkConfig(**small, scale=1.0),
            5,
        ),
        "nuclei": (
            DataConfig(cells / "images", cells / "masks", validation=20),
            NetworkConfig(**small, scale=0.25),
            5,
        ),
        "cars": (
            DataConfig(cars / "images", cars / "masks", group_by="^[^_]+", validation=20, fraction=0.25),
            NetworkConfig(**small, scale=0.125),
            5,
        ),
        "roads": (
            DataConfig(
                roads / "train" / "images",
                roads / "train" / "masks",
                val_images=roads / "val" / "images",
                val_masks=roads / "val" / "masks",
                ignore=11,
                has_background=False,
                fraction=0.4,
            ),
            NetworkConfig(**small, scale=0.25),
            5,
        ),
    }


def run(name: str, variant: str, data: DataConfig, network: NetworkConfig, epochs: int) -> dict[str, Any]:
    """Train once; the best validation's Dice and the seconds it all took."""
    recipe, _, changes = variant.partition(":")
    values: dict[str, Any] = {"epochs": epochs}
    for change in filter(None, changes.split(",")):
        key, _, value = change.partition("=")
        kind = type(getattr(TrainConfig(), key))
        values[key] = value == "True" if kind is bool else kind(value)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        best = train(data, Path(folder) / "run", network, TrainConfig.from_recipe(recipe, **values), "cpu")
    result = {"set": name, "variant": variant, "dice": best["dice"], "seconds": time.monotonic() - started}
    print(f"{name:8} {variant:32} Dice {best['dice']:.4f}  {result['seconds']:.0f} s", flush=True)
    return result


def table(results: list[dict[str, Any]], variants: list[str], sets: dict[str, int], command: str) -> str:
    """The results as Markdown."""
    dice = {(r["set"], r["variant"]): r["dice"] for r in results}
    lines = [
        "# Training recipes on real data",
        "",
        f"Made by `{command}` with torch {torch.__version__}.",
        "Mean validation Dice without background after equal epochs (" + ", ".join(f"{n} {e}" for n, e in sets.items())
        + "), networks of base 8 with the bilinear decoder, one seed. With one seed, differences below about 0.01"
        " say nothing.",
        "",
        "The default was chosen after trying these and other values (learning rates, batch sizes, momentum, decay) on"
        " the same validation images, and freeze_norm because of nuclei, so its row is flattered: nothing here was"
        " held out.",
        "",
        "| variant | " + " | ".join(sets) + " | mean |",
        "|---" * (len(sets) + 2) + "|",
    ]  # fmt: skip
    for variant in variants:
        row = [dice[name, variant] for name in sets]
        lines.append(f"| {variant} | " + " | ".join(f"{d:.4f}" for d in row) + f" | {sum(row) / len(row):.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train every variant on every set and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--sets", nargs="+", default=["brain", "nuclei", "cars", "roads"])
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at once, one thread each")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RECIPES.md"))
    options = parser.parse_args()
    chosen = {name: data_sets(options.data)[name] for name in options.sets}
    with ProcessPoolExecutor(options.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(run, name, variant, *chosen[name]) for name in chosen for variant in options.variants]
        results = [future.result() for future in waiting]
    epochs = {name: entry[2] for name, entry in chosen.items()}
    text = table(results, options.variants, epochs, "python benchmarks/recipes.py --data ../shared/data")
    write_text(options.output, text)


if __name__ == "__main__":
    main()
