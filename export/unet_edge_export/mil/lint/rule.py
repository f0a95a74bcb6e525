"""What a rule is, and the table in which all of them stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .chips import Chip
from .graph import Graph, Node

__all__ = ["CONFIDENCE", "RULES", "SEVERITIES", "Finding", "Hit", "Rule", "Subject", "hit", "rule"]

SEVERITIES = ("error", "warn", "info")
"""error: does not run on the Neural Engine, or wrongly; warn: part of it does not, or only elsewhere is it known
to run well; info: costs something."""

CONFIDENCE = {"H": "high", "M": "medium", "L": "low"}
"""high: documented by Apple or measured by several; medium: measured by one; low: hearsay, or old."""


@dataclass(frozen=True)
class Subject:
    """What a rule looks at.

    Attributes:
        graph: one function of a package.
        chip: the chip it is to run on.
        ranges: value name -> (smallest, largest) over calibration images; empty where nobody has run it.
    """

    graph: Graph
    chip: Chip
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """A rule applies: where, to what kind of operation, why; `severity` where it is not the rule's usual one."""

    where: str
    kind: str
    message: str
    severity: str | None = None


@dataclass(frozen=True)
class Rule:
    """One rule; this table is its documentation.

    Attributes:
        id: short name.
        severity: one of `SEVERITIES`; the usual one, where a hit may carry another.
        confidence: H, M or L, see `CONFIDENCE`.
        summary: what is checked, one sentence.
        remedy: what to do.
        source: who says so.
        check: finds where it applies.
    """

    id: str
    severity: str
    confidence: str
    summary: str
    remedy: str
    source: str
    check: Callable[[Subject], Iterator[Hit]]


@dataclass(frozen=True)
class Finding:
    """A rule that applies to a package.

    Attributes:
        rule: which.
        severity: one of `SEVERITIES`.
        function: function of the package.
        operation: name of the value that the operation computes, or of an input or output.
        kind: type of the operation, such as "conv"; "input", "output" or "program".
        message: what is the matter with it.
    """

    rule: Rule
    severity: str
    function: str
    operation: str
    kind: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Plain data, complete: what to do, source and confidence stand beside the message."""
        return {
            "rule": self.rule.id,
            "severity": self.severity,
            "function": self.function,
            "operation": self.operation,
            "kind": self.kind,
            "message": self.message,
            "remedy": self.rule.remedy,
            "source": self.rule.source,
            "confidence": CONFIDENCE[self.rule.confidence],
        }


RULES: dict[str, Rule] = {}
"""Every rule by its id; filled by the modules of rules, which `unet_edge_export.mil.lint` imports."""


def rule(
    id: str, severity: str, confidence: str, *, remedy: str, source: str
) -> Callable[[Callable[[Subject], Iterator[Hit]]], Callable[[Subject], Iterator[Hit]]]:
    """Enter a function into the table; the first line of its docstring is the rule's summary."""

    def enter(check: Callable[[Subject], Iterator[Hit]]) -> Callable[[Subject], Iterator[Hit]]:
        assert id not in RULES, id
        assert severity in SEVERITIES, severity
        assert confidence in CONFIDENCE, confidence
        summary = (check.__doc__ or "").strip().splitlines()[0]
        RULES[id] = Rule(id, severity, confidence, summary, remedy, source, check)
        return check

    return enter


def hit(node: Node, message: str, severity: str | None = None) -> Hit:
    """A rule applies to an operation."""
    return Hit(node.name, node.kind, message, severity)
