"""What a comparison found, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .report import PairReport, Verification
from .sides import Side

__all__ = ["number", "share", "side_line", "text"]

WORST = 3  # images named for each candidate

COLUMNS = ("candidate", "largest", "mean", "SNR dB", "equal labels", "flipped", "sure", "Dice", "IoU", "outline")


def text(result: Verification) -> str:
    """All of it in lines, the verdict last."""
    lines = [side_line("reference", result.pairs[0].reference)]
    lines += [side_line("candidate", pair.candidate) for pair in result.pairs]
    lines += ["", *_table([COLUMNS, *(_row(pair) for pair in result.pairs)])]
    for pair in result.pairs:
        lines += _details(pair)
    lines += [f"note: {note}" for note in result.notes]
    lines += [f"left out: {failure}" for failure in result.failures]
    lines += ["", *(_verdict(pair) for pair in result.pairs)]
    if result.failures:
        count = len(result.failures)
        lines.append(f"FAIL  {count} image{'s' if count > 1 else ''} could not be used")
    return "\n".join(lines)


def side_line(role: str, side: Side) -> str:
    """What a side is, and what its results stand for."""
    facts = side.facts()
    size = "x".join(map(str, facts["input_size"])) if facts["input_size"] else "any size"
    where = f"saved outputs of {facts['backend']}" if facts["saved"] else facts["backend"]
    proves = f", {facts['proves']}" if facts["proves"] else ""
    return f"{role}  {side.name}: {where}, {facts['precision']}, {facts['head']}, {size}{proves}"


def number(value: float | None, digits: int = 3) -> str:
    """A number in few characters, or "-" where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A score of 0..1 in four places; 1 only where it is 1."""
    if value is None:
        return "-"
    return "1" if value == 1 else f"{min(value, 0.9999):.4f}"


def percent(value: float) -> str:
    """A share in percent; 100 only where it is all."""
    return "100 %" if value == 1 else f"{min(100 * value, 99.9999):.4f} %"


def _row(pair: PairReport) -> tuple[str, ...]:
    m = pair.measured
    if not m or not m["pixels"]:
        return (pair.candidate.name, *("-" for _ in COLUMNS[1:]))
    nothing = "identical" if m["identical"] and pair.kind != "labels" else "-"
    return (
        pair.candidate.name,
        number(m["max_difference"]),
        number(m["mean_difference"]),
        nothing if m["snr_db"] is None else f"{m['snr_db']:.1f}",
        percent(m["equal_labels"]),
        f"{m['flipped']:,}",
        f"{m['flips']['sure']:,}" if m["flips"] else "-",
        share(m["dice"]),
        share(m["iou"]),
        share(m["boundary_f1"]),
    )


def _details(pair: PairReport) -> list[str]:
    lines = [f"note: {note}" for note in pair.notes] + [f"left out: {failure}" for failure in pair.failures]
    flips = (pair.measured or {}).get("flips")
    if flips and flips["margin_median"] is not None:
        margins = f"median {number(flips['margin_median'])}, largest {number(flips['margin_largest'])}"
        lines.append(f"the reference's margin where labels flipped: {margins}")
    if pair.scores:
        lines += ["", *_table(_score_rows(pair.scores))]
        if pair.scores["difference"]:
            lines.append(_interval(pair.scores["difference"]))
    worst = [image for image in pair.images[:WORST] if image.measured["flipped"] or not pair.passed]
    if worst:
        rows = [("worst images", "flipped", "sure", "largest", "SNR dB")]
        for image in worst:
            m = image.measured
            sure = f"{m['flips']['sure']:,}" if m["flips"] else "-"
            rows.append(
                (image.sample.name, f"{m['flipped']:,}", sure, number(m["max_difference"]), number(m["snr_db"], 4))
            )
        lines += ["", *_table(rows)]
    return ["", f"{pair.candidate.name}", *lines] if lines else []


def _score_rows(scores: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("against the masks", "Dice", "IoU")]
    for name in ("reference", "candidate"):
        rows.append((name, *(share(scores[name][key]) for key in ("dice", "iou"))))
    return rows


def _interval(difference: dict[str, Any]) -> str:
    dice = difference["dice"]
    confidence = f"{difference['confidence']:.0%} interval over {difference['images']} images"
    return f"difference in Dice {dice['difference']:+.2g} [{dice['low']:+.2g}, {dice['high']:+.2g}], {confidence}"


def _verdict(pair: PairReport) -> str:
    names = f"{pair.candidate.name} and {pair.reference.name}"
    if pair.passed:
        count = len(pair.images)
        how = "are identical" if pair.measured["identical"] and pair.kind != "labels" else "agree"
        return f"PASS  {names} {how} on {count} image{'s' if count > 1 else ''}"
    count = len(pair.failures)
    failed = [f"{count} image{'s' if count > 1 else ''} could not be run"] if count else []
    lines = [f"FAIL  {names} do not agree: {'; '.join([*pair.problems, *failed])}"]
    return "\n".join([*lines, *(f"      because {reason}" for reason in pair.reasons)])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned, the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
