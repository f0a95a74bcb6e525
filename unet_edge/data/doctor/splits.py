"""The split that the doctor looks at: the one that a training would make, or the one that a run has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from unet_edge.data.pairing import Pair
from unet_edge.data.split import Split, split_pairs
from unet_edge_runtime.errors import InputError

__all__ = ["SplitOptions", "make_split", "read_run_split"]


@dataclass(frozen=True)
class SplitOptions:
    """How `train` divides a data set.

    Attributes:
        validation: percent that validates.
        group_by: regular expression for groups.
        val_list: file with the names that validate.
        seed: of the division.
    """

    validation: float = 10.0
    group_by: str | None = None
    val_list: Path | None = None
    seed: int = 0

    @property
    def chosen(self) -> bool:
        """Whether anything was asked for."""
        return self != SplitOptions()

    def describe(self) -> str:
        """How the division comes about, in words."""
        if self.val_list is not None:
            return f"as {self.val_list} says"
        by = f"groups of {self.group_by}" if self.group_by else "single images"
        return f"{self.validation:g} % of {by} at random, seed {self.seed}"


def make_split(pairs: list[Pair], options: SplitOptions) -> Split | None:
    """The division, or None where the pairs are too few for one that nobody asked for.

    Raises:
        InputError: the options do not fit the pairs.
    """
    try:
        return split_pairs(
            pairs,
            percent=options.validation,
            seed=options.seed,
            group_by=options.group_by,
            val_list=options.val_list,
        )
    except InputError:
        if options.chosen:
            raise
        return None


def read_run_split(run: Path) -> Split:
    """The split in a run's folder.

    Raises:
        InputError: there is none, it is damaged, or its files are gone.
    """
    path = run / "split.json"
    try:
        split = Split.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}): is {run} the folder of a run?") from None
    gone = [path for pair in (*split.train, *split.val) for path in (pair.image, pair.mask) if not path.exists()]
    if gone:
        raise InputError(f"{gone[0]}: no longer there ({len(gone)} files of {run} are gone): put them back")
    return split
