"""A report for people: what is wrong first, then what it costs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from .chips import CHIPS, Chip
from .cost import PROJECTION, Projection
from .report import FunctionReport, Report
from .rule import CONFIDENCE, RULES, Finding

__all__ = ["render", "render_rules"]

_WIDTH = 110
_INDENT = " " * 20
_LONGEST = 100  # characters of one name or message
_SHOWN = 3  # names of operations, and different messages, of a group


def render(report: Report, all_chips: bool = False, operations: bool = False) -> str:
    """The report as text.

    Args:
        report: what was found.
        all_chips: add the projection for every chip.
        operations: add the cost of every operation.
    """
    lines = [f"{report.path}  checked for {report.chip.name} ({_limits(report.chip)})", ""]
    for group in _groups(report.findings):
        lines += [*_group(group, len(report.functions) > 1), ""]
    for function in report.functions:
        lines += _costs(function, report.chip.name)
        lines += _operation_table(function) if operations else []
        lines += _chip_table(function) if all_chips else []
        lines.append("")
    return "\n".join([*lines, _verdict(report)])


def render_rules() -> str:
    """The table of rules as text."""
    lines = []
    for rule in RULES.values():
        lines.append(f"{rule.severity:5}  {rule.id:12} {rule.summary}")
        lines += _filled("do: ", rule.remedy)
        lines += _filled("source: ", f"{rule.source}; confidence {CONFIDENCE[rule.confidence]}")
    return "\n".join(lines)


def _limits(chip: Chip) -> str:
    origin = "measured" if chip.generation.measured else "predicted, not measured"
    mac = f"m{chip.generation.number}"
    return f"limits {origin}" if chip.name == mac else f"limits of the {mac}, {origin} there"


def _groups(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.rule.id), []).append(finding)
    yield from groups.values()


def _group(findings: list[Finding], name_functions: bool) -> list[str]:
    first = findings[0]
    rule = first.rule
    messages = list(dict.fromkeys(_plain(finding.message) for finding in findings))
    names = [_plain(f"{each.function}/{each.operation}" if name_functions else each.operation) for each in findings]
    count = f"{len(findings)} times: " if len(findings) > 1 else ""
    head = f"{first.severity:5}  {rule.id:12} "
    lines = textwrap.wrap(count + "; ".join(_some(messages)), _WIDTH, initial_indent=head, subsequent_indent=_INDENT)
    lines += _filled("at: ", ", ".join(_some(names)))
    lines += _filled("do: ", rule.remedy)
    return lines + _filled("source: ", f"{rule.source}; confidence {CONFIDENCE[rule.confidence]}")


def _some(texts: list[str]) -> list[str]:
    return texts[:_SHOWN] + ([f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else [])


def _plain(text: str) -> str:
    """A text out of a file, short and without control characters."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _filled(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=_INDENT + label, subsequent_indent=_INDENT, break_on_hyphens=False
    )


def _costs(function: FunctionReport, chip: str) -> list[str]:
    cost, projection = function.cost, function.projections[chip]
    lines = [
        f"{_plain(function.name)}: {len(cost.operations)} operations, {cost.flops / 1e9:.4g} GFLOP, "
        f"{cost.weights / 1e6:.4g} MB of weights, {cost.traffic / 1e6:.4g} MB of traffic unfused "
        f"({cost.intensity:.3g} FLOP a byte)"
    ]
    if cost.open:
        return [*lines, f"  {cost.open} operations are not counted: their shapes are only known when they run"]
    rate = f"{projection.tflops:g} TFLOP/s ({projection.rate}; {projection.source})"
    lines.append(f"  at least {projection.milliseconds:.3g} ms on {chip}, limited by {projection.limit}, at {rate}")
    if projection.measured and projection.claimed_ms is not None:
        lines.append(f"  at least {projection.claimed_ms:.3g} ms at Apple's own figure")
    return [*lines, f"  ({PROJECTION})"]


def _operation_table(function: FunctionReport) -> list[str]:
    lines = [f"  {'MFLOP':>12} {'kB traffic':>12} {'kB weights':>12}  operation"]
    for each in function.cost.operations:
        numbers = (2 * each.macs / 1e6, each.traffic / 1e3, each.weights / 1e3)
        lines.append(
            "  " + " ".join(f"{number:12,.1f}" for number in numbers) + f"  {_plain(f'{each.kind} {each.operation}')}"
        )
    return lines


def _chip_table(function: FunctionReport) -> list[str]:
    head = f"  {'chip':5} {'at least ms':>12} {'limit':11} {'TFLOP/s':>8} {'Apple ms':>11}  rate"
    lines = [f"{head} ({PROJECTION})"]
    return lines + [_chip_row(function.projections[chip]) for chip in CHIPS]


def _chip_row(each: Projection) -> str:
    claimed = "-" if each.claimed_ms is None else f"{each.claimed_ms:.3g}"
    numbers = f"{each.milliseconds:12.3g} {each.limit:11} {each.tflops:8g} {claimed:>11}"
    return f"  {each.chip:5} {numbers}  {each.rate}; {each.source}"


def _verdict(report: Report) -> str:
    counts = report.counts
    nouns = {"error": "error", "warn": "warning", "info": "note"}
    parts = [f"{counts[key]} {noun}{'' if counts[key] == 1 else 's'}" for key, noun in nouns.items()]
    return ", ".join(parts)
