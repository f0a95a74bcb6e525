"""The names of the loss terms and the text that joins them."""

from __future__ import annotations

import re

from unet_edge_runtime.errors import InputError

__all__ = ["TERMS", "WEIGHTED", "check_loss", "parse_loss"]

TERMS = {
    "ce": "cross-entropy (binary for one sigmoid output)",
    "focal": "cross-entropy that turns to the pixels that are still wrong",
    "dice": "soft Dice, mean over the classes in the batch",
    "pooled_dice": "soft Dice over all classes at once, as milesial/Pytorch-UNet has it",
    "tversky": "like dice, with missed pixels costing more than false ones",
    "lovasz": "IoU itself, through its Lovász extension",
}
"""Every term, and what it is in a few words."""

WEIGHTED = frozenset({"ce", "focal"})
"""The terms that class weights change."""

_PART = re.compile(r"(?:(?P<weight>[0-9.]+(?:e-?[0-9]+)?)\*)?(?P<name>[a-z_]+)")


def check_loss(text: str) -> None:
    """Raise `InputError` where `text` is no sum of terms such as "ce+dice" or "ce+0.5*lovasz"."""
    parse_loss(text)


def parse_loss(text: str) -> tuple[tuple[str, float], ...]:
    """The terms' names and weights, in the order of `text`.

    Raises:
        InputError: an unknown term, one that stands there twice, or a weight that is no number above 0.
    """
    terms: dict[str, float] = {}
    for part in re.sub(r"\s", "", text).split("+"):
        match = _PART.fullmatch(part)
        if not match or match["name"] not in TERMS:
            raise InputError(
                f"loss {text!r}: {part!r} is no term; join any of {', '.join(TERMS)} with +, such as ce+0.5*lovasz"
            )
        if match["name"] in terms:
            raise InputError(f"loss {text!r}: {match['name']} stands there twice: give it once, with one weight")
        terms[match["name"]] = _weight(match["weight"], text)
    return tuple(terms.items())


def _weight(given: str | None, text: str) -> float:
    try:
        weight = float(given or 1)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise InputError(f"loss {text!r}: the weight {given} is no number above 0")
    return weight
