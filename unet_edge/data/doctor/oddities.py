"""Single images and masks that stand out: empty, dark, grey in colour, folders exchanged."""

from __future__ import annotations

from collections.abc import Sequence

from unet_edge.data.pairing import Pair
from unet_edge.data.scan import Scan, format_value
from unet_edge_runtime.mask import pack
from unet_edge_runtime.spec import MaskValue

from .exchanged import find_exchanged
from .look import ImageLook, Look
from .suspicion import Suspicion, name_some

__all__ = ["find_oddities"]

FLAT = 4.0  # of 255 between nearly the darkest and nearly the brightest pixel
DARK = 16.0  # of 255, what the brightest of a usable image reach
BRIGHT = 250.0  # of 255, what the darkest of a usable image stay under
USUAL = 0.2  # share of all images from which a property is the data set's own


def find_oddities(looks: Sequence[Look], scan: Scan, background: MaskValue | None) -> list[Suspicion]:
    """Everything about single files, and about both folders."""
    return find_exchanged(looks) or [
        *_brightness(looks, scan),
        *_grey(looks, scan),
        *_single_valued(looks, scan, background),
    ]


def _brightness(looks: Sequence[Look], scan: Scan) -> list[Suspicion]:
    kinds: dict[str, list[Pair]] = {"flat": [], "dark": [], "bright": []}
    for look in looks:
        if look.image and (kind := _kind(look.image)):
            kinds[kind].append(look.pair)
    words = {
        "flat": f"next to nothing to see (all pixels within {FLAT:.0f} of 255)",
        "dark": f"nearly black (no pixel above {DARK:.0f} of 255)",
        "bright": f"nearly white (no pixel under {BRIGHT:.0f} of 255)",
    }
    found = []
    for kind, pairs in kinds.items():
        if len(pairs) >= USUAL * len(looks) and kind == "dark" and scan.bits > 8:
            text = f"{len(pairs)} of {len(looks)} images use little of their {scan.bits} bits and look black to the "
            text += "network: stretch their values over the whole range before training, and for every image later"
            found.append(Suspicion("dark", text, tuple(pairs)))
        elif pairs:
            found.append(
                Suspicion(kind, f"{words[kind]}: {len(pairs)} of {len(looks)} images: {name_some(pairs)}", tuple(pairs))
            )
    return found


def _kind(image: ImageLook) -> str | None:
    if image.bright - image.dark < FLAT:
        return "flat"
    return "dark" if image.bright < DARK else "bright" if image.dark > BRIGHT else None


def _grey(looks: Sequence[Look], scan: Scan) -> list[Suspicion]:
    """Some images grey, some in colour; or all grey, but stored as colour."""
    images = [look.image for look in looks if look.image]
    # A picture of a single brightness is grey by accident.
    grey = sum(image.grey and image.bright - image.dark >= FLAT for image in images)
    if not grey or scan.channels == 1:
        return []
    if grey == len(images):
        text = f"all {grey} images are grey but stored with three equal channels: saved as grey, a network takes one"
    else:
        text = (
            f"{grey} of {len(images)} images are grey stored as colour, the others are coloured: two kinds of images; "
            "check that this is meant"
        )
    return [Suspicion("grey", text)]


def _single_valued(looks: Sequence[Look], scan: Scan, background: MaskValue | None) -> list[Suspicion]:
    """Masks of the background alone, or of another class alone, in a data set where that is not usual."""
    single: dict[MaskValue, list[Pair]] = {}
    for look in looks:
        for value in scan.classes:
            if look.mask and set(look.mask.objects) - _ignored(scan) == {pack(value)}:
                single.setdefault(value, []).append(look.pair)
    found = []
    for value, pairs in single.items():
        if len(pairs) >= USUAL * len(looks):
            continue
        what = "empty" if value == background else "full"
        only = f"nothing but {format_value(value)}"
        text = f"{what} ({only}): {len(pairs)} of {len(looks)} masks: {name_some(pairs)}: is that so?"
        found.append(Suspicion(what, text, tuple(pairs)))
    return found


def _ignored(scan: Scan) -> set[int]:
    return set() if scan.ignore is None else {pack(scan.ignore)}
