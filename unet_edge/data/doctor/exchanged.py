"""Photos in the masks' folder, and masks in the images'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unet_edge.data.cache import FactsCache
from unet_edge.data.pairing import Pair, pair_files

from .look import Look, examine
from .suspicion import Suspicion

__all__ = ["are_exchanged", "find_exchanged"]

MOST = 0.8  # of all pairs
ENOUGH = 16  # pairs that tell two folders apart


def find_exchanged(looks: Sequence[Look]) -> list[Suspicion]:
    """Photos instead of masks, whatever there is instead of photos."""
    known = _known(looks)
    if not _hold_photos(known):
        return []
    folders = known[0].pair.image.parent, known[0].pair.mask.parent
    if _hold_masks(known):
        text = f"{folders[1]} holds photos and {folders[0]} masks: exchange --images and --masks"
    else:
        text = f"{folders[1]} holds photos, not masks: give the folder of the masks"
    return [Suspicion("exchanged", text)]


def are_exchanged(images: Path, masks: Path, mask_suffix: str | None = None) -> bool:
    """Whether a few pairs of two folders show masks as images and photos as masks.

    Args:
        images: said to be the folder of the images.
        masks: said to be the folder of the masks.
        mask_suffix: as for `pair_files`.
    """
    if images.resolve() == masks.resolve():
        return False
    # Names with a suffix make pairs only the right way round.
    pairs = pair_files(masks, images, mask_suffix)[0][:ENOUGH]
    facts = FactsCache(enabled=False)
    known = _known([examine(facts, Pair(pair.name, image=pair.mask, mask=pair.image)) for pair in pairs])
    return _hold_photos(known) and _hold_masks(known)


def _known(looks: Sequence[Look]) -> list[Look]:
    return [look for look in looks if look.image and look.mask]


def _hold_photos(known: Sequence[Look]) -> bool:
    """Whether most masks are none."""
    return bool(known) and sum(not (look.mask and look.mask.objects) for look in known) >= MOST * len(known)


def _hold_masks(known: Sequence[Look]) -> bool:
    """Whether most images could be masks."""
    return sum(not (look.image and look.image.many_values) for look in known) >= MOST * len(known)
