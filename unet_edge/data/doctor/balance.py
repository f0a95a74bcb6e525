"""How the classes share the pixels, images and objects, and what of them is left at the network's scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unet_edge.data.scan import Scan, format_value
from unet_edge.data.split import Split
from unet_edge_runtime.mask import pack
from unet_edge_runtime.spec import MaskValue

from .look import Look
from .suspicion import Suspicion, name_some

__all__ = ["ClassFacts", "class_facts", "find_imbalance", "find_tiny"]

LEAST_AREA = 2  # network pixels that an object needs to be learnt at all
SURVIVING = 0.99  # share of the objects that the proposed scale keeps
SPECK = 1000  # times smaller than the mean object: not one of its kind
MATTERS = 0.01  # share of lost objects from which it is worth a line
RARE = 0.02  # share of the pixels under which a class is easily overlooked in training
FEW_IMAGES = 5


@dataclass(frozen=True)
class ClassFacts:
    """One mask value over all masks.

    Attributes:
        value: of the masks.
        pixels: how many have it.
        share: of all pixels that count.
        images: masks that hold it.
        objects: connected ones.
        lost: objects of less than `LEAST_AREA` pixels at the scale.
        scale: at which `SURVIVING` of the objects have that many; None where there are none.
        ignored: whether the value does not count.
    """

    value: MaskValue
    pixels: int
    share: float
    images: int
    objects: int
    lost: int
    scale: float | None
    ignored: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = dict(vars(self))
        return {**facts, "scale_needed": facts.pop("scale")}


def class_facts(scan: Scan, looks: Sequence[Look], scale: float) -> list[ClassFacts]:
    """Facts of every value, the ignored one included, sorted by value; `share` leaves out ignored pixels."""
    counted = sum(scan.counts[value] for value in scan.classes)
    held = Counter(value for values in scan.values_by_mask.values() for value in values)
    return [_facts(scan, looks, value, scale, counted, held[value]) for value in scan.counts]


def find_imbalance(classes: Sequence[ClassFacts], scan: Scan, split: Split | None) -> list[Suspicion]:
    """Classes that training will hardly see, or not at all, and what to do."""
    real = [info for info in classes if not info.ignored]
    found = []
    rare = [info for info in real if info.share < RARE]
    if rare and len(real) > 1:
        named = ", ".join(f"{format_value(info.value)} ({info.share:.2%} of pixels)" for info in rare)
        what = "class" if len(rare) == 1 else "classes"
        text = f"rare {what}: {named}: train with --class-weights balanced, or the frequent classes win every doubt"
        found.append(Suspicion("rare", text))
    for info in real:
        if info.images < min(FEW_IMAGES, len(scan.values_by_mask)):
            text = (
                f"class {format_value(info.value)} is in {info.images} of {len(scan.values_by_mask)} masks: add images"
            )
            found.append(Suspicion("scarce", text))
    return [*found, *_one_sided(real, scan, split)]


def find_tiny(classes: Sequence[ClassFacts], scale: float, background: MaskValue | None) -> list[Suspicion]:
    """Objects that the scale would erase; holes in the background are not counted as objects."""
    losing = [
        info
        for info in classes
        if not info.ignored and info.value != background and info.lost >= max(1, MATTERS * info.objects)
    ]
    real = [info for info in losing if info.scale and info.scale <= 1 and not _is_speck(info, scale)]
    specks = [info for info in losing if info not in real]
    found = []
    if real:
        needed = max(info.scale or 0 for info in real)
        text = (
            f"--scale {scale:g} leaves less than {LEAST_AREA} pixels of {_count_lost(real)}, which cannot be learnt: "
        )
        found.append(Suspicion("tiny", f"{text}--scale {needed:g} keeps {SURVIVING:.0%} of them all"))
    if specks:
        text = f"--scale {scale:g} leaves less than {LEAST_AREA} pixels of {_count_lost(specks)}: "
        text += "they are specks in the masks themselves: look whether they are faults of the outline"
        found.append(Suspicion("specks", text))
    return found


def _is_speck(info: ClassFacts, scale: float) -> bool:
    return info.pixels / info.objects * scale * scale > SPECK * LEAST_AREA


def _count_lost(classes: Sequence[ClassFacts]) -> str:
    each = ", ".join(f"{info.lost} of {info.objects} of class {format_value(info.value)}" for info in classes)
    return f"some objects ({each})"


def _facts(scan: Scan, looks: Sequence[Look], value: MaskValue, scale: float, counted: int, images: int) -> ClassFacts:
    areas: Counter[int] = Counter()
    for look in looks:
        areas.update(look.mask.small.get(pack(value), {}) if look.mask else {})
    objects = sum(look.mask.objects.get(pack(value), 0) for look in looks if look.mask)
    lost = sum(count for area, count in areas.items() if area * scale * scale < LEAST_AREA)
    ignored = value == scan.ignore
    pixels = scan.counts[value]
    share = 0.0 if ignored or not counted else pixels / counted
    return ClassFacts(value, pixels, share, images, objects, lost, _scale_for(areas, objects), ignored)


def _scale_for(areas: Counter[int], objects: int) -> float | None:
    """The scale at which the hundredth part of the objects falls under `LEAST_AREA`, rounded up to hundredths."""
    passed = 0
    for area in sorted(areas):
        passed += areas[area]
        if passed > (1 - SURVIVING) * objects:
            return math.ceil(100 * math.sqrt(LEAST_AREA / area) - 1e-9) / 100
    return None


def _one_sided(real: Sequence[ClassFacts], scan: Scan, split: Split | None) -> list[Suspicion]:
    if split is None or not split.val:
        return []
    # Another validation folder may use the same names: its values are not in this scan.
    sides = {
        side: {value for pair in pairs for value in scan.values_by_mask.get(pair.name, ())}
        for side, pairs in (("training", split.train), ("validation", split.val))
    }
    found = []
    for info in real:
        for side, other in (("training", "validation"), ("validation", "training")):
            if info.value not in sides[side] and info.value in sides[other]:
                pairs = [p for p in (*split.train, *split.val) if info.value in scan.values_by_mask.get(p.name, ())]
                named = format_value(info.value)
                text = f"class {named} is in no {side} mask (but in {name_some(pairs)}): split otherwise"
                found.append(Suspicion("one-sided", text, tuple(pairs)))
    return found
