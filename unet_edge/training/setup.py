"""From folders to a split, a spec and a network."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import unet_edge_runtime
from unet_edge.checkpoint import Checkpoint, class_infos
from unet_edge.data.checks import prepare
from unet_edge.data.doctor.exchanged import are_exchanged
from unet_edge.data.looking import Progress
from unet_edge.data.pairing import Pair
from unet_edge.data.scan import Scan, check_values, format_value
from unet_edge.data.split import Split, split_pairs
from unet_edge.losses import balanced_weights
from unet_edge.model import UNet, UNetConfig
from unet_edge_runtime.errors import DatasetError, InputError
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.spec import MaskValue, ModelSpec
from unet_edge_runtime.transform import scaled_size

from .config import TrainConfig
from .distributed import current

__all__ = [
    "DataConfig",
    "NetworkConfig",
    "check_bottleneck",
    "gather",
    "make_model",
    "make_spec",
    "oddities",
    "oversized_crop",
    "sided_classes",
    "versions",
    "with_class_weights",
]

SIDES = r"(?<![a-z])(left|right|l|r)(?![a-z])"  # as words of a class's name, lung_left and L included


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
        folds: number of parts for a cross-validation, instead of a percentage that validates.
        fold: which of them validates, from 1.
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
    folds: int | None = None
    fold: int | None = None


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


def gather(data: DataConfig, seed: int, progress: Progress | None) -> tuple[Split, Scan]:
    """Check all files and divide them.

    Raises:
        DatasetError: with all problems of the files.
        InputError: they cannot be divided as asked.
    """
    if data.val_masks is not None and data.val_images is None:
        raise InputError("--val-masks needs --val-images, the folder of their images")
    if data.val_images is not None and data.val_list is not None:
        raise InputError("--val-images and --val-list both say what validates: give one of them")
    pairs, scan = _prepare(data, data.images, data.masks, "--images and --masks", progress)
    divide = partial(split_pairs, pairs, seed=seed, group_by=data.group_by, fraction=data.fraction)
    if data.val_images is None:
        split = divide(percent=data.validation, val_list=data.val_list, folds=data.folds, fold=data.fold)
        return split, scan
    if data.val_masks is None:
        raise InputError("--val-images needs --val-masks, the folder of their masks")
    if data.folds or data.fold:
        raise InputError("--folds divides --images: leave --val-images out")
    options = "--val-images and --val-masks"
    val_pairs, val_scan = _prepare(data, data.val_images, data.val_masks, options, progress)
    by_file = {str(pair.mask): val_scan.values_by_mask[pair.name] for pair in val_pairs}
    unseen = check_values(by_file, scan.classes, data.ignore)
    if unseen:
        raise DatasetError(unseen)
    return Split(divide(percent=0).train, val_pairs), scan


def _prepare(
    data: DataConfig, images: Path, masks: Path, options: str, progress: Progress | None
) -> tuple[list[Pair], Scan]:
    try:
        return prepare(images, masks, data.mask_suffix, data.ignore, data.max_classes, progress)
    except DatasetError:
        if not are_exchanged(images, masks, data.mask_suffix):
            raise
        raise DatasetError([f"{masks} holds photos and {images} masks: exchange {options}"]) from None


def oddities(split: Split, scan: Scan) -> list[str]:
    """What is possible but hardly meant, one line each."""
    found = []
    if scan.ignore is not None and scan.ignore not in scan.counts:
        found.append(f"warning: no mask holds {format_value(scan.ignore)}, the value to ignore: check --ignore")
    trained = {pair.image.resolve() for pair in split.train}
    both = [pair.image for pair in split.val if pair.image.resolve() in trained]
    if both:
        found.append(
            f"warning: {len(both)} of {len(split.val)} validation images train as well ({both[0]}): "
            "their scores say nothing about new images"
        )
    return found


def oversized_crop(scan: Scan, spec: ModelSpec, config: TrainConfig) -> list[str]:
    """A warning where no image is as large as the crop."""
    sizes = [scaled_size(size, spec.scale) for size in scan.sizes]
    if not config.crop or not sizes:
        return []
    largest = max(height for height, _ in sizes), max(width for _, width in sizes)
    if all(side >= wanted for side, wanted in zip(largest, config.crop, strict=True)):
        return []
    return [
        f"warning: images are at most {largest[0]}x{largest[1]} after --scale {spec.scale:g}, less than --crop "
        f"{config.crop[0]}x{config.crop[1]}: a side that is shorter stays whole"
    ]


def sided_classes(spec: ModelSpec, config: TrainConfig) -> list[str]:
    """A warning where mirrored images would make classes such as "left lung" wrong."""
    sided = [name for name in spec.class_names if re.search(SIDES, name, re.IGNORECASE)]
    if config.flip == "none" or not sided:
        return []
    return [
        f"warning: --flip {config.flip} mirrors images, and left becomes right ({', '.join(sided)}): "
        "give --flip none if classes differ only by their side"
    ]


def with_class_weights(config: TrainConfig, scan: Scan) -> TrainConfig:
    """The configuration with numbers instead of "balanced", as a resumed run needs them.

    Raises:
        InputError: not one weight a class.
    """
    if config.class_weights == "balanced":
        weights = balanced_weights([scan.counts[value] for value in scan.classes])
        return replace(config, class_weights=",".join(map(repr, weights)))
    given = config.class_weights.count(",") + 1
    if config.class_weights != "none" and given != len(scan.classes):
        raise InputError(f"{given} class weights for {len(scan.classes)} mask values: give one a class")
    return config


def check_bottleneck(split: Split, scan: Scan, spec: ModelSpec, config: TrainConfig) -> None:
    """Batch norm has no statistics of a single pixel of a single image.

    Raises:
        InputError: the smallest image, or crop, becomes one.
    """
    sizes = [config.crop] if config.crop else [scaled_size(size, spec.scale) for size in scan.sizes]
    smallest = min((padded_size(size, spec.multiple) for size in sizes), default=(0, 0))
    world = current().size
    last = len(split.train) % (config.batch_size * world) or config.batch_size * world
    fewest = max(1, min(config.batch_size, last // world))
    alone = fewest < 2 * min(config.accumulate, fewest)  # some part of some batch is one image
    if alone and smallest == (spec.multiple, spec.multiple):
        raise InputError(
            f"an image of {smallest[0]}x{smallest[1]} is one pixel after {spec.multiple.bit_length() - 1} halvings, "
            "which batch norm cannot train on alone: use a smaller --depth or a larger --scale"
        )


def make_spec(data: DataConfig, network: NetworkConfig, scan: Scan) -> ModelSpec:
    """How images and masks are treated.

    Raises:
        InputError: the names or the number of classes do not fit the masks.
    """
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
        provenance={"versions": versions()},
    )


def make_model(
    network: NetworkConfig, spec: ModelSpec, start: Checkpoint | None, say: Callable[[str], None]
) -> tuple[UNet, ModelSpec]:
    """The network to train, fresh or from a checkpoint, and the spec, fitted to its depth.

    Raises:
        InputError: the checkpoint takes other images.
    """
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


def versions() -> dict[str, str]:
    """Of what a run is made with."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("unet-edge")
    except PackageNotFoundError:
        own = getattr(unet_edge_runtime, "__version__", "unknown")
    return {"unet-edge": own, "torch": torch.__version__, "python": platform.python_version()}
