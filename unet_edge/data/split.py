"""Which pairs train and which validate."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from unet_edge_runtime.errors import InputError

from .pairing import Pair

__all__ = ["Split", "split_pairs"]

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The pairs of a data set, apart.

    Attributes:
        train: pairs to learn from.
        val: pairs to score on; empty when no validation is wanted.
    """

    train: list[Pair]
    val: list[Pair]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and strings for JSON; paths become absolute."""
        return {side: [_pair_to_dict(pair) for pair in getattr(self, side)] for side in ("train", "val")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], origin: str = "the split") -> Split:
        """Read what `to_dict` wrote.

        Args:
            data: the decoded JSON object.
            origin: the file it came from, for messages.

        Raises:
            InputError: it is damaged.
        """
        try:
            return cls([_pair_from_dict(d) for d in data["train"]], [_pair_from_dict(d) for d in data["val"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{origin} is damaged ({type(error).__name__}: {error}): split the data set again"
            ) from None


def split_pairs(
    pairs: Sequence[Pair],
    *,
    percent: float = 10.0,
    seed: int = 0,
    group_by: str | None = None,
    val_list: Path | None = None,
    fraction: float = 1.0,
    folds: int | None = None,
    fold: int | None = None,
) -> Split:
    """Divide pairs into training and validation; the same arguments give the same division on every machine.

    Args:
        pairs: what `pair_files` returns.
        percent: share for validation, 0 for none; at least one pair (or group) stays on either side.
        seed: of the shuffle over the sorted names.
        group_by: regular expression matched at the start of a name: its first group, or all that it matches, is
            the key; pairs with the same key stay together, so that near-duplicates do not leak.
        val_list: text file with the validation set, one entry a line, `#` for comments: names, image file names
            or keys of groups, of which it may tear none. It replaces `percent`.
        fraction: share of the data (of the groups, if grouped) that is used at all, above 0 and up to 1; with
            `val_list` share of the training data.
        folds: number of parts for a cross-validation, which replaces `percent`: each pair (or group) is in one of
            them, and their sizes differ by no more than the largest group.
        fold: which part validates, from 1 to `folds`.

    Raises:
        InputError: a side would be empty, a value is out of range, a name does not match `group_by`, or the list
            tears a group, or an entry of it matches nothing.
    """
    if (folds is not None or fold is not None) and val_list is not None:
        raise InputError(f"folds and {val_list} both say what validates: give one of them")
    if not 0 <= percent < 100:
        raise InputError(f"validation must be at least 0 and below 100 percent, not {percent:g}")
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction must be above 0 and at most 1, not {fraction:g}")
    groups = _groups(sorted(pairs, key=lambda pair: pair.name), group_by)
    if val_list is not None:
        val = _listed(groups, val_list, group_by is not None)
        train = {key: rest for key, group in groups.items() if (rest := [pair for pair in group if pair not in val])}
        return _checked(Split(_flat(_part(train, fraction, seed)), sorted(val, key=lambda pair: pair.name)), val_list)
    groups = _part(groups, fraction, seed)
    if folds is not None or fold is not None:
        return _apart(groups, _fold(groups, folds, fold, seed))
    if percent == 0:
        return _checked(Split(_flat(groups), []), None)
    if len(groups) < 2:
        what = "group" if group_by else "pair"
        raise InputError(
            f"{len(groups)} {what} cannot be divided into training and validation: "
            "give more data, another grouping or fraction, or no validation"
        )
    return _apart(groups, _draw(groups, percent, seed))


def _apart(groups: dict[str, list[Pair]], chosen: set[str]) -> Split:
    return Split(
        _flat({key: group for key, group in groups.items() if key not in chosen}),
        _flat({key: group for key, group in groups.items() if key in chosen}),
    )


def _fold(groups: dict[str, list[Pair]], folds: int | None, fold: int | None, seed: int) -> set[str]:
    """Keys of one fold: shuffled, the largest group first, each goes to the fold that holds the fewest pairs."""
    if folds is None or folds < 2:
        raise InputError(f"a cross-validation needs at least 2 folds, not {folds or 'none'}")
    if fold is None or not 1 <= fold <= folds:
        raise InputError(f"the fold that validates must be one of 1 to {folds}, not {fold or 'none'}")
    if folds > len(groups):
        raise InputError(f"{len(groups)} groups or single pairs cannot make {folds} folds: take fewer folds")
    held, parts = [0] * folds, [set[str]() for _ in range(folds)]
    for key in sorted(_shuffled(groups, seed), key=lambda key: -len(groups[key])):
        smallest = held.index(min(held))
        parts[smallest].add(key)
        held[smallest] += len(groups[key])
    return parts[fold - 1]


def _draw(groups: dict[str, list[Pair]], percent: float, seed: int) -> set[str]:
    """Keys of the groups for validation: shuffled, until they hold the wanted number of pairs."""
    wanted = percent / 100 * sum(map(len, groups.values()))
    keys = _shuffled(groups, seed)
    chosen, held = {keys[0]}, len(groups[keys[0]])
    for key in keys[1:-1]:
        # Half of a group beyond the wanted number is nearer to it than half of a group short of it.
        if held + len(groups[key]) / 2 > wanted:
            break
        chosen.add(key)
        held += len(groups[key])
    return chosen


def _groups(pairs: list[Pair], group_by: str | None) -> dict[str, list[Pair]]:
    if group_by is None:
        return {pair.name: [pair] for pair in pairs}
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(f"{group_by!r} is not a regular expression ({error})") from None
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        match = pattern.match(pair.name)
        key = match and (match[1] if pattern.groups else match[0])
        if not key:
            raise InputError(f"{pair.name!r} does not match {group_by!r}: give an expression that every name matches")
        groups[key].append(pair)
    return dict(groups)


def _listed(groups: dict[str, list[Pair]], val_list: Path, grouped: bool) -> set[Pair]:
    known: dict[str, list[Pair]] = {}
    for key, group in groups.items():
        for pair in group:
            known[pair.name] = known[_nfc(pair.image.name)] = [pair]
        if grouped:
            known[key] = group
    entries = _entries(val_list)
    unknown = [entry for entry in entries if entry not in known]
    if unknown:
        hint = "" if grouped else " (for names of groups, say --group-by)"
        raise InputError(f"{val_list}: no image is called {_some(unknown)}: correct the list{hint}")
    val = {pair for entry in entries for pair in known[entry]}
    torn = [key for key, group in groups.items() if 0 < len(val.intersection(group)) < len(group)]
    if torn:
        raise InputError(
            f"{val_list}: names only some images of the groups {_some(torn)}, whose others would train: "
            "name whole groups, or do without --group-by"
        )
    return val


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _entries(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 text file ({error})") from None
    lines = (_nfc(line.strip()) for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _part(groups: dict[str, list[Pair]], fraction: float, seed: int) -> dict[str, list[Pair]]:
    """A share of the groups; a smaller share of the same seed is a part of a larger one."""
    if fraction == 1:
        return groups
    kept = set(_shuffled(groups, seed)[: max(1, round(fraction * len(groups)))])
    return {key: group for key, group in groups.items() if key in kept}


def _checked(split: Split, val_list: Path | None) -> Split:
    if not split.train:
        where = f"{val_list} takes every image for validation" if val_list else "there is no pair"
        raise InputError(f"nothing is left to train on: {where}")
    if val_list and not split.val:
        raise InputError(f"{val_list}: names no validation image: write one name a line")
    return split


def _shuffled(groups: dict[str, list[Pair]], seed: int) -> list[str]:
    keys = sorted(groups)
    random.Random(seed).shuffle(keys)
    return keys


def _flat(groups: dict[str, list[Pair]]) -> list[Pair]:
    return sorted((pair for group in groups.values() for pair in group), key=lambda pair: pair.name)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _pair_to_dict(pair: Pair) -> dict[str, str]:
    return {"name": pair.name, "image": str(pair.image.absolute()), "mask": str(pair.mask.absolute())}


def _pair_from_dict(data: Mapping[str, Any]) -> Pair:
    values = [data[key] for key in ("name", "image", "mask")]
    if not all(isinstance(value, str) and value for value in values):
        raise ValueError("a pair is name, image and mask, all text")
    if Path(values[0]).name != values[0]:
        raise ValueError(f"{values[0]!r} is no name of a file")  # pictures are written under it
    return Pair(values[0], Path(values[1]), Path(values[2]))
