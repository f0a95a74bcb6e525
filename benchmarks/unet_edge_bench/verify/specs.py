"""Where two models' specs treat images, or read outputs, differently."""

from __future__ import annotations

from unet_edge_runtime.spec import ModelSpec

__all__ = ["mask_differences", "reading_differences", "treated_like", "treatment_differences"]

_CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}


def treatment_differences(reference: ModelSpec, candidate: ModelSpec) -> list[str]:
    """A phrase for each way in which an image becomes another network input; empty when all is alike."""
    pairs = list(zip(_treatment(reference), _treatment(candidate), strict=True))
    if reference.scale == candidate.scale == 1:
        pairs.remove((f"{reference.resample} resampling", f"{candidate.resample} resampling"))
    return [f"{theirs} instead of {ours}" for ours, theirs in pairs if ours != theirs]


def treated_like(candidate: ModelSpec, reference: ModelSpec) -> ModelSpec | None:
    """The candidate's spec with the reference's treatment of images; None where the channels differ."""
    if candidate.channels != reference.channels:
        return None
    return candidate.replace(
        mean=reference.mean,
        std=reference.std,
        scale=reference.scale,
        resample=reference.resample,
        padding=reference.padding,
    )


def reading_differences(reference: ModelSpec, candidate: ModelSpec) -> list[str]:
    """A phrase for each way in which outputs become other labels."""
    if not reference.is_binary or reference.threshold == candidate.threshold or candidate.head == "classmap":
        return []
    return [f"threshold {candidate.threshold:g} instead of {reference.threshold:g}"]


def mask_differences(reference: ModelSpec, candidate: ModelSpec) -> list[str]:
    """A sentence for each way in which equal labels become other masks."""
    if len(reference.classes) != len(candidate.classes):
        return [f"it has {len(candidate.classes)} classes, the reference {len(reference.classes)}: not the same task"]
    ours, theirs = ([info.value for info in spec.classes] for spec in (reference, candidate))
    if ours == theirs:
        return []
    if sorted(map(str, ours)) == sorted(map(str, theirs)):
        return [f"its classes are in another order: mask values {_listed(theirs)} instead of {_listed(ours)}"]
    return [f"its masks have other values: {_listed(theirs)} instead of {_listed(ours)}"]


def _treatment(spec: ModelSpec) -> list[str]:
    images, padding = f"{_CHANNELS[spec.channels]} images", f"{spec.padding} padding"
    return [images, _normalisation(spec), f"scale {spec.scale:g}", f"{spec.resample} resampling", padding]


def _normalisation(spec: ModelSpec) -> str:
    if not spec.mean and not spec.std:
        return "no normalisation"
    return f"normalisation with mean {_listed(spec.mean) or '0'} and std {_listed(spec.std) or '1'}"


def _listed(values: object) -> str:
    assert isinstance(values, list | tuple)
    shown = ", ".join(f"{value:g}" if isinstance(value, int | float) else str(value) for value in values[:8])
    return shown + (", ..." if len(values) > 8 else "")
