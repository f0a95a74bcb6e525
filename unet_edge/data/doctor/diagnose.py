"""The whole examination of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unet_edge.data.looking import Progress, look_at_all
from unet_edge.data.pairing import Pair
from unet_edge.data.scan import Scan
from unet_edge.data.split import Split
from unet_edge_runtime.spec import MaskValue

from .balance import ClassFacts, class_facts, find_imbalance, find_tiny
from .leaks import find_leaks
from .look import Look, examine
from .misfits import find_misfits
from .oddities import find_oddities
from .suspicion import Suspicion

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        looks: every pair, in the order of names.
        scan: what the scan of the files found; its problems are errors.
        problems: of pairing and scan.
        classes: balance and objects.
        suspicions: what a person should look at, the gravest first.
        scale: that objects were measured at.
        split: what was compared, or None.
        split_is: how it comes about, in words.
        background: mask value that is no class of objects, or None.
    """

    looks: list[Look]
    scan: Scan
    problems: list[str]
    classes: list[ClassFacts]
    suspicions: list[Suspicion]
    scale: float
    split: Split | None
    split_is: str
    background: MaskValue | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        scan, split = self.scan, self.split
        return {
            "pairs": len(self.looks),
            "sizes": [{"height": size[0], "width": size[1], "images": count} for size, count in scan.sizes.items()],
            "channels": scan.channels,
            "bits": scan.bits,
            "grey_stored_as_colour": sum(bool(look.image and look.image.grey) for look in self.looks),
            "scale": self.scale,
            "classes": [info.to_dict() for info in self.classes],
            "split": {"train": len(split.train), "val": len(split.val), "is": self.split_is} if split else None,
            "problems": self.problems,
            "suspicions": [suspicion.to_dict() for suspicion in self.suspicions],
        }


def diagnose(
    pairs: Sequence[Pair],
    scan: Scan,
    problems: list[str],
    split: Split | None = None,
    split_is: str = "",
    *,
    scale: float = 0.5,
    has_background: bool = True,
    progress: Progress | None = None,
    cache: bool = True,
) -> Diagnosis:
    """Look at all pairs and say what looks wrong. A suspicion is no proof: sheet and page show what it is about.

    Args:
        pairs: all of them, of training and validation.
        scan: of the same pairs.
        problems: what pairing and scan found wrong.
        split: where to look for leaks; None looks for doubles alone.
        split_is: how the split comes about, in words.
        scale: that images are brought to in training.
        has_background: the lowest mask value is a background, not a class of objects.
        progress: draws a bar, such as `cli.common.track`.
        cache: remember what was found in a file until it changes.
    """
    looks = look_at_all(examine, pairs, "Examining", progress, cache)
    classes = class_facts(scan, looks, scale)
    background: MaskValue | None = scan.classes[0] if has_background and scan.classes else None
    odd = find_oddities(looks, scan, background)
    if any(suspicion.kind == "exchanged" for suspicion in odd):
        return Diagnosis(looks, scan, problems, classes, odd, scale, split, split_is, background)
    suspicions = [
        *find_leaks(looks, split),
        *find_misfits(looks),
        *odd,
        *find_tiny(classes, scale, background),
        *find_imbalance(classes, scan, split),
    ]
    return Diagnosis(looks, scan, problems, classes, suspicions, scale, split, split_is, background)
