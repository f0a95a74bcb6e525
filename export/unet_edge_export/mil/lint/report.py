"""Every rule on every function of a package, as data and as text."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unet_edge_export.mil.package import Package

# The modules of rules are imported for what they enter into the table.
from . import convolution_rules, interface_rules, operation_rules, tensor_rules  # noqa: F401
from .chips import CHIPS, DEFAULT_CHIP, Chip, find_chip
from .cost import Cost, Projection, graph_cost, project
from .graph import Graph
from .rule import RULES, SEVERITIES, Finding, Subject

__all__ = ["FunctionReport", "Report", "lint"]

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class FunctionReport:
    """One function.

    Attributes:
        name: of the function.
        findings: errors first, in the order of the rules.
        cost: on the chip that was asked for.
        projections: chip -> least time of a prediction, for every chip.
    """

    name: str
    findings: tuple[Finding, ...]
    cost: Cost
    projections: dict[str, Projection]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the findings."""
        cost = self.cost
        totals = {
            name: getattr(cost, name) for name in ("macs", "flops", "traffic", "weights", "interface", "intensity")
        }
        return {
            "name": self.name,
            "total": {**totals, "operations": len(cost.operations), "open_operations": cost.open},
            "operations": [asdict(each) for each in cost.operations],
            "projections": [each.to_dict() for each in self.projections.values()],
        }


@dataclass(frozen=True)
class Report:
    """A package on a chip.

    Attributes:
        path: of the package.
        chip: whose rules were applied.
        functions: the default one first.
    """

    path: str
    chip: Chip
    functions: tuple[FunctionReport, ...]

    @property
    def findings(self) -> list[Finding]:
        """Of all functions, errors first."""
        found = [finding for function in self.functions for finding in function.findings]
        return sorted(found, key=_order)

    @property
    def counts(self) -> dict[str, int]:
        """Severity -> how many findings."""
        return {severity: sum(finding.severity == severity for finding in self.findings) for severity in SEVERITIES}

    def fails(self, limit: str) -> bool:
        """Whether there is a finding as severe as `limit`, which is "error" or "warn"."""
        return any(self.counts[severity] for severity in SEVERITIES[: SEVERITIES.index(limit) + 1])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: everything."""
        generation = asdict(self.chip.generation)
        return {
            "made_by": f"unet-edge {_version()}",
            "model": self.path,
            "chip": {**asdict(self.chip), "generation": {**generation, "streams": sorted(generation["streams"])}},
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
            "functions": [function.to_dict() for function in self.functions],
        }


def lint(package: Package, chip: str | Chip = DEFAULT_CHIP, ranges: Mapping[str, Ranges] | None = None) -> Report:
    """Check every function of a package against every rule.

    Args:
        package: open.
        chip: a chip or its name; what lints clean for the default lints clean for later chips.
        ranges: function -> value -> (smallest, largest) over calibration images, for the rule RANGE; without it
            that rule finds nothing.

    Raises:
        InputError: no facts about that chip.
        ModelFileError: a function is damaged.
    """
    chip = find_chip(chip) if isinstance(chip, str) else chip
    reports = []
    for name in package.functions:
        graph = Graph(package.function(name))
        findings = sorted(_findings(Subject(graph, chip, (ranges or {}).get(name, {}))), key=_order)
        projections = {each.name: project(graph_cost(graph, each), each) for each in (*CHIPS.values(), chip)}
        reports.append(FunctionReport(name, tuple(findings), graph_cost(graph, chip), projections))
    return Report(str(package.path), chip, tuple(reports))


def _findings(subject: Subject) -> Iterator[Finding]:
    for rule in RULES.values():
        for hit in rule.check(subject):
            severity = hit.severity or rule.severity
            yield Finding(rule, severity, subject.graph.name, hit.where, hit.kind, hit.message)


def _order(finding: Finding) -> tuple[int, int]:
    return SEVERITIES.index(finding.severity), list(RULES).index(finding.rule.id)


def _version() -> str:
    try:
        return importlib.metadata.version("unet-edge")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
