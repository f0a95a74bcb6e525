"""From folders to a trained network: `train` and `resume`, which the command line and Python share."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import unet_edge_runtime
from unet_edge.checkpoint import Checkpoint, class_infos, read_checkpoint
from unet_edge.data.checks import prepare
from unet_edge.data.scan import Scan, check_values
from unet_edge.data.split import Split, split_pairs
from unet_edge.device import pick_device
from unet_edge.model import UNet, UNetConfig
from unet_edge_runtime.errors import DatasetError, InputError
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.spec import MaskValue, ModelSpec
from unet_edge_runtime.transform import scaled_size

from .config import TrainConfig
from .reporter import Reporter
from .run_folder import RunFolder
from .trainer import Trainer

__all__ = ["DataConfig", "NetworkConfig", "resume", "train"]

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Attributes:
        images: folder of images.
        masks: folder of masks.
        mask_suffix: what a mask's stem has more than its image's; found by itself by default.
        val_images: folder of validation images, instead of a split.
        val_masks: folder of their masks.
        val_list: file that names the validation images (or groups), instead of a random split.
        validation: percent of the images that validate, when nothing above says which.
        group_by: regular expression on the stem; images whose match is equal stay on one side.
        fraction: share of the data to use.
        ignore: mask value that does not count.
        class_names: names of the classes, in the order of their mask values.
        has_background: whether the first class is a background, which mean scores leave out.
        max_classes: more mask values than this are taken for a mistake, such as masks saved as JPEG.
    """

    images: Path
    masks: Path
    mask_suffix: str | None = None
    val_images: Path | None = None
    val_masks: Path | None = None
    val_list: Path | None = None
    validation: float = 10.0
    group_by: str | None = None
    fraction: float = 1.0
    ignore: MaskValue | None = None
    class_names: tuple[str, ...] | None = None
    has_background: bool = True
    max_classes: int = 64


@dataclass(frozen=True)
class NetworkConfig:
    """Which network to train.

    Attributes:
        base_channels: width of the first block.
        depth: how often the image is halved.
        bilinear: interpolate in the decoder instead of transposed convolutions.
        classes: 1 for a sigmoid on two classes; otherwise the number of mask values, which is the default.
        scale: factor on both sides of every image.
        load: checkpoint to start from; its width, depth and decoder replace those above.
    """

    base_channels: int = 64
    depth: int = 4
    bilinear: bool = False
    classes: int | None = None
    scale: float = 0.5
    load: Path | None = None


def train(
    data: DataConfig,
    out: Path,
    network: NetworkConfig | None = None,
    config: TrainConfig | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Check a data set, train on it, and leave a run folder.

    Args:
        data: what to train on.
        out: folder of the run; must not hold one yet.
        network: which network.
        config: how to train; the default recipe by default.
        device: auto, cpu, cuda or mps.
        reporter: told while it trains.
        progress: wraps the files while they are checked: (items, label, length) -> items.
        say: told what was found, a line at a time.

    Returns:
        The scores of the best validation, with `epoch`.

    Raises:
        DatasetError: the data set has problems; all of them.
        InputError: an option does not fit the data.
        TrainingError: the loss is no longer finite, or the run was interrupted (and saved).
    """
    network, config = network or NetworkConfig(), config or TrainConfig()
    target = pick_device(device)
    split, scan = _gather(data, config.seed, progress)
    torch.manual_seed(config.seed)
    start = read_checkpoint(network.load) if network.load else None
    spec = _make_spec(data, network, scan)
    model, spec = _make_model(network, spec, start, say)
    _check_bottleneck(split, scan, spec, config)
    run = RunFolder(out)
    made_of = {
        "data": _plain(data),
        "network": _plain(network),
        "training": asdict(config),
        "model": asdict(model.config),
    }
    run.start({**made_of, "device": str(target), **_versions()}, split.to_dict())
    say(
        f"{len(split.train)} images train, {len(split.val)} validate; {len(spec.classes)} classes; "
        f"network of {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {target}"
    )
    return Trainer(config, model, spec, split, run, target, reporter).fit()


def resume(
    out: Path, device: str = "auto", epochs: int | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Continue an interrupted run from its last checkpoint.

    Args:
        out: the run's folder.
        device: auto, cpu, cuda or mps.
        epochs: a new number of epochs in all; the learning rate then starts a new course over those that are left.
        reporter: told while it trains.

    Returns:
        The scores of the best validation.

    Raises:
        InputError: no such run, or its files are gone.
        TrainingError: as `train`.
    """
    run = RunFolder(out)
    if not run.last.exists():
        raise InputError(f"{run.last} does not exist: {out} holds no run that could be resumed")
    checkpoint = read_checkpoint(run.last)
    split = Split.from_dict(run.read_split())
    gone = [str(path) for pair in (*split.train, *split.val) for path in (pair.image, pair.mask) if not path.exists()]
    if gone:
        raise DatasetError([f"{path}: no longer there: put it back, or start a new run" for path in gone])
    config = TrainConfig.from_dict(checkpoint.state.get("train_config", {}))
    if epochs is not None:
        config = replace(config, epochs=epochs)
    trainer = Trainer(config, checkpoint.build(), checkpoint.spec, split, run, pick_device(device), reporter)
    trainer.restore(checkpoint)
    return trainer.fit()


def _gather(data: DataConfig, seed: int, progress: Progress | None) -> tuple[Split, Scan]:
    pairs, scan = prepare(data.images, data.masks, data.mask_suffix, data.ignore, data.max_classes, progress)
    if data.val_images is None:
        split = split_pairs(
            pairs,
            percent=data.validation,
            seed=seed,
            group_by=data.group_by,
            val_list=data.val_list,
            fraction=data.fraction,
        )
        return split, scan
    if data.val_masks is None:
        raise InputError("--val-images needs --val-masks, the folder of their masks")
    val_pairs, val_scan = prepare(
        data.val_images, data.val_masks, data.mask_suffix, data.ignore, data.max_classes, progress
    )
    by_file = {str(pair.mask): val_scan.values_by_mask[pair.name] for pair in val_pairs}
    unseen = check_values(by_file, scan.classes, data.ignore)
    if unseen:
        raise DatasetError(unseen)
    chosen = split_pairs(pairs, percent=0, seed=seed, group_by=data.group_by, fraction=data.fraction)
    return Split(chosen.train, val_pairs), scan


def _check_bottleneck(split: Split, scan: Scan, spec: ModelSpec, config: TrainConfig) -> None:
    """Batch norm has no statistics of a single pixel of a single image."""
    smallest = min((padded_size(scaled_size(size, spec.scale), spec.multiple) for size in scan.sizes), default=(0, 0))
    alone = config.batch_size == 1 or len(split.train) % config.batch_size == 1
    if alone and config.freeze_norm > 0 and smallest == (spec.multiple, spec.multiple):
        raise InputError(
            f"an image of {smallest[0]}x{smallest[1]} is one pixel after {spec.multiple.bit_length() - 1} halvings, "
            "which batch norm cannot train on alone: use a smaller --depth or a larger --scale"
        )


def _make_spec(data: DataConfig, network: NetworkConfig, scan: Scan) -> ModelSpec:
    values = scan.classes
    names = list(data.class_names) if data.class_names else None
    shown = ", ".join(str(value) for value in values[:12])
    if names and len(names) != len(values):
        raise InputError(f"{len(names)} class names for {len(values)} mask values ({shown}): name each once")
    if names and (len(set(names)) < len(names) or not all(names)):
        raise InputError(f"class names must differ and not be empty: {', '.join(names)}")
    outputs = network.classes or len(values)
    if outputs != len(values) and not (outputs == 1 and len(values) == 2):
        raise InputError(f"--classes {outputs}, but the masks hold {len(values)} values ({shown}): leave --classes out")
    multiple = 1 << network.depth
    sizes = sorted(scan.sizes, key=lambda size: (-scan.sizes[size], size))
    inputs = dict.fromkeys(padded_size(scaled_size(size, network.scale), multiple) for size in sizes)
    return ModelSpec(
        channels=scan.channels,
        bits=scan.bits,
        classes=class_infos(values, names),
        outputs=outputs,
        multiple=multiple,
        scale=network.scale,
        ignore_value=data.ignore,
        background=0 if data.has_background else None,
        training_sizes=tuple(inputs)[:16],
        provenance={"versions": _versions()},
    )


def _make_model(
    network: NetworkConfig, spec: ModelSpec, start: Checkpoint | None, say: Callable[[str], None]
) -> tuple[UNet, ModelSpec]:
    if start is None:
        up = "bilinear" if network.bilinear else "transposed"
        return UNet(UNetConfig(spec.channels, spec.outputs, network.base_channels, network.depth, up)), spec
    up = "bilinear" if network.bilinear else "transposed"
    if (start.config.base_channels, start.config.depth, start.config.up) != (network.base_channels, network.depth, up):
        say(
            f"network as in {start.path}: {start.config.base_channels} base channels, depth {start.config.depth}, "
            f"{start.config.up} decoder"
        )
    if start.config.in_channels != spec.channels:
        raise InputError(
            f"{start.path} takes {start.config.in_channels} channels, these images have {spec.channels}: "
            "convert the images, or start without --load"
        )
    model = UNet(replace(start.config, classes=spec.outputs))
    weights = dict(start.weights)
    if start.config.classes != spec.outputs:
        say(f"{start.path} has {start.config.classes} outputs, {spec.outputs} are needed: its last layer starts anew")
        fresh = model.state_dict()
        weights.update({name: fresh[name] for name in fresh if name.startswith("outc.")})
    model.load_state_dict(weights)
    multiple = start.config.multiple
    sizes = dict.fromkeys(padded_size(size, multiple) for size in spec.training_sizes)
    return model, spec.replace(multiple=multiple, training_sizes=tuple(sizes))


def _plain(config: DataConfig | NetworkConfig) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("unet-edge")
    except PackageNotFoundError:
        own = getattr(unet_edge_runtime, "__version__", "unknown")
    return {"unet-edge": own, "torch": torch.__version__, "python": platform.python_version()}
