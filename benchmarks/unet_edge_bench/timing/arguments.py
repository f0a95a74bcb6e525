"""Values as they are written on the command line, whichever reads it."""

from __future__ import annotations

import re
from dataclasses import replace

from unet_edge_runtime.errors import InputError

from .choices import Size
from .plan import DEFAULT, QUICK, Protocol

__all__ = ["numbers", "protocol_of", "share", "sizes", "words"]


def numbers(text: str, option: str) -> tuple[int, ...]:
    """ "1,2,4" as whole numbers above 0. Raises `InputError`."""
    parts = _parts(text)
    if not parts or not all(re.fullmatch("[0-9]{1,5}", part) and int(part) for part in parts):
        raise InputError(f"{option}: {text!r} is no list of whole numbers, such as 1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def sizes(text: str, option: str) -> tuple[Size, ...]:
    """ "256x256,640x960" as (height, width). Raises `InputError`."""
    found = [re.fullmatch("([0-9]{1,5})[xX]([0-9]{1,5})", part) for part in _parts(text)]
    if not found or not all(match and int(match[1]) and int(match[2]) for match in found):
        raise InputError(f"{option}: {text!r} is no list of HEIGHTxWIDTH, such as 256x256,640x960")
    return tuple(dict.fromkeys((int(match[1]), int(match[2])) for match in found if match))


def words(text: str, option: str) -> tuple[str, ...]:
    """ "fp32, bf16" as its parts. Raises `InputError`."""
    if not _parts(text):
        raise InputError(f"{option}: {text!r} names nothing: leave it out, or give at least one")
    return _parts(text)


def share(text: str, option: str) -> float:
    """ "5%" or "0.05" as 0.05. Raises `InputError`, also for a plain 5, which could mean 500 %."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    if match is None or (not match[2] and float(match[1]) >= 1):
        raise InputError(f"{option}: {text!r} is no share: write 5% or 0.05")
    return float(match[1]) / (100 if match[2] else 1)


def protocol_of(quick: bool, launches: int | None, rounds: int | None, seconds: float | None, seed: int) -> Protocol:
    """The usual protocol, or the quick one, with what was given in its place. Raises `InputError`."""
    given = {"launches": launches, "rounds": rounds, "seconds_per_turn": seconds}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(QUICK if quick else DEFAULT, seed=seed, **changes)  # type: ignore[arg-type]


def _parts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
