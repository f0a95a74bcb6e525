"""Cross-validation: as many runs as folds, each scored on the part that it did not see."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from unet_edge.data.split import Split
from unet_edge.device import pick_device
from unet_edge.evaluation import default_batch, evaluate
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.errors import InputError, TrainingError
from unet_edge_runtime.files import write_json
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.spec import ModelSpec

from .config import TrainConfig
from .distributed import current
from .run_folder import RunFolder
from .setup import DataConfig, NetworkConfig
from .start import HARMLESS, resume, train

__all__ = ["fold_table", "train_folds"]

SCORES = ("dice", "iou", "pixel_error")


def train_folds(
    data: DataConfig,
    out: Path,
    folds: int,
    *,
    network: NetworkConfig | None = None,
    config: TrainConfig | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda message: None,
    **options: Any,
) -> dict[str, Any]:
    """Train a run for each fold, in `out/fold1`, `out/fold2` and so on, and score each one's best network.

    Every pair validates exactly once. Called again with the same arguments it goes on: what is finished is kept,
    what was interrupted is resumed. The result is written to `out/folds.json` too, after every fold.

    Args:
        data: what to train on; its `folds` and `fold` are set here.
        out: folder of the folds.
        folds: how many, at least 2.
        network: as for `train`.
        config: as for `train`.
        device: as for `train`.
        say: told which fold begins, and what `train` tells.
        options: further arguments of `train`.

    Returns:
        `folds`, the scores of each; `mean` and `deviation` (of the sample, n - 1) over them; and `pooled`, the
        scores over all pixels of all folds. The networks are each run's best on its own validation images, so
        that the scores are a little higher than on images that chose nothing.

    Raises:
        InputError: fewer pairs (or groups) than folds, a fold in `out` was made with other arguments, or the data
            set has changed between two folds.
        DatasetError, TrainingError: as `train`.
    """
    network, config = network or NetworkConfig(), config or TrainConfig()
    options = {"device": device, **options}
    done: list[dict[str, Any]] = []
    splits: list[Split] = []
    for fold in range(1, folds + 1):
        run = RunFolder(out / f"fold{fold}")
        one = replace(data, folds=folds, fold=fold)
        say(f"fold {fold} of {folds}: {run.path}")
        try:
            best = _train_or_resume(one, run, network, config, {"say": say, **options})
        except TrainingError:
            say(f"fold {fold} of {folds} is not finished: the same command goes on from here")
            raise
        splits.append(Split.from_dict(run.read_split(), str(run.split)))
        _check_disjoint(splits, out)
        spec, matrix = _score(run, splits[-1], device)
        scores = matrix.summary(spec)
        where = {"fold": fold, "folder": run.path.name, "epoch": best["epoch"], "images": len(splits[-1].val)}
        done.append({**where, **scores, "confusion": matrix.counts.tolist()})
        summary = _summary(done, folds, spec)
        if current().is_writer:
            write_json(out / "folds.json", summary)
    return summary


def fold_table(summary: dict[str, Any]) -> str:
    """What `train_folds` returns as lines for people."""
    rows = [(f"fold {scores['fold']}", scores, scores["images"]) for scores in summary["folds"]]
    everything = sum(images for _, _, images in rows)
    rows += [("mean", summary["mean"], ""), ("deviation", summary["deviation"], "")]
    rows += [("all pixels", summary["pooled"], everything)]
    lines = [f"{'':10}    Dice     IoU  pixel error  images"]
    for name, scores, images in rows:
        dice, iou, error = (_number(scores[key]) for key in SCORES)
        lines.append(f"{name:10}  {dice}  {iou}      {error}  {images:>6}".rstrip())
    return "\n".join(lines)


def _train_or_resume(
    data: DataConfig, run: RunFolder, network: NetworkConfig, config: TrainConfig, options: dict[str, Any]
) -> dict[str, Any]:
    if not run.last.exists():
        return train(data, run.path, network, config, **options)
    _check_same(run, {"data": data, "network": network, "training": config})
    known = {name: options[name] for name in ("device", "reporter", "trackers") if name in options}
    return resume(run.path, **known, changes={name: getattr(config, name) for name in HARMLESS})


def _check_same(run: RunFolder, given: dict[str, Any]) -> None:
    """Going on with other options than those of the first folds would compare what cannot be compared."""
    try:
        saved = json.loads(run.config.read_text(encoding="utf-8"))
        parts = [(part, asdict(options), dict(saved[part])) for part, options in given.items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run.config} is missing or damaged ({error}): choose another folder") from None
    for part, options, before in parts:
        now = json.loads(json.dumps(options, default=str))
        changed = sorted(
            key for key in now.keys() | before.keys() if key not in HARMLESS and now.get(key) != before.get(key)
        )
        if changed:
            raise InputError(
                f"{run.path} was made with another {changed[0].replace('_', ' ')} ({part}): give the same options to "
                "go on, or choose another folder"
            )


def _check_disjoint(splits: Sequence[Split], out: Path) -> None:
    last = splits[-1]
    seen = {pair.name for split in splits[:-1] for pair in split.val}
    everything = [{pair.name for pair in (*split.train, *split.val)} for split in (splits[0], last)]
    if everything[0] != everything[1] or any(pair.name in seen for pair in last.val):
        raise InputError(f"{out}: the data set has changed between the folds: train all of them in another folder")


def _score(run: RunFolder, split: Split, device: str) -> tuple[ModelSpec, ConfusionMatrix]:
    """The best network of a run on its validation images; each process counts its share."""
    world = current()
    target = world.device(pick_device(device))
    with world.join(target):
        backend = TorchBackend(run.best, target.type)
        matrix = evaluate(Segmenter(backend), split.val, shard=(world.rank, world.size), batch=default_batch(backend))
        matrix.counts = world.all_sum(matrix.counts)
    return backend.spec, matrix


def _summary(done: list[dict[str, Any]], folds: int, spec: ModelSpec) -> dict[str, Any]:
    pooled = ConfusionMatrix(len(spec.classes))
    for scores in done:
        pooled.counts += np.asarray(scores["confusion"], np.int64)
    columns = {key: [scores[key] for scores in done if scores[key] is not None] for key in SCORES}
    return {
        "wanted": folds,
        "folds": done,
        "mean": {key: mean(values) if values else None for key, values in columns.items()},
        "deviation": {key: stdev(values) if len(values) > 1 else None for key, values in columns.items()},
        "pooled": pooled.summary(spec),
    }


def _number(value: float | None) -> str:
    return "   none" if value is None else f"{value:7.4f}"
