"""What a comparison by layer found, as data and as a table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["LayerReport", "LayerRow"]

_MARK = "<-- departs first"
_HEADINGS = ("layer", "kind", "shape", "max |diff|", "SNR dB", "local error", "x rounding", "")


@dataclass(frozen=True)
class LayerRow:
    """One layer of both models.

    Attributes:
        name: of the layer, such as "up1.conv.double_conv.0"; "input" and "head" stand before and after the network.
        kind: input, conv, upconv, relu, pool, upsample, concat or head.
        shape: of the layer's result in the candidate.
        max_difference: largest |candidate - reference| with all errors of the layers before it; infinite where one of
            them is not finite, None where the reference has no such result (a head of another kind).
        snr_db: 10 log10(sum of squares of the reference / of the difference); None where they are identical or the
            difference is None or infinite.
        local_error: largest |candidate - what the reference's operation makes of the candidate's own inputs|; None
            where it cannot be computed.
        rounding: the local error as a multiple of what the candidate's precision explains; above 1 is no rounding.
        departs: whether the layer computes something else than the reference's.
        note: compression, or what is unusual.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    max_difference: float | None
    snr_db: float | None
    local_error: float | None
    rounding: float | None
    departs: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, where infinite numbers become None and `finite` tells of them."""
        values = asdict(self)
        numbers = [value for value in values.values() if isinstance(value, float)]
        finite = all(math.isfinite(number) for number in numbers)
        plain = {key: None if _is_infinite(value) else value for key, value in values.items()}
        return {**plain, "shape": list(self.shape), "finite": finite}


@dataclass(frozen=True)
class LayerReport:
    """All layers of two models on one image.

    Attributes:
        reference: file name of the reference.
        candidate: file name of the candidate.
        size: (height, width) of the network's input that was compared.
        rows: in the candidate's order of execution; empty where the two are not the same network.
        first: the row that departs first, or None.
        reason: one sentence that names the layer and the cause; empty where nothing departs.
        note: what was compared, where that is not the whole image; may be empty.
    """

    reference: str
    candidate: str
    size: tuple[int, int]
    rows: tuple[LayerRow, ...]
    first: LayerRow | None
    reason: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "size": list(self.size),
            "first": self.first.name if self.first else None,
            "reason": self.reason,
            "note": self.note,
            "rows": [row.to_dict() for row in self.rows],
        }

    def table(self) -> str:
        """The rows as aligned text, and the verdict in the last line."""
        lines = [f"{self.candidate} against {self.reference}, layer by layer, on {_shape(self.size)} network pixels"]
        if self.note:
            lines.append(self.note)
        cells = [_HEADINGS, *(self._cells(row) for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
        if self.rows:
            lines += ["", *(_aligned(row, widths) for row in cells), ""]
        return "\n".join([*lines, self.reason or "No layer departs: the differences are those of rounding."])

    def _cells(self, row: LayerRow) -> tuple[str, ...]:
        mark = _MARK if row is self.first else "departs" if row.departs else ""
        return (
            row.name,
            row.kind,
            _shape(row.shape),
            _number(row.max_difference),
            "identical" if row.max_difference == 0 else "-" if row.snr_db is None else f"{row.snr_db:.1f}",
            _number(row.local_error),
            "-" if row.rounding is None else f"{row.rounding:.2f}" if row.rounding < 100 else f"{row.rounding:.3g}",
            "; ".join(part for part in (mark, row.note) if part),
        )


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _shape(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.2e}"


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    """Names to the left, numbers to the right."""
    padded = [
        cell.rjust(width) if 3 <= column <= 6 else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
