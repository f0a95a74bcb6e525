"""A suspicion: something that looks wrong, which a person should see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unet_edge.data.pairing import Pair

__all__ = ["NAMED", "Suspicion", "name_some"]

NAMED = 5  # files that one line names


@dataclass(frozen=True)
class Suspicion:
    """What looks wrong.

    Attributes:
        kind: one word for machines: leak, duplicate, contradiction, foreign, mirrored, turned, moved, empty, tiny, ...
        text: one line: what, which files, what to do.
        pairs: the pairs that it is about, the worst first; empty where it is about the whole data set.
        twins: pairs of pairs to look at side by side.
    """

    kind: str
    text: str
    pairs: tuple[Pair, ...] = ()
    twins: tuple[tuple[Pair, Pair], ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "text": self.text,
            "images": [str(pair.image) for pair in self.pairs],
            "twins": [[str(first.image), str(second.image)] for first, second in self.twins],
        }


def name_some(pairs: tuple[Pair, ...] | list[Pair]) -> str:
    """The first few image files by name."""
    shown = ", ".join(pair.image.name for pair in pairs[:NAMED])
    return f"{shown} and {len(pairs) - NAMED} more" if len(pairs) > NAMED else shown
