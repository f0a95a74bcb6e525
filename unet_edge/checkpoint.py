"""Checkpoints: ours, which describe themselves, and milesial's, which are a bare state dict."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.files import atomic_path
from unet_edge_runtime.spec import ClassInfo, MaskValue, ModelSpec, class_color

from .model import UNet, UNetConfig

__all__ = [
    "CHECKPOINT_FORMAT",
    "SEED_SCALE",
    "Checkpoint",
    "class_infos",
    "load_model",
    "read_checkpoint",
    "save_checkpoint",
]

CHECKPOINT_FORMAT = "unet-edge checkpoint"
CHECKPOINT_VERSION = 1
SEED_SCALE = 0.5  # milesial's default `--scale`; its checkpoints do not record what was used


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        config: the network's architecture.
        weights: the state dict, on the CPU.
        spec: how images and masks are to be treated.
        state: everything that training needs to go on (optimiser, schedulers, scaler, RNG, epoch, configuration,
            scores); empty for a foreign checkpoint.
    """

    path: Path
    config: UNetConfig
    weights: dict[str, Tensor]
    spec: ModelSpec
    state: dict[str, Any] = field(default_factory=dict)

    def build(self) -> UNet:
        """The network with its weights, in evaluation mode, on the CPU."""
        model = UNet(self.config)
        model.load_state_dict(self.weights)
        return model.eval()


def save_checkpoint(path: Path, model: UNet, spec: ModelSpec, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: tensors and plain data only, so that it loads with `weights_only=True`."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "config": asdict(model.config),
        "weights": {name: value.contiguous() for name, value in model.state_dict().items()},
        "spec": spec.to_json(),
        "state": dict(state),
    }
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except (RuntimeError, OSError) as error:  # a full disk is a RuntimeError here
            raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0]}): make room there") from None


def read_checkpoint(path: Path | str, scale: float | None = None) -> Checkpoint:
    """Read a checkpoint of unet-edge or of milesial/Pytorch-UNet, without unpickling objects.

    Args:
        path: the file.
        scale: image scale of a checkpoint that does not know its own (milesial's); 0.5 by default.

    Raises:
        ModelFileError: missing, damaged, foreign, or made by a newer version; or `scale` contradicts the file.
    """
    path = Path(path)
    content = _load(path)
    if content.get("format") != CHECKPOINT_FORMAT:
        return _milesial(path, content, SEED_SCALE if scale is None else scale)
    version = content.get("version")
    if not isinstance(version, int):
        raise ModelFileError(f"{path}: a damaged unet-edge checkpoint: use another copy")
    if version > CHECKPOINT_VERSION:
        raise ModelFileError(f"{path}: made by a newer unet-edge: upgrade unet-edge to read it")
    try:
        weights, spec = content["weights"], ModelSpec.from_json(content["spec"], str(path))
        _check_storage(weights, path)
        config = UNetConfig.from_state_dict(weights, str(path))
        state = dict(content["state"])
    except (KeyError, TypeError, AttributeError):
        raise ModelFileError(f"{path}: a damaged unet-edge checkpoint: use another copy") from None
    if scale is not None and scale != spec.scale:
        raise ModelFileError(f"{path}: was trained at scale {spec.scale}; leave --scale out")
    if (spec.channels, spec.outputs, spec.multiple) != (config.in_channels, config.classes, config.multiple):
        raise ModelFileError(f"{path}: its spec does not describe its weights: use another copy")
    return Checkpoint(path, config, weights, spec, state)


def load_model(path: Path | str, scale: float | None = None) -> tuple[UNet, ModelSpec]:
    """The network in evaluation mode and its spec; arguments and errors are those of `read_checkpoint`."""
    checkpoint = read_checkpoint(path, scale)
    return checkpoint.build(), checkpoint.spec


def class_infos(values: list[MaskValue], names: list[str] | None = None) -> tuple[ClassInfo, ...]:
    """Classes from mask values: named by `names` or by position, coloured by their own colour where they have one."""
    if names is None:
        names = ["background", "foreground"] if len(values) == 2 else [f"class {v}" for v in range(len(values))]
    return tuple(
        ClassInfo(name, value, value if isinstance(value, tuple) else class_color(label))
        for label, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _check_storage(weights: Mapping[str, Tensor], path: Path) -> None:
    """A tensor's shape may claim far more than the file holds (a stride of 0): building it would take all memory."""
    for name, value in weights.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
        if not plain or value.is_complex():
            raise ModelFileError(f"{path}: {name} is no plain tensor: use another copy")
    held = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in weights.values()}
    if sum(held.values()) < sum(value.numel() * value.element_size() for value in weights.values()):
        raise ModelFileError(f"{path}: claims more weights than it holds: use another copy")


def _check_packing(path: Path) -> None:
    """torch never compresses; what is compressed could fill all memory before anything of it is looked at."""
    unpacked = 0
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:  # what is no archive is torch's to name
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked and unpacked > path.stat().st_size:
        raise ModelFileError(f"{path}: is compressed, as no checkpoint of PyTorch is: use another copy")


def _load(path: Path) -> dict[str, Any]:
    _check_packing(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such checkpoint") from None
    # The unpickler raises whatever a damaged file makes it stumble over.
    except Exception as error:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            if stream.read(1) not in (b"P", b"\x80"):  # a zip archive (PK), or an old-style pickle
                raise ModelFileError(
                    f"{path}: is no PyTorch checkpoint: give a .pth of unet-edge or milesial"
                ) from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFileError(
            f"{path}: not a checkpoint of tensors and plain data ({reason[:120]}): use another copy"
        ) from None
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def _milesial(path: Path, content: dict[str, Any], scale: float) -> Checkpoint:
    weights = {str(name): value for name, value in content.items() if name != "mask_values"}
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelFileError(
            f"{path}: not a checkpoint of this U-Net (its entries: {', '.join(list(weights)[:4])}): "
            "give one of unet-edge or of milesial/Pytorch-UNet"
        )
    _check_storage(weights, path)
    config = UNetConfig.from_state_dict(weights, str(path))
    count = max(2, config.classes)
    values = _mask_values(content.get("mask_values"), count, path)
    try:
        spec = ModelSpec(
            channels=config.in_channels,
            classes=class_infos(values),
            outputs=config.classes,
            multiple=config.multiple,
            scale=scale,
        )
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return Checkpoint(path, config, weights, spec)


def _mask_values(saved: object, count: int, path: Path) -> list[MaskValue]:
    if saved is None:
        return list(range(count))
    try:
        values: list[MaskValue] = [
            (int(v[0]), int(v[1]), int(v[2])) if isinstance(v, list | tuple) else int(v)
            for v in saved  # type: ignore[attr-defined]
        ]
    except (TypeError, ValueError, IndexError):
        raise ModelFileError(f"{path}: its mask_values are damaged: remove the entry or use another copy") from None
    if len(values) != count:
        raise ModelFileError(f"{path}: {len(values)} mask values for {count} classes: use another copy")
    return values
