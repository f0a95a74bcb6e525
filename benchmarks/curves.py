"""The seed's recipe against ours: equal epochs on the same data with the same network, as a picture and a table.

    python benchmarks/curves.py --images cars/images --masks cars/masks --val-list val_cars.txt --group-by '^[^_]+' \\
        --scale 0.25 --base-channels 16 --bilinear --epochs 5 --seeds 0 1 --runs runs

Writes docs/curves.png and CURVES.md. `--runs` keeps every finished training: the same command again, after an
interruption or with one recipe more, trains only what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet_edge.training.config import RECIPES, TrainConfig
from unet_edge.training.reporter import Reporter
from unet_edge.training.start import DataConfig, NetworkConfig, train
from unet_edge_bench.machine import machine_facts, machine_text
from unet_edge_runtime.errors import InputError, UnetEdgeError
from unet_edge_runtime.files import atomic_path, write_json, write_text

ROOT = Path(__file__).parents[1]
COLOURS = ("#666666", "#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito's, told apart by most eyes


@dataclass
class Points(Reporter):
    """Notes the Dice of each validation, with the images and the seconds of training before it.

    Attributes:
        seconds: of training, without validations.
        images: trained.
        found: (images, seconds, Dice) of each validation.
    """

    seconds: float = 0.0
    images: int = 0
    found: list[tuple[int, float, float]] = field(default_factory=list)
    since: float = 0.0

    @contextmanager
    def epoch(self, *_: Any, **__: Any) -> Iterator[None]:
        """Start the clock."""
        self.since = time.monotonic()
        yield

    def step(self, images: int, *_: Any, **__: Any) -> None:
        """Count a step."""
        now = time.monotonic()
        self.seconds, self.images, self.since = self.seconds + now - self.since, self.images + images, now

    @contextmanager
    def validating(self, images: int) -> Iterator[Callable[..., None]]:
        """Leave the validation out of the time."""
        yield lambda *_: None
        self.since = time.monotonic()

    def validation(self, epoch: int, scores: Mapping[str, Any], is_best: bool) -> None:
        """Note a Dice; None, where no class occurs, as 0."""
        self.found.append((self.images, self.seconds, scores["dice"] or 0.0))


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, draw and write; 0, or 1 with one line of what is wrong."""
    options = _options(arguments)
    try:
        results = [_result(recipe, seed, options) for seed in options.seeds for recipe in options.recipes]
    except (UnetEdgeError, KeyboardInterrupt) as error:
        print(f"error: {error}" if str(error) else "interrupted: finished trainings are kept", file=sys.stderr)
        return 1
    draw(results, options.picture)
    write_text(options.output, markdown(results, options))
    print(options.output)
    return 0


def _result(recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """A training's points; of one that is finished from its file."""
    data = DataConfig(
        options.images,
        options.masks,
        val_list=options.val_list,
        group_by=options.group_by,
        validation=options.validation,
        fraction=options.fraction,
    )
    network = NetworkConfig(base_channels=options.base_channels, bilinear=options.bilinear, scale=options.scale)
    config = TrainConfig.from_recipe(recipe, epochs=options.epochs, seed=seed)
    made_of = json.loads(json.dumps([asdict(data), asdict(network), asdict(config), options.device], default=str))
    file = options.runs / f"{recipe}-{seed}.json"
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if kept.pop("made_of") == made_of:
            return kept
        raise InputError(f"{file} was made with other options: give another --runs, or remove it")
    out = options.runs / f"{recipe}-{seed}"
    shutil.rmtree(out, ignore_errors=True)  # of an interrupted training
    print(f"training {recipe}, seed {seed}", file=sys.stderr, flush=True)
    points = Points()
    best = train(data, out, network, config, options.device, points, trackers=())
    split = json.loads((out / "split.json").read_text(encoding="utf-8"))
    sizes = {"train": len(split["train"]), "val": len(split["val"])}
    rows = [(images / sizes["train"], seconds, dice) for images, seconds, dice in points.found]
    result = {"recipe": recipe, "seed": seed, "points": rows, "best": best["dice"], **sizes}
    write_json(file, {**result, "made_of": made_of})
    return result


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Validation Dice over epochs and over minutes of training, a colour a recipe, a line a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    recipes = list(dict.fromkeys(result["recipe"] for result in results))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for result in results:
        epochs, seconds, dice = zip(*result["points"], strict=True)
        colour = COLOURS[recipes.index(result["recipe"]) % len(COLOURS)]
        label = result["recipe"] if result["seed"] == results[0]["seed"] else None
        for axis, x in zip(axes, (epochs, [value / 60 for value in seconds]), strict=True):
            axis.plot(x, dice, ".-", color=colour, label=label, linewidth=1.5)
    axes[0].set(xlabel="epochs", ylabel="validation Dice without background", xlim=(0, None))
    axes[1].set(xlabel="minutes of training", xlim=(0, None))
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def markdown(results: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> str:
    """The table, with how it was made."""
    first, machine = results[0], machine_facts()
    width = f"{options.base_channels} base channels, {'bilinear' if options.bilinear else 'transposed'} decoder"
    picture = Path(os.path.relpath(options.picture, options.output.parent)).as_posix()
    heads = [f"epoch {epoch}" for epoch in range(1, options.epochs + 1)]
    lines = [
        "# The original's recipe against ours",
        "",
        f"Made by `{shlex.join(['python', 'benchmarks/curves.py', *_shown(options)])}`.",
        "",
        f"Both train the same network ({width}) at scale {options.scale:g} from the same first weights on the same "
        f"{first['train']} images for {options.epochs} epochs, and are scored on the same {first['val']}. `seed` is"
        " milesial/Pytorch-UNet's: its optimizer, rates, loss, batch of one, no augmentation. Minutes are those of"
        f" training, without validations, on {options.device}; {machine_text(machine)}, torch"
        f" {machine['packages'].get('torch')}.",
        "",
        f"![Validation Dice of both recipes over epochs and over minutes of training]({picture})",
        "",
        f"| recipe | seeds | best Dice | {' | '.join(heads)} | minutes |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for recipe in dict.fromkeys(result["recipe"] for result in results):
        chosen = [result for result in results if result["recipe"] == recipe]
        epochs = [_spread([_dice_at(result, epoch) for result in chosen]) for epoch in range(1, options.epochs + 1)]
        minutes = statistics.fmean(result["points"][-1][1] / 60 for result in chosen)
        best = _spread([result["best"] for result in chosen])
        lines.append(f"| {recipe} | {len(chosen)} | {best} | {' | '.join(epochs)} | {minutes:.1f} |")
    if len(options.seeds) > 1:
        lines += ["", "Means over the seeds, with the least and the greatest."]
    return "\n".join(lines) + "\n"


def _dice_at(result: Mapping[str, Any], epoch: int) -> float:
    """The Dice of the last validation up to the end of an epoch."""
    return [dice for at, _, dice in result["points"] if at <= epoch + 1e-6][-1]


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.4f}–{max(values):.4f}]"


def _shown(options: argparse.Namespace) -> list[str]:
    """The options as they would be typed, files and folders without where they are."""
    words = []
    for name in ("images", "masks", "val_list", "group_by", "validation", "fraction", "scale", "base_channels"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", value.name if isinstance(value, Path) else str(value)]
    words += ["--bilinear"] if options.bilinear else []
    words += ["--epochs", str(options.epochs), "--device", options.device, "--recipes", *options.recipes]
    return [*words, "--seeds", *map(str, options.seeds)]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--masks", type=Path, required=True, help="folder of their masks")
    parser.add_argument("--val-list", type=Path, help="file that names the validation images or groups")
    parser.add_argument("--group-by", help="as in `unet-edge train`")
    parser.add_argument("--validation", type=float, default=10.0, help="percent that validates, without a list")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training images to use")
    parser.add_argument("--scale", type=float, default=0.5, help="of the images")
    parser.add_argument("--base-channels", type=int, default=64, help="width of the network")
    parser.add_argument("--bilinear", action="store_true", help="bilinear decoder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", default=["seed", "default"], choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--runs", type=Path, required=True, help="folder that keeps the trainings")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "curves.png")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("CURVES.md"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
